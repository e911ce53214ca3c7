"""A study file is read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftlab.errors import ConfigError
from ftlab.studies.spec import Dimension, PerVariant, Stop, parse, restored
from ftlab.studies.variants import plan
from tests.unit.studies.files import BASE, study, write

SPACE = {"model.optimizer.lr": {"log_uniform": [1e-5, 1e-2]}}
TUNE: dict[str, Any] = {"trials": 6, "space": SPACE}


def test_what_stands_in_the_file(tmp_path: Path) -> None:
    spec = parse(
        study(
            tmp_path, seeds=[3, 5], metric="val_accuracy", direction="maximize", retries=0, timeout_minutes=5, cache_features=True,
            tune={**TUNE, "per": {"LoRA": {"trials": 9, "space": {"model.tuning.r": {"int": [1, 8]}}}}, "seed": 7},
            stop={"asha": {"reduction_factor": 3}}, skip=[{"model.tuning": "Full", "why": "costs too much"}], set={"data.batch_size": 4},
        )
    )  # fmt: skip
    assert (spec.name, spec.base, spec.base_content) == ("first", tmp_path / "base.yaml", BASE)
    assert (spec.seeds, spec.metric, spec.direction) == ((3, 5), "val_accuracy", "maximize")
    assert (spec.retries, spec.timeout_minutes, spec.cache_features, spec.set) == (0, 5.0, True, {"data.batch_size": 4})
    assert spec.stop == Stop(pruner="asha", options={"reduction_factor": 3})
    assert spec.tune is not None
    assert (spec.tune.trials, spec.tune.seed) == (6, 7)
    assert spec.tune.space == {"model.optimizer.lr": Dimension(kind="log_uniform", low=1e-5, high=1e-2)}
    assert spec.tune.per == {"LoRA": PerVariant(trials=9, space={"model.tuning.r": Dimension(kind="int", low=1, high=8)})}
    assert [(s.levels, s.why) for s in spec.skip] == [({"model.tuning": "Full"}, "costs too much")]


def test_defaults(tmp_path: Path) -> None:
    spec = parse(study(tmp_path))
    assert (spec.seeds, spec.metric, spec.direction) == ((0, 1, 2, 3, 4), "val_loss", "minimize")
    assert (spec.tune, spec.stop, spec.knockout, spec.timeout_minutes) == (None, None, None, None)
    assert (spec.cache_features, spec.retries, spec.set, spec.skip, spec.zip) == (False, 1, {}, (), ())


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"factor": {}}, "factor is not a key of a study; did you mean factors?"),
        ({"name": "../elsewhere"}, "name is '../elsewhere'; use letters"),
        ({"name": 7}, "name is 7; it must be text."),
        ({"base": None}, "base is missing"),
        ({"plugins": ["mine.py"]}, "plugins stands in the study file, and code never comes from one; give --plugin"),
        ({"metric": "\x1b[2J"}, r"metric holds '\\x1b\[2J', with a character that cannot be printed"),
        ({"metric": " "}, "metric is empty"),
        ({"direction": "min"}, "direction is 'min'; it must be minimize or maximize."),
        ({"seeds": 0}, "seeds is 0; it must be at least 1."),
        ({"seeds": "five"}, "seeds is 'five'; write how many, or a list"),
        ({"seeds": [1, 2, 1]}, "seeds has 1 twice, which would be one sample counted as two"),
        ({"seeds": [1, 2**32]}, "seeds has 4294967296; a seed is at most 4294967295."),
        ({"retries": True}, "retries is True; it must be a whole number."),
        ({"timeout_minutes": 0}, "timeout_minutes is 0, which ends every trial at once"),
        ({"factors": {}}, "factors is empty"),
        ({"factors": {"model.tuning": []}}, "factors.model.tuning has no level, so that nothing is left to run"),
        ({"factors": {"model.tuning": ["LoRA"]}}, "factors.model.tuning changes nothing: it has one level"),
        ({"factors": {"model.tuning.r": [4, 4.0]}}, "factors.model.tuning.r changes nothing: it has 2 levels that are the same setting"),
        ({"factors": {"model.tuning.r": 4}}, "factors.model.tuning.r is 4; write a list of values"),
        ({"factors": {"model.tuning.r": [4, 4, 8]}}, "factors.model.tuning.r has 4 twice; keep one of them."),
        ({"factors": {"model.tuning": ["LoRA", "Full", "LoRA"]}}, "factors.model.tuning has LoRA twice; keep one"),
        ({"factors": {"model.tuning": ["LoRA", "LORA", "Full"]}}, "factors.model.tuning: two levels would both be called LORA"),
        ({"factors": {"size": {"a/b": {}, "c": {}}}}, "factors.size names a variant 'a/b'; use letters"),
        ({"factors": {"seed_everything": [1, 2]}}, "seed_everything is set by the study itself .the study's own seeds."),
        ({"factors": {"place": {"a": {"run": {"root": "/"}}, "b": {}}}}, "factors.place.a: run.root is set by the study itself"),
        ({"factors": {"run": [{"root": "/"}, {"root": "/tmp"}]}}, "factors.run: run.root is set by the study itself"),
        ({"set": {"run.root": "/"}}, "set: run.root is set by the study itself"),
        ({"set": {"model.tuning.r": 4, "model.tuning.init_args.r": 8}}, "set sets model.tuning.r twice"),
        ({"skip": [{"model.tuning": "Full"}]}, r"skip\[0\].why is null; say why"),
        ({"skip": [{"why": "so"}]}, r"skip\[0\] names no factor"),
        (
            {"skip": [{"model.tunings": "Full", "why": "so"}]},
            r"skip\[0\].model.tunings is not a key of a study; did you mean model.tuning\?",
        ),
        (
            {"skip": [{"model.tuning": "Fill", "why": "so"}]},
            r"skip\[0\].model.tuning is 'Fill', which is no level of it; did you mean Full\?",
        ),
        ({"skip": [{"model.tuning": t, "why": "so"} for t in ("LoRA", "Full")]}, "skip leaves out all 2 combinations"),
        (
            {"skip": [{"model.tuning": "Full", "why": "so"}] * 2},
            r"skip\[1\] \(model.tuning: Full\) leaves nothing out that is not left out",
        ),
        ({"zip": [["model.tuning"]]}, r"zip holds \['model.tuning'\]; write lists of at least two factors"),
        ({"zip": [["model.tuning", "size"]]}, "zip names 'size', which is no factor"),
        (
            {"factors": {"model.tuning.r": [1, 2], "data.batch_size": [1, 2]}, "zip": [["model.tuning.r", "data.batch_size"]] * 2},
            "zip names model.tuning.r twice; a factor advances with one group.",
        ),
        (
            {"tune": {**TUNE, "space": {"model.optimizer.lr": {"uniform": [1, 2], "int": [1, 2]}}}},
            "tune.space.model.optimizer.lr has uniform and int; choose one of them.",
        ),
        ({"stop": {"asha": {}}}, "stop ends trials of tuning early, and this study has no tune"),
        ({"tune": TUNE, "stop": {"ashe": {}}}, r"stop.ashe is not a key of a study; did you mean asha\?"),
        (
            {"tune": TUNE, "stop": {"asha": {"reduction": 3}}},
            r"stop.asha.reduction is not a key of a study; did you mean reduction_factor\?",
        ),
        ({"tune": TUNE, "stop": {"asha": {"reduction_factor": 1}}}, "stop.asha.reduction_factor is 1; it must be at least 2."),
        ({"tune": TUNE, "stop": {"asha": {"bootstrap_count": 2}}}, "stop.asha.bootstrap_count is 2, which needs min_resource as a number"),
        ({"tune": TUNE, "stop": {"asha": {}, "median": {}}}, "stop names asha and median; choose one"),
        ({"tune": {"space": SPACE}}, "tune.trials is missing"),
        ({"tune": {**TUNE, "trials": 0}}, "tune.trials is 0; it must be at least 1."),
        ({"tune": {**TUNE, "seed": 3}}, "tune.seed is 3, one of seeds"),
        ({"tune": {**TUNE, "per": {"LoRa": {"trials": 2}}}}, r"tune.per.LoRa is neither a variant nor a level; did you mean LoRA\?"),
        ({"tune": {**TUNE, "space": "anything"}}, "tune.space is 'anything'; it must be keys and values."),
        (
            {"tune": {**TUNE, "space": {"model.optimizer.lr": {"loguniform": [1, 2]}}}},
            "loguniform is not a key of a study; did you mean log_uniform",
        ),
        ({"tune": {**TUNE, "space": {"model.optimizer.lr": {"uniform": [2, 1]}}}}, "the first number must be below the second"),
        (
            {"tune": {**TUNE, "space": {"model.optimizer.lr": {"log_uniform": [0, 1]}}}},
            "log_uniform begins at 0; a logarithm needs numbers above 0",
        ),
        ({"tune": {**TUNE, "space": {"model.tuning.r": {"int": [1.5, 2]}}}}, "model.tuning.r.int is 1.5; it must be a whole number."),
        ({"tune": {**TUNE, "space": {"model.tuning.r": {"choice": [1]}}}}, "list at least two values to choose from"),
        (
            {"tune": {**TUNE, "space": {"model.tuning.r": {"choice": [4, 2, 4]}}}},
            "tune.space.model.tuning.r.choice has 4 twice; keep one of",
        ),
        (
            {"tune": {**TUNE, "space": {"model.optimizer": {"choice": ["SGD", {"class_path": "torch.optim.SGD"}]}}}},
            "model.optimizer.choice has 'SGD' and {'class_path': 'torch.optim.SGD'}, which are one value; keep one of them",
        ),
        ({"tune": {**TUNE, "space": {"seed_everything": {"int": [1, 2]}}}}, "seed_everything is set by the study itself"),
        ({"knockout": "model.tuning"}, "knockout is model.tuning, which is 'LoRA' in the base; it must be a list there"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence(tmp_path: Path, keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        plan(parse(study(tmp_path, **keys)))
    assert "\n" not in str(caught.value)


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base: .*nowhere.yaml: No such file or directory"):
        parse(write(tmp_path / "study.yaml", {"name": "first", "base": "nowhere.yaml"}))


def test_the_base_lies_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    study(tmp_path)
    monkeypatch.chdir(inner)
    assert parse(write(inner / "study.yaml", {"name": "second", "base": "../base.yaml"})).base == tmp_path / "base.yaml"


def test_the_digest_is_of_what_is_asked(tmp_path: Path) -> None:
    first = parse(study(tmp_path, seeds=3, set={"data.batch_size": 4, "model.optimizer.lr": 0.001})).digest()
    other: dict[str, Any] = {"set": {"model.optimizer.lr": "1e-3", "data.batch_size": 4}, "seeds": [0, 1, 2]}
    assert parse(study(tmp_path, **other)).digest() == first
    asked: list[dict[str, Any]] = [{"seeds": 4}, {"metric": "val_accuracy"}, {"set": {"data.batch_size": 4}}]
    asked.append({"content": {**BASE, "trainer": {}}})
    assert first not in [parse(study(tmp_path, **{**other, **change})).digest() for change in asked]


def test_a_study_comes_back_from_what_a_storage_keeps(tmp_path: Path) -> None:
    spec = parse(study(tmp_path, tune=TUNE))
    assert restored(spec.document, spec.base_content).digest() == spec.digest()
