"""What a trial may say at its end without harm to the process that forks the next."""

from __future__ import annotations

import io
import pickle
import sys
from types import ModuleType

import pytest
from transformers import PretrainedConfig

from ftlab.studies.held import Held
from ftlab.studies.shelf import Shelf
from ftlab.weights import Reading


class Unmade(PretrainedConfig):
    """Raises when it is made again."""

    def __reduce__(self) -> tuple[object, ...]:
        return (int, ("no number",))


class Unsaid(PretrainedConfig):
    """Raises when it is written."""

    def __reduce__(self) -> tuple[object, ...]:
        raise RuntimeError("not to be written")


class Unlike(PretrainedConfig):
    """Raises when it is compared."""

    def to_dict(self) -> dict[str, object]:
        if "told" in self.__dict__:
            raise RuntimeError("not to be told")
        return {}


def lesson(config: PretrainedConfig) -> io.BytesIO:
    """What a trial says that has read a base with a configuration of its own, and has imported a module of the standard library."""
    shelf, file = Shelf(frozenset()), io.BytesIO()
    shelf._modules.discard("ftlab.weights")
    shelf._read = Reading(auto_class="AutoModel", location="x", config=config, arguments={})
    shelf.report(file)
    return file


WORDS = ["fit", "--model.tuning", "LoRA"]
LOST = ["its configuration has a class that only the trial knows", ""]


def learnt(file: io.BytesIO) -> tuple[bool, int]:
    """Whether the modules are learnt, and how many readings."""
    shelf = Shelf(frozenset())
    shelf._modules.discard("ftlab.weights")
    shelf.learn(WORDS, file)
    return "ftlab.weights" in shelf._modules, sum(reading is not None for reading in shelf._readings.values())


def told(file: io.BytesIO) -> list[str]:
    """What the next two trials say of why they read their base themselves, if each leaves the same lesson."""
    shelf, said = Shelf(frozenset()), []
    for _ in range(2):
        shelf.learn(WORDS, file)
        shelf.prepare(WORDS)
        said.append(shelf._reason)
    return said


def test_a_class_of_a_module_that_only_the_trial_has(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_plugin")
    vars(module)["Mine"] = mine = type("Mine", (PretrainedConfig,), {"__module__": "my_plugin"})
    monkeypatch.setitem(sys.modules, "my_plugin", module)
    file = lesson(mine())
    monkeypatch.delitem(sys.modules, "my_plugin")
    assert learnt(file) == (True, 0)
    assert told(file) == LOST


@pytest.mark.parametrize("config", [Unmade, Unsaid])
def test_whatever_a_class_of_a_plugin_raises(config: type[PretrainedConfig]) -> None:
    assert learnt(lesson(config())) == (True, 0)
    assert told(lesson(config())) == LOST


def test_a_configuration_that_cannot_be_compared() -> None:
    config = Unlike()
    config.told, config._commit_hash = True, "abc"
    shelf = Shelf(frozenset())
    for _ in range(2):
        shelf.learn(WORDS, lesson(config))
    shelf._held = Held(identity="of another", read=(None, {}), fresh=frozenset(), fingerprint="")  # type: ignore[arg-type]  # no model
    shelf.prepare(WORDS)
    assert shelf._reason == "RuntimeError: not to be told"


def test_what_can_be_read_is_learnt() -> None:
    assert learnt(lesson(PretrainedConfig())) == (True, 1)


@pytest.mark.parametrize("text", [b"", b"nonsense", pickle.dumps(1)[:-1]])
def test_a_trial_that_has_said_nothing_or_half_of_it(text: bytes) -> None:
    assert learnt(io.BytesIO(text)) == (False, 0)
