"""Search spaces and pruners, against Optuna's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ftlab import registry
from ftlab.errors import ConfigError
from ftlab.studies.planned import tuning
from ftlab.studies.space import distributions, drawn, space_of, trials_of
from ftlab.studies.spec import Dimension, parse
from ftlab.studies.stop import pruner
from ftlab.studies.variants import variants
from tests.unit.studies.files import BASE, LORA, study

RATE = "model.optimizer.lr"
LOG = {"log_uniform": [1e-5, 1e-2]}

DECLARING = '''
from dataclasses import dataclass

from ftlab.strategies.base import Traits, TuningStrategy


@dataclass(frozen=True, kw_only=True)
class Declaring(TuningStrategy):
    """Declares its space.

    Args:
        r: A rank.
    """

    traits = Traits(space={"model.tuning.r": {"int": [1, 4]}, "model.optimizer.lr": {"uniform": [0.1, 0.2]}})

    r: int = 2

    def apply(self, model, heads):
        return model
'''


def spaces(folder: Path, tune: dict[str, Any], **keys: Any) -> dict[str, tuple[int, dict[str, Dimension]]]:
    spec = parse(study(folder, tune=tune, **keys))
    return {v.name: (trials_of(spec, v), space_of(spec, v)) for v in variants(spec)}


def test_what_optuna_draws_from(tmp_path: Path) -> None:
    space = {
        "model.optimizer.init_args.lr": LOG,
        "model.optimizer.eps": {"uniform": ["1e-8", 1]},
        "model.tuning.alpha": {"int": [1, 8]},
        "model.tuning": {"choice": [LORA, "LoRA"]},
    }
    [(_, found), _] = spaces(tmp_path, {"trials": 3, "space": space}, factors={"data.batch_size": [4, 8]}).values()
    assert distributions(found) == {
        RATE: FloatDistribution(1e-5, 1e-2, log=True),
        "model.optimizer.eps": FloatDistribution(1e-8, 1),
        "model.tuning.alpha": IntDistribution(1, 8),
        "model.tuning": CategoricalDistribution(["0", "1"]),
    }
    trial = optuna.trial.FixedTrial({RATE: 1e-3, "model.tuning": "0"})
    params = {key: trial._suggest(key, distributions(found)[key]) for key in (RATE, "model.tuning")}
    assert drawn(found, params) == {RATE: 1e-3, "model.tuning": "LoRA", "model.tuning.r": 4}


def test_every_variant_has_the_same_budget_unless_it_is_said(tmp_path: Path) -> None:
    rank = {"model.tuning.r": {"int": [1, 8]}}
    narrow = {RATE: {"uniform": [0.1, 0.2]}}
    factors = {"model.tuning": ["LoRA", "Full"], "data.batch_size": [4, 8]}
    common = {RATE: Dimension(kind="log_uniform", low=1e-5, high=1e-2)}
    assert set(map(str, spaces(tmp_path, {"trials": 6, "space": {RATE: LOG}}, factors=factors).values())) == {str((6, common))}
    per = {"8": {"space": {RATE: {"uniform": [0.3, 0.4]}}}, "LoRA": {"space": rank}, "LoRA-batch_size8": {"trials": 9, "space": narrow}}
    found = spaces(tmp_path, {"trials": 6, "space": {RATE: LOG}, "per": per}, factors=factors)
    ranked = {**common, "model.tuning.r": Dimension(kind="int", low=1, high=8)}
    assert found["LoRA-batch_size4"] == (6, ranked)
    assert found["LoRA-batch_size8"] == (9, {**ranked, RATE: Dimension(kind="uniform", low=0.1, high=0.2)})
    assert found["Full-batch_size8"] == (6, {RATE: Dimension(kind="uniform", low=0.3, high=0.4)})
    assert found["Full-batch_size4"] == (6, common)


def test_a_factor_is_not_searched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tune.space has model.optimizer.lr, which model.optimizer.lr sets in lr0.1; remove one of them"):
        spaces(tmp_path, {"trials": 2, "space": {RATE: LOG}}, factors={RATE: [0.1, 0.2]})


CHOICE = {"choice": [{"class_path": "SGD", "init_args": {"lr": 0.5}}, "AdamW"]}


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        (
            {"space": {"model.optimizer": CHOICE}},
            "model.optimizer.lr in the choices of model.optimizer, which model.optimizer.lr sets in lr0.1",
        ),
        (
            {"space": {"data.batch_size": {"int": [1, 2]}}, "per": {"lr0.2": {"space": {"model.optimizer": CHOICE}}}},
            "model.optimizer.lr in the choices of model.optimizer, which model.optimizer.lr sets in lr0.2",
        ),
    ],
)
def test_a_factor_is_not_set_by_a_class_that_is_chosen(tmp_path: Path, tune: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spaces(tmp_path, {"trials": 2, **tune}, factors={RATE: [0.1, 0.2]})
    assert str(caught.value) == f"tune.space has {said}; remove one of them."


def test_one_key_is_searched_once(tmp_path: Path) -> None:
    factors = {"data.batch_size": [4, 8]}
    with pytest.raises(ConfigError, match=r"has model\.optimizer\.lr, which model\.optimizer searches too; remove one of them\.$"):
        spaces(tmp_path, {"trials": 2, "space": {"model.optimizer": CHOICE, RATE: LOG}}, factors=factors)
    classes = {"choice": ["SGD", "AdamW"]}
    assert len(spaces(tmp_path, {"trials": 2, "space": {"model.optimizer": classes, RATE: LOG}}, factors=factors)["batch_size4"][1]) == 2
    assert len(spaces(tmp_path, {"trials": 2, "space": {"model.optimizer": classes}}, factors={RATE: [0.1, 0.2]})) == 2


def test_a_seed_of_tuning_that_no_generator_takes(tmp_path: Path) -> None:
    tune = {"trials": 2, "space": {RATE: {"choice": [0.1, 0.2]}}}
    with pytest.raises(ConfigError, match=r"^tune\.seed is 4294967296; a seed is at most 4294967295, so choose a smaller one\.$"):
        spaces(tmp_path, {**tune, "seed": 2**32})
    spec = parse(study(tmp_path, tune={**tune, "seed": 2**32 - 1}))
    assert len(tuning(spec, variants(spec)[0])) == 2


def test_without_tuning_nothing_is_searched(tmp_path: Path) -> None:
    spec = parse(study(tmp_path))
    assert [(trials_of(spec, v), space_of(spec, v)) for v in variants(spec)] == [(0, {}), (0, {})]


def test_the_space_that_a_class_declares(tmp_path: Path) -> None:
    (tmp_path / "declaring.py").write_text(DECLARING, encoding="utf-8")
    registry.use(str(tmp_path / "declaring.py"))
    factors = {"model.tuning": ["Declaring", "LoRA", "Full"]}
    found = spaces(tmp_path, {"trials": 2, "space": "declared", "per": {"Full": {"space": {RATE: LOG}}}}, factors=factors)
    rank = Dimension(kind="int", low=1, high=4)
    assert found["Declaring"][1] == {"model.tuning.r": rank, RATE: Dimension(kind="uniform", low=0.1, high=0.2)}
    rate = found["LoRA"][1][RATE]
    assert rate.kind == "log_uniform"
    assert (rate.low, rate.high) == pytest.approx((2e-5, 2e-3))
    assert found["Full"][1][RATE].low == 1e-5


def test_the_base_names_the_strategy_that_declares(tmp_path: Path) -> None:
    found = spaces(tmp_path, {"trials": 2, "space": "declared"}, factors={"data.batch_size": [4, 8]})
    assert found["batch_size4"][1][RATE].high == pytest.approx(2e-3)
    content = {**BASE, "model": {k: v for k, v in BASE["model"].items() if k != "tuning"}}
    with pytest.raises(ConfigError, match="tune.space is declared, and batch_size4 names no model.tuning"):
        spaces(tmp_path, {"trials": 2, "space": "declared"}, factors={"data.batch_size": [4, 8]}, content=content)


def test_pruners_are_optunas(tmp_path: Path) -> None:
    tune = {"trials": 2, "space": {RATE: LOG}}
    asha = pruner(parse(study(tmp_path, tune=tune, stop={"asha": {"min_resource": 2, "reduction_factor": 3}})).stop)
    assert vars(asha) == vars(optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3))
    assert isinstance(asha, optuna.pruners.SuccessiveHalvingPruner)
    median = pruner(parse(study(tmp_path, tune=tune, stop={"median": {"n_startup_trials": 2}})).stop)
    assert isinstance(median, optuna.pruners.MedianPruner)
    assert vars(median) == vars(optuna.pruners.MedianPruner(n_startup_trials=2))
    assert isinstance(pruner(parse(study(tmp_path, tune=tune, stop="median")).stop), optuna.pruners.MedianPruner)
    assert isinstance(pruner(None), optuna.pruners.NopPruner)


def test_parts_are_choices(tmp_path: Path) -> None:
    space = {"model.tuning.target_modules": {"choice": [["q_proj"], "all-linear", None]}}
    [(_, found), _] = spaces(tmp_path, {"trials": 2, "space": space}, factors={"model.optimizer": ["SGD", "AdamW"]}).values()
    [key] = found
    assert [drawn(found, {key: place})[key] for place in "012"] == [["q_proj"], "all-linear", None]
