"""What the import of a plugin can do wrong, and the one sentence that each fault gets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ftlab import registry
from ftlab.errors import ConfigError
from ftlab.registry import PluginError
from tests.unit.plugins.strangers import HEAD, SOUND, Install, WriteFile, refused


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no licence\\nfound')", "RuntimeError: no licence found"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def f(:\n", "SyntaxError: invalid syntax (broken_one.py, line 1)"),
    ],
)
def test_a_module_that_does_not_import_is_named_and_breaks_only_who_asks_for_it(install: Install, code: str, said: str) -> None:
    install({"strategies.Broken": "broken_one:Broken"}, {"broken_one": code})
    assert refused("Broken") == f"plugin module broken_one of stranger 3.4 does not import ({said}); mend it, or do not name it."
    assert registry.load(registry.find("Full")).__name__ == "Full"


def test_the_place_of_a_fault_is_the_plugins_own_and_short(install: Install) -> None:
    install({"strategies.Deep": "deep_one:Deep"}, {"deep_one": "def dive(n):\n    return dive(n - 1) if n else 1 / 0\ndive(9)\n"})
    with pytest.raises(PluginError) as caught:
        registry.load(registry.find("Deep"))
    lines = caught.value.details.splitlines()
    assert len(lines) == 3
    assert all("deep_one.py:2: return dive" in line for line in lines)


def test_what_a_plugin_prints_stays_out_of_standard_output(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install({"strategies.Loud": "loud_one:Loud"}, {"loud_one": HEAD + "print('buy more')" + SOUND.format(name="Loud")})
    registry.load(registry.find("Loud"))
    assert capsys.readouterr() == ("", "buy more\n")


def test_an_interrupt_during_an_import_stays_an_interrupt(install: Install) -> None:
    install({"strategies.Held": "held_one:Held"}, {"held_one": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        registry.load(registry.find("Held"))


def test_a_slow_import_is_told(install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    install({"strategies.Slow": "slow_one:Slow"}, {"slow_one": HEAD + SOUND.format(name="Slow")})
    clock = iter([0.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock, 31.0))
    registry.load(registry.find("Slow"))
    assert caplog.messages == ["plugin module slow_one of stranger 3.4 took 31 s to import"]


def test_a_files_classes_have_a_short_and_a_long_name_and_its_folder_stays_off_the_path(file: WriteFile) -> None:
    path = file("my_tunings.py", HEAD + SOUND.format(name="First") + SOUND.format(name="Second"))
    before = list(sys.path)
    assert [p.name for p in registry.use(path)] == ["First", "Second"]
    assert registry.load(registry.find("First")) is registry.load(registry.find("my_tunings.First", "strategies"))
    assert sys.path == before
    assert registry.use(path), "a file that is given twice is read once"


def test_several_files_stand_beside_each_other(file: WriteFile) -> None:
    for stem in ("left", "right"):
        registry.use(file(f"{stem}.py", HEAD + SOUND.format(name="Same") + SOUND.format(name=stem.title())))
    assert registry.find("Left").module == "left"
    assert registry.find("Right").module == "right"
    with pytest.raises(ConfigError, match=r"name one of left\.Same, right\.Same\."):
        registry.find("Same")


def test_a_package_gives_what_its_modules_define(file: WriteFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file("bundle/inner.py", HEAD + SOUND.format(name="Wrapped"))
    file("bundle/__init__.py", "from ftlab import Task\nfrom ftlab.strategies.full import Full\nfrom bundle.inner import Wrapped\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [p.class_path for p in registry.use("bundle")] == ["bundle.inner.Wrapped"]


def test_a_module_that_is_also_installed_stays_one_plugin() -> None:
    assert [p.name for p in registry.use("ftlab.strategies.full")] == ["Full"]
    assert registry.find("Full").built_in


def test_helpers_are_no_plugins_and_an_unfinished_class_says_what_it_lacks(file: WriteFile) -> None:
    code = HEAD + (
        "class Shared(TuningStrategy):\n    pass\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Done(Shared):\n    def apply(self, model, heads): return model\n"
        "@dataclass(frozen=True, kw_only=True)\nclass _Hidden(Done):\n    pass\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Unfinished(TuningStrategy):\n    pass\n"
    )
    path = file("helpers_one.py", code)
    assert [p.name for p in registry.use(path)] == ["Done", "Unfinished"]
    assert refused("Unfinished") == f"plugin Unfinished of {path} lacks apply, which every TuningStrategy must define."


MEND = "; mend it, or do not name it."


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("prose_one.py", "Dear reader,", "does not import (SyntaxError: invalid syntax (prose_one.py, line 1))" + MEND),
        ("binary_one.py", "\0\0", "does not import (SyntaxError: source code string cannot contain null bytes)" + MEND),
        ("leaving_one.py", "raise SystemExit(4)", "does not import (SystemExit: 4)" + MEND),
        ("my-tuning.py", "", ": 'my-tuning' cannot be a module's name; rename the file, with letters, digits and '_' only."),
        ("json.py", "", ": there is already a module called 'json'; rename the file."),
        ("tabnanny.py", "", ": there is already a module called 'tabnanny'; rename the file."),
    ],
)
def test_a_file_that_is_no_plugin_is_named(file: WriteFile, name: str, code: str, sentence: str) -> None:
    path = file(name, code)
    before = set(sys.modules)
    with pytest.raises(PluginError) as caught:
        registry.use(path)
    message = str(caught.value)
    if "null bytes" in sentence:  # Python 3.12 turned this ValueError into a SyntaxError
        message = message.replace("ValueError", "SyntaxError")
    assert message == f"--plugin {path}{'' if sentence.startswith(':') else ' '}{sentence}"
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("gone.py", "--plugin gone.py: there is no such file; check the path and the folder you are in."),
        ("plugins/mine", "--plugin 'plugins/mine' is neither a module nor a file that ends in .py; write package.module or file.py."),
        ("", "--plugin '' is neither a module nor a file that ends in .py; write package.module or file.py."),
        ("no_such.mine", "--plugin no_such.mine: no module 'no_such' is installed; install it, or name a file that ends in .py."),
        ("json.nothing", "--plugin json.nothing: no module 'json.nothing' is installed; install it, or name a file that ends in .py."),
        ("json", "--plugin json defines no plugin; derive a class from one of TuningStrategy, Task, DataSource."),
        (
            "ftlab.strategies.base",
            "--plugin ftlab.strategies.base defines no plugin; derive a class from one of TuningStrategy, Task, DataSource.",
        ),
    ],
)
def test_a_target_that_leads_nowhere_is_named(target: str, sentence: str) -> None:
    with pytest.raises(PluginError) as caught:
        registry.use(target)
    assert str(caught.value) == sentence


def test_a_module_that_lacks_another_is_not_itself_missing(file: WriteFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file("needy_one.py", "import nowhere_to_be_found")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"^--plugin needy_one does not import \(ModuleNotFoundError: No module named 'nowhere_to"):
        registry.use("needy_one")
