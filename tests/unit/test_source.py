"""Classes as their source text describes them, against what Python says of the imported ones."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from ftlab import registry, scope, source, type_words
from tests.unit.hints import constructor_hints

CLASSES = '''
from __future__ import annotations
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Optional, TYPE_CHECKING
from sampled.inner import types
from .types import Mode
if TYPE_CHECKING:
    from .types import Mode as Late

@dataclass
class Facts:
    paper: str = ""
    level: int = 1

@dataclass
class Base:
    """Base.

    Args:
        first: From the base.
    """
    facts: ClassVar[Facts] = Facts()
    first: int
    _: KW_ONLY
    second: "Optional[str]" = None

class Leaf(Base):
    """A leaf, described
    over two lines.

    And more.

    Args:
        mode: Which way
            to go.
        late (str): Another.

    Returns:
        first: Not an argument.
    """
    facts = Facts(paper="Me 2020")
    mode: Mode = "a"
    late: Late | None = None
    many: list[int] = field(default_factory=list)
    made: int = field(init=False, default=3)
    kept: float = field(default=0.5, metadata={})

class Plain:
    def __init__(self, a, b: int = 2, *rest: int, c: str, **others: int) -> None:
        """Plain.

        Args:
            c: Needed.
        """
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose import would leave a file."""
    folder = tmp_path / "sampled"
    (folder / "inner").mkdir(parents=True)
    bomb = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n"
    (folder / "__init__.py").write_text(bomb + "from .inner.classes import Leaf as Exported\nfrom .inner import classes\n")
    (folder / "inner" / "__init__.py").write_text(bomb)
    (folder / "inner" / "types.py").write_text("from typing import Literal\nMode = Literal['a', 'b']\n_Hidden: int = 3\n")
    (folder / "inner" / "classes.py").write_text(bomb + CLASSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_fields_of_a_dataclass_and_its_bases_without_an_import(package: Path) -> None:
    leaf = source.read("sampled.inner.classes.Leaf")
    assert leaf.summary == "A leaf, described over two lines."
    assert [(p.name, p.type, p.default, p.nullable) for p in leaf.parameters] == [
        ("first", "int", None, False),
        ("second", "Optional[str]", "None", True),
        ("mode", "Literal['a', 'b']", "'a'", False),
        ("late", "Literal['a', 'b'] | None", "None", True),
        ("many", "list[int]", "[]", False),
        ("kept", "float", "0.5", False),
    ]
    assert {p.name: p.text for p in leaf.parameters}["mode"] == "Which way to go."
    assert {p.name: p.text for p in leaf.parameters}["late"] == "Another."
    assert {p.name: p.text for p in leaf.parameters}["first"] == "From the base."
    assert leaf.constants["facts"] == {"paper": "Me 2020", "level": 1}
    assert not list(package.rglob("*.ran"))
    assert "sampled" not in sys.modules


def test_a_class_is_found_through_what_exports_it(package: Path) -> None:
    assert source.read("sampled.Exported").path == "sampled.inner.classes.Leaf"
    assert source.exports("sampled") == ("Exported",)
    assert not list(package.rglob("*.ran"))


def test_arguments_of_a_plain_class(package: Path) -> None:
    found = source.read("sampled.inner.classes.Plain").parameters
    assert [(p.name, p.type, p.default, p.text) for p in found] == [
        ("a", "", None, ""),
        ("b", "int", "2", ""),
        ("c", "str", None, "Needed."),
    ]
    assert source.arguments("sampled.inner.classes.Plain", "__init__") == ("a", "b", "c")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("sampled.inner.classes.Gone", "module sampled.inner.classes has no class Gone"),
        ("sampled.gone.Leaf", "there is no module sampled.gone"),
        ("gone_altogether.Leaf", "there is no module gone_altogether"),
    ],
)
def test_what_is_not_there_is_said(package: Path, path: str, message: str) -> None:
    with pytest.raises(scope.UnreadableError) as caught:
        source.read(path)
    assert str(caught.value) == message


def test_a_module_that_does_not_parse_and_one_without_source(package: Path) -> None:
    (package / "broken.py").write_text("class Leaf(:\n")
    with pytest.raises(scope.UnreadableError, match=r"broken\.py cannot be parsed: invalid syntax"):
        source.read("sampled.broken.Leaf")
    with pytest.raises(scope.NoSourceError):
        source.read("itertools.chain")


def test_an_editable_installation_is_found_by_its_finder(tmp_path: Path) -> None:
    # Such an installation adds a finder to sys.meta_path and nothing to sys.path.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "__init__.py").write_text("raise SystemExit('imported')\n")
    (elsewhere / "leaf.py").write_text("class Leaf:\n    '''Found.'''\n")
    code = f"""
import importlib.util, sys
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "mapped":
            place = {str(elsewhere)!r}
            return importlib.util.spec_from_file_location(name, place + "/__init__.py", submodule_search_locations=[place])
sys.meta_path.append(Finder)
from ftlab import source
print(source.read("mapped.leaf.Leaf").summary)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("Found.\n", "")


@pytest.mark.parametrize("plugin", registry.plugins(), ids=lambda p: p.name)
def test_every_plugin_reads_as_python_has_it(plugin: registry.Plugin) -> None:
    cls = registry.load(plugin)
    assert dataclasses.is_dataclass(cls)
    hints, words = constructor_hints(cls)
    fields = [f for f in dataclasses.fields(cls) if f.init]
    read = source.read(plugin.class_path).parameters
    assert [p.name for p in read] == [f.name for f in fields]
    assert {p.name for p in read if p.default is None} == {
        f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    for parameter, field in zip(read, fields, strict=True):
        if field.default is not dataclasses.MISSING:
            assert eval(str(parameter.default), words) == field.default
        assert parameter.nullable == (type(None) in (hints[field.name], *typing.get_args(hints[field.name])))
        assert parameter.text, f"{plugin.name}.{field.name} has no line in the docstring"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("int", "a whole number"),
        ("Optional[Union[int, float]]", "a whole number or a number or null"),
        ("str | list[str]", "text or a list of texts"),
        ("Literal['a', 'b', 3]", "one of a, b, 3"),
        ("list[dict[str, int]]", "a list"),
        ("dict[str, float]", "key: value pairs, the values numbers"),
        ("dict[str, list[int]] | None", "key: value pairs or null"),
        ("bool | Other[int]", "true or false or Other[int]"),
    ],
)
def test_types_in_words(annotation: str, words: str) -> None:
    import ast

    assert type_words.wanted(ast.parse(annotation, mode="eval").body) == words
