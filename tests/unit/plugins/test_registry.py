"""Which names there are, whose they are, and what is wrong with the others."""

from __future__ import annotations

import sys

import pytest

from ftlab import registry
from ftlab.errors import ConfigError
from ftlab.main import main
from tests.unit.plugins.strangers import HEAD, SOUND, Install, WriteFile, refused


def test_the_built_ins_are_found_by_name_and_by_path_and_keep_their_contract() -> None:
    for plugin in registry.plugins():
        assert registry.find(plugin.name, plugin.kind) == registry.find(plugin.class_path) == plugin
        assert registry.load(plugin).__name__ == plugin.name
    assert not registry.faulty()


def test_an_installed_class_is_found_and_nothing_is_imported_before_it_is_loaded(install: Install) -> None:
    install({"strategies.Foreign": "sound_one:Foreign"}, {"sound_one": HEAD + SOUND.format(name="Foreign")})
    plugin = registry.find("Foreign")
    assert (plugin.package, plugin.version, plugin.class_path) == ("stranger", "3.4", "sound_one.Foreign")
    assert "sound_one" not in sys.modules
    assert registry.load(plugin) is sys.modules["sound_one"].Foreign


def test_two_packages_with_one_name_are_both_named_and_the_path_decides(install: Install) -> None:
    install({"strategies.Twin": "twin_a:Twin"}, {"twin_a": HEAD + SOUND.format(name="Twin")}, package="alpha")
    install({"strategies.Twin": "twin_b:Twin"}, {}, package="beta")
    with pytest.raises(ConfigError, match=r"^'Twin' is registered by alpha 3\.4 and beta 3\.4; name one of twin_a\.Twin, twin_b\.Twin\.$"):
        registry.find("Twin", "strategies")
    assert registry.load(registry.find("twin_a.Twin")).__module__ == "twin_a"


def test_a_built_in_cannot_be_shadowed_by_an_installed_class(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install({"strategies.Full": "shade:Full"}, {"shade": HEAD + SOUND.format(name="Full")})
    assert registry.find("Full", "strategies").class_path == "ftlab.strategies.full.Full"
    assert caplog.messages == ["Full is ftlab's own; the one of stranger 3.4 is named shade.Full"]
    assert registry.find("shade.Full").package == "stranger"


def test_a_given_class_with_the_name_of_a_built_in_must_be_named_in_full(file: WriteFile) -> None:
    path = file("mine.py", HEAD + SOUND.format(name="Full"))
    registry.use(path)
    with pytest.raises(ConfigError) as caught:
        registry.find("Full", "strategies")
    assert str(caught.value) == f"'Full' is registered by ftlab 0.1.0 and {path}; name one of ftlab.strategies.full.Full, mine.Full."
    assert registry.find("mine.Full").name == "Full"


NO_NAME = "is no name that a class can be called by; use ASCII letters, digits and '_'."
LOOK_ALIKE = "L\N{CYRILLIC SMALL LETTER O}RA"


@pytest.mark.parametrize(
    ("point", "name", "sentence"),
    [
        ("strategies.Zig Zag", "Zig Zag", f"'strategies.Zig Zag' {NO_NAME}"),
        ("strategies.../up", "../up", f"'strategies.../up' {NO_NAME}"),
        ("strategies.", "", f"'strategies.' {NO_NAME}"),
        (f"strategies.{LOOK_ALIKE}", LOOK_ALIKE, f"{f'strategies.{LOOK_ALIKE}'!a} {NO_NAME}"),
        ("strategies.zig", "zig", "strategies.zig points at odd_two.Zig; the name must be the class's own, strategies.Zig."),
        ("strategy.Zig", "Zig", "'strategy.Zig' is of no known kind; did you mean strategies?"),
    ],
)
def test_a_misnamed_entry_point_is_no_choice_and_says_why(install: Install, point: str, name: str, sentence: str) -> None:
    install({point: "odd_two:Zig"}, {"odd_two": HEAD + SOUND.format(name="Zig")})
    assert name not in [p.name for p in registry.plugins()]
    assert refused(name) == f"plugin {name} of stranger 3.4 cannot be used: its entry point {sentence}"


def test_a_plugin_for_another_ftlab_says_which(install: Install) -> None:
    install({"strategies.Later": "later_one:Later"}, {}, requires="FTLAB>=99")
    said = "it needs ftlab >=99, and this is 0.1.0; install versions that go together."
    assert refused("Later") == f"plugin Later of stranger 3.4 cannot be used: {said}"


@pytest.mark.parametrize("requires", ["ftlab>=0.1", "torch>=99", "ftlab>=99; extra == 'new'"])
def test_other_requirements_are_left_to_the_installer(install: Install, requires: str) -> None:
    install({"strategies.Fits": "fits_one:Fits"}, {"fits_one": HEAD + SOUND.format(name="Fits")}, requires=requires)
    assert registry.load(registry.find("Fits")).__name__ == "Fits"


def test_an_unknown_name_gets_the_nearest(install: Install) -> None:
    with pytest.raises(ConfigError, match=r"^strategies has no 'Lora'; did you mean LoRA\?$"):
        registry.find("Lora", "strategies")


# --plugin


FIT = ["fit", "--model.backbone.name", "ftlab/tiny-llama", "--model.task", "CausalLM", "--data.source", "PythonDocs"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model.tuning", "../evil"], "model.tuning is '../evil', which is not one of the strategies installed;"),
        (["--model.tuning", "Fu ll"], "model.tuning is 'Fu ll', which is not one of the strategies installed; did you mean Full?"),
        (
            ["--model.tuning", LOOK_ALIKE],
            r"model.tuning is 'L\u043eRA', which is not one of the strategies installed; did you mean LoRA or QLoRA?",
        ),
        (["--model.tuning="], "model.tuning is null; write the name of one of strategies: "),
        (["--plugin"], "--plugin needs a value; write --plugin "),
    ],
)
def test_an_odd_name_is_one_sentence(options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, *options]) == 2
    error = capsys.readouterr().err
    assert f"ftlab: error: {sentence}" in error
    assert len(error.splitlines()) == 1


def test_a_run_that_names_a_broken_plugin_shows_where_it_broke(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install({"strategies.Cracked": "cracked_one:Cracked"}, {"cracked_one": "x = 1\nraise OSError('disk')"})
    assert main([*FIT, "--model.tuning", "Cracked"]) == 2
    place, sentence = capsys.readouterr().err.splitlines()
    assert place.endswith("cracked_one.py:2: raise OSError('disk')")
    assert sentence.startswith("ftlab: error: plugin module cracked_one of stranger 3.4 does not import (OSError: disk); ")
