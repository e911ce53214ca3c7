"""What a changed study file means for a study that has been run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftlab.errors import ConfigError
from ftlab.studies.changes import changes, check_same, code_of
from ftlab.studies.spec import StudySpec, parse, restored
from tests.unit.studies.files import BASE, study

RATE = "model.optimizer.lr"
TUNE: dict[str, Any] = {"trials": 4, "space": {RATE: {"log_uniform": [1e-5, 1e-2]}}, "per": {"LoRA": {"trials": 5}}}
OLD: dict[str, Any] = {
    "factors": {"model.tuning": ["LoRA", "Full"], "size": {"small": {"data.batch_size": 2}, "as-is": {}}},
    "skip": [{"model.tuning": "Full", "size": "small", "why": "slow"}],
    "tune": TUNE,
    "seeds": [0, 1],
    "set": {"trainer.max_steps": 3},
}


def spec(folder: Path, **keys: Any) -> StudySpec:
    return parse(study(folder, **{**OLD, **keys}))


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"seeds": 2},
        {"set": {"trainer": {"max_steps": 3.0}}},
        {"factors": {"size": {"as-is": {}, "small": {"data": {"batch_size": 2}}}, "model.tuning": ["LoRA", "Full"]}, "same": False},
        {"content": {**BASE, "seed_everything": 42}, "same": False},
        {"tune": {**TUNE, "space": {RATE: {"log_uniform": ["1e-5", "1e-2"]}}}},
        {"factors": {"size": OLD["factors"]["size"], "model.tuning": ["LoRA", "Full"]}, "same": False},
    ],
    ids=str,
)
def test_the_same_in_other_words(tmp_path: Path, keys: dict[str, Any]) -> None:
    if keys.pop("same", True):
        assert check_same(spec(tmp_path), spec(tmp_path, **keys), False) == []
    else:
        with pytest.raises(ConfigError):
            check_same(spec(tmp_path), spec(tmp_path, **keys), True)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"seeds": [0, 1, 7, 8]}, "seeds has 7, 8 more"),
        ({"factors": {**OLD["factors"], "model.tuning": ["LoRA", "Full", "BitFit"]}}, "BitFit-small, BitFit-as-is are new"),
        ({"skip": None}, "Full-small is new"),
        ({"tune": {**TUNE, "trials": 5}}, "tune.trials was 4 and is 5"),
        ({"tune": {**TUNE, "per": {"LoRA": {"trials": 6}}}}, "tune.per.LoRA.trials was 5 and is 6"),
        ({"retries": 3}, "retries was 1 and is 3"),
    ],
    ids=str,
)
def test_what_extends_a_study(tmp_path: Path, keys: dict[str, Any], sentence: str) -> None:
    assert [c.text for c in check_same(spec(tmp_path), spec(tmp_path, **keys), True)] == [sentence]
    with pytest.raises(ConfigError, match=f"the study first has changed: {sentence}; add --extend to run what is new, or"):
        check_same(spec(tmp_path), spec(tmp_path, **keys), False)


def test_one_change_is_told_once(tmp_path: Path) -> None:
    tune = {**TUNE, "per": {"LoRA": {"space": {RATE: {"uniform": [1, 2]}}}}}
    found = check_same(spec(tmp_path, tune=tune), spec(tmp_path, tune={**tune, "trials": 5}), True)
    assert [c.text for c in found] == ["tune.trials was 4 and is 5"]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"seeds": [0, 2]}, "seeds no longer has 1"),
        ({"metric": "val_accuracy"}, "metric was 'val_loss' and is 'val_accuracy'"),
        ({"stop": "asha"}, "stop was null and is"),
        ({"content": {**BASE, "trainer": {"max_steps": 5}}}, "base: trainer.max_steps was 4 and is 5"),
        ({"content": {**BASE, "seed_everything": None}}, "base: seed_everything was not set and is null"),
        ({"set": None}, "set: trainer.max_steps was 3 and is not set"),
        ({"factors": {"model.tuning": ["LoRA", "Full"]}, "skip": None}, "factors were model.tuning, size and are model.tuning"),
        ({"factors": {**OLD["factors"], "model.tuning": ["LoRA", "BitFit"]}, "skip": None}, "the variant Full-as-is is no longer there"),
        (
            {"factors": {**OLD["factors"], "size": {"small": {"data.batch_size": 3}, "as-is": {}}}},
            "the variant LoRA-small sets other values",
        ),
        ({"tune": None}, "tune was set and is not"),
        ({"tune": {**TUNE, "trials": 3}}, "tune.trials was 4 and is 3"),
        ({"tune": {**TUNE, "seed": 9}}, "tune.seed was 1000 and is 9"),
        ({"tune": {**TUNE, "space": {RATE: {"uniform": [1e-5, 1e-2]}}}}, "tune.space was"),
        ({"tune": {**TUNE, "per": {"LoRA": {"trials": 5, "space": {RATE: {"uniform": [1, 2]}}}}}}, "tune.per.LoRA.space has changed"),
    ],
    ids=str,
)
def test_what_makes_it_another_study(tmp_path: Path, keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"the study first has been run with other settings: {sentence}.*; undo it, or choose a new name"):
        check_same(spec(tmp_path), spec(tmp_path, **keys), True)


NAMES = [f"model.layers.{n}.self_attn.q_proj" for n in range(12)]
LONG = "x" * 130


@pytest.mark.parametrize(
    ("was", "now", "sentence"),
    [
        (NAMES, [*NAMES[:9], "k", *NAMES[10:]], "target_modules[9] was 'model.layers.9.self_attn.q_proj' and is 'k'"),
        (NAMES, NAMES[:11], "target_modules[11] was 'model.layers.11.self_attn.q_proj' and is not set"),
        (NAMES, [*NAMES, "k"], "target_modules[12] was not set and is 'k'"),
        (NAMES, LONG, f"target_modules was {str(NAMES)[:100]} and is '{LONG[:99]}"),
        ([1.0, *NAMES], [1, *NAMES[1:]], "target_modules[1] was 'model.layers.0.self_attn.q_proj' and is 'model.layers.1.self"),
        ([{"a": NAMES, "b": 1}], [{"a": NAMES, "b": 2}], "target_modules[0].b was 1 and is 2"),
        (LONG + "a", LONG + "b", f"target_modules was '…{LONG[:20]}a' and is '…{LONG[:20]}b'"),
        ("short text with a", "short text with an end", "target_modules was 'short text with a' and is 'short text with an end'"),
    ],
)
def test_values_that_are_too_long_to_be_shown_are_told_by_where_they_differ(tmp_path: Path, was: Any, now: Any, sentence: str) -> None:
    key = "model.tuning.target_modules"
    [found] = changes(spec(tmp_path, set={key: was}), spec(tmp_path, set={key: now}))
    assert found.text.startswith(f"set: model.tuning.{sentence}")


def test_a_space_that_is_too_long_to_be_shown_is_told_by_where_it_differs(tmp_path: Path) -> None:
    tunes = [{**TUNE, "space": {**TUNE["space"], "data.batch_size": {"choice": [*range(40), last]}}} for last in (98, 99)]
    [found] = changes(*(spec(tmp_path, tune=tune) for tune in tunes))
    assert found.text == "tune.space.data.batch_size.choices[40] was 98 and is 99"


@pytest.mark.parametrize(
    ("values", "same"),
    [
        (["1e-3", "1e-2"], [0.001, 0.01]),
        (["1e-5", "3"], [1.0e-5, 3.0]),
        ([4, 8], [4.0, "8"]),
        ([{"class_path": "SGD", "init_args": {"lr": 1, "momentum": 0}}, "Adam"], [
            {"init_args": {"momentum": "0", "lr": 1.0}, "class_path": "torch.optim.SGD"}, "torch.optim.Adam",
        ]),
    ],
    ids=str,
)  # fmt: skip
def test_a_level_is_called_the_same_however_it_is_spelled(tmp_path: Path, values: list[Any], same: list[Any]) -> None:
    key = "model.optimizer" if "Adam" in values else RATE
    old, new = (spec(tmp_path, factors={key: each}, skip=None, tune=None) for each in (values, same))
    assert [level.label for level in old.factors[0].levels] == [level.label for level in new.factors[0].levels]
    assert check_same(old, new, False) == []


def test_factors_in_another_order_call_the_variants_otherwise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the variant LoRA-small is now called small-LoRA; .*; undo it, or choose a new name"):
        check_same(spec(tmp_path), spec(tmp_path, factors=dict(reversed(OLD["factors"].items()))), True)


def test_other_code_is_another_study(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("a = 1")
    old = restored(spec(tmp_path).document, BASE, code_of([str(mine), "package.module"]))
    given = [str(mine), "package.module"]

    def found(*plugins: str) -> list[tuple[str, bool]]:
        return [(change.text, change.extends) for change in changes(old, replace(spec(tmp_path), plugins=plugins))]

    assert found(*given) == found(*reversed(given)) == []
    (tmp_path / "elsewhere").mkdir()
    copy = Path(shutil.copy(mine, tmp_path / "elsewhere" / "mine.py"))
    assert found(str(copy), "package.module") == []
    assert found(str(mine)) == [("--plugin package.module is no longer given", False)]
    assert found(*given, "other.py") == [("--plugin other.py is new", True)]
    mine.write_text("a = 2")
    assert found(*given) == [("the code of --plugin mine.py is another", False)]
