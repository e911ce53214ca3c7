"""Text that every Python carries: its language reference and the docstrings of its standard library.

The files are parsed, never imported: importing `antigravity` opens a browser, and other modules patch the interpreter.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import platform
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeAlias

from ftlab.data.sources.base import DataSource
from ftlab.data.sources.files import fingerprint_of
from ftlab.errors import ConfigError, DataError, suggest

Part: TypeAlias = Literal["pretraining", "held-out"]

HELD_OUT = ("asyncio", "email", "http", "importlib", "logging", "tkinter", "unittest", "xml")
"""Packages that the pretraining of the shipped backbones never sees; CPython 3.11, 3.12 and 3.13 all have them."""

_ROOT = Path(sysconfig.get_paths()["stdlib"])
_TOPICS = _ROOT / "pydoc_data" / "topics.py"
_SPLITS = ("train", "validation")
# Tests and demos are no prose, and what a distribution or a user installs differs from machine to machine.
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data", "site-packages", "dist-packages"}
# Shorter paragraphs ("For example:") stand everywhere, and a text without them reads broken.
_UNIQUE_FROM = 40


class Docstring(NamedTuple):
    """A docstring, the qualified name that it documents, and its `class` or `def` line (empty for a module)."""

    package: str
    module: str
    name: str
    signature: str
    text: str


class Document(NamedTuple):
    """A module's docstrings under their signatures, or one topic of the language reference."""

    package: str
    title: str
    text: str


@cache
def docstrings(part: Part) -> tuple[Docstring, ...]:
    """The docstrings of the standard library, in the order of their paths and lines."""
    found: list[Docstring] = []
    for path in _paths(part):
        parts = path.with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        found.extend(_docstrings_in(_parse(_ROOT / path), Docstring(parts[0], module, module, "", "")))
    return tuple(found)


@cache
def documents(part: Part) -> tuple[Document, ...]:
    """The corpus: a paragraph stands in it once, and in one part only; `pretraining` begins with the language reference."""
    seen: set[str] = set()
    sources = docstrings(part)
    if part == "pretraining":
        for entry in docstrings("held-out"):
            _unseen(entry.text, seen)
        sources = (*_topics(), *sources)
    texts: dict[tuple[str, str], list[str]] = {}
    for entry in sources:
        if text := _unseen(entry.text, seen):
            shown = entry.signature + "\n" + textwrap.indent(f'"""{text}"""', "    ") if entry.signature else text
            texts.setdefault((entry.package, entry.module), []).append(shown)
    return tuple(Document(*key, "\n\n".join(found)) for key, found in texts.items())


def passages(text: str, max_characters: int) -> Iterator[str]:
    """Cuts a text between paragraphs; a paragraph that alone is longer than `max_characters` stays whole."""
    held: list[str] = []
    for paragraph in text.split("\n\n"):
        if held and len("\n\n".join([*held, paragraph])) > max_characters > 0:
            yield "\n\n".join(held)
            held = []
        held.append(paragraph)
    yield "\n\n".join(held)


def in_split(title: str, split: str, percent: int) -> bool:
    """Whether a title belongs to a split, by a hash of its letters: `validation` gets `percent` of the titles."""
    if split not in _SPLITS:
        raise DataError(f"Python's documentation has no split '{split}'; {suggest(split, _SPLITS)}")
    return (_hash(title) % 100 < percent) == (split == "validation")


@dataclass(frozen=True, kw_only=True)
class PythonDocs(DataSource):
    """Passages of Python's own documentation, for language modelling: columns `text`, `title` and `package`.

    Args:
        part: held-out for the packages that the shipped backbones never saw, pretraining for what they were made from.
        max_characters: Longest passage, cut between paragraphs; 0 keeps each module and topic whole.
    """

    part: Part = "held-out"
    max_characters: int = 1000

    def __post_init__(self) -> None:
        if self.max_characters < 0:
            raise ConfigError(f"max_characters is {self.max_characters}; give a length, or 0 to keep documents whole.")

    def splits(self) -> tuple[str, ...]:
        return _SPLITS

    def rows(self, split: str) -> Iterator[dict[str, object]]:
        for package, title, text in documents(self.part):
            # By title: the passages of one module say much the same, so they stay on one side.
            if in_split(title, split, percent=10):
                for passage in passages(text, self.max_characters):
                    yield {"text": passage, "title": title, "package": package}

    def fingerprint(self, split: str) -> str:
        """A hash of the files, of how they are read and of the split."""
        return _fingerprint(self, split, self.part)


@dataclass(frozen=True, kw_only=True)
class DocstringPackage(DataSource):
    """Which package a docstring is from, for classification: columns `text`, `label` and `title`; no text names its label.

    Args:
        max_per_label: Most docstrings of one package, both splits together.
        min_characters: Shortest docstring that is kept.
        max_characters: Longest docstring that is kept.
    """

    max_per_label: int = 200
    min_characters: int = 40
    max_characters: int = 600

    def splits(self) -> tuple[str, ...]:
        return _SPLITS

    def rows(self, split: str) -> Iterator[dict[str, object]]:
        found: dict[str, Docstring] = {}
        for entry in docstrings("held-out"):
            fits = self.min_characters <= len(entry.text) <= self.max_characters
            if fits and entry.package not in entry.text.lower():
                found.setdefault(entry.text, entry)
        for label in HELD_OUT:
            own = sorted((_hash(entry.name), entry) for entry in found.values() if entry.package == label)
            for _, entry in own[: self.max_per_label]:
                if in_split(entry.text, split, percent=20):
                    yield {"text": entry.text, "label": label, "title": entry.name}

    def fingerprint(self, split: str) -> str:
        """A hash of the files, of how they are read and of the split."""
        return _fingerprint(self, split, "held-out")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _fingerprint(source: PythonDocs | DocstringPackage, split: str, part: Part) -> str:
    # Reading the rows would parse a hundred files and more, which takes longer than everything else before the first step.
    in_split("", split, percent=0)  # refuses a split that is not there
    parts: tuple[Part, ...] = ("pretraining", "held-out") if part == "pretraining" else ("held-out",)  # what it leaves out counts too
    paths = [path for each in parts for path in _paths(each)]
    spec = {
        "source": type(source).__name__, "fields": dataclasses.asdict(source), "split": split,
        "python": platform.python_version(), "paths": [str(path) for path in paths],
    }  # fmt: skip
    topics = [_TOPICS] if part == "pretraining" else []
    return fingerprint_of(spec, map(str, [Path(__file__), *topics, *(_ROOT / path for path in paths)]))


def _paths(part: Part) -> list[PurePosixPath]:
    # Skipped from the top, not after the walk: site-packages can be a hundred times larger than the library.
    tops = [path for path in _ROOT.iterdir() if path.name not in _SKIPPED]
    files = [path for top in tops for path in (top.rglob("*.py") if top.is_dir() else [top]) if path.suffix == ".py"]
    found = sorted(PurePosixPath(path.relative_to(_ROOT).as_posix()) for path in files)
    if not found:
        raise DataError(f"{_ROOT} holds no .py file to read documentation from; install the sources of Python's library.")
    read = [path for path in found if not _SKIPPED.intersection(path.parts)]
    return [path for path in read if (path.with_suffix("").parts[0] in HELD_OUT) == (part == "held-out")]


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is not readable as Python ({error}); repair this Python's standard library.") from error


def _docstrings_in(node: ast.AST, place: Docstring) -> Iterator[Docstring]:
    if isinstance(node, ast.ClassDef):
        place = place._replace(name=f"{place.name}.{node.name}", signature=f"class {node.name}:")
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        place = place._replace(name=f"{place.name}.{node.name}", signature=f"def {node.name}({ast.unparse(node.args)}):")
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
        # Some docstrings hold lone surrogates as examples, and no tokenizer takes those.
        yield place._replace(text=text.encode("utf-8", "ignore").decode().strip())
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _docstrings_in(child, place)


def _topics() -> Iterator[Docstring]:
    for table in (node for node in ast.walk(_parse(_TOPICS)) if isinstance(node, ast.Dict)):
        for name, text in sorted(ast.literal_eval(table).items()):
            yield Docstring("language", f"language.{name}", name, "", text.strip())


def _unseen(text: str, seen: set[str]) -> str:
    keyed = [(paragraph, " ".join(paragraph.split())) for paragraph in text.split("\n\n")]
    kept = [(paragraph, key) for paragraph, key in keyed if len(key) < _UNIQUE_FROM or key not in seen]
    seen.update(key for _, key in kept)
    return "\n\n".join(paragraph for paragraph, _ in kept).strip("\n")
