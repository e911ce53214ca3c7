"""What comes of factors, skips, zips and knock-outs, and what a trial's command and key are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from ftlab.errors import ConfigError
from ftlab.studies.levels import NAME
from ftlab.studies.spec import parse
from ftlab.studies.variants import Plan, plan, trial_key, variants
from ftlab.studies.words import words
from tests.unit.studies.files import BASE, BIASES, LORA, NORMS, compose, study

SIZE = {"small": {"model.tuning.r": 4}, "large": {"model.tuning.r": 32}}
RATE = "model.optimizer.lr"


def planned(folder: Path, **keys: Any) -> Plan:
    return plan(parse(study(folder, **keys)))


def names(folder: Path, **keys: Any) -> list[str]:
    return [v.name for v in planned(folder, **keys).variants]


def test_the_product_of_all_factors(tmp_path: Path) -> None:
    axes: dict[str, list[Any]] = {"model.tuning.r": [4, 8], "model.tuning.bias": ["none", "all"], RATE: [0.001, 0.01, 0.1]}
    found = planned(tmp_path, factors=axes).variants
    assert [tuple(v.settings.values()) for v in found] == list(itertools.product(*axes.values()))
    assert found[0].name == "r4-none-lr0.001"
    assert found[0].levels == {"model.tuning.r": "4", "model.tuning.bias": "none", RATE: "0.001"}
    assert found[0].chosen == {key: key for key in axes}


def test_named_variants_and_what_is_skipped(tmp_path: Path) -> None:
    skip = [{"model.tuning": "Full", "size": size, "why": "no rank"} for size in SIZE]
    found = planned(tmp_path, factors={"model.tuning": ["LoRA", "Full"], "size": {**SIZE, "as-is": {}}}, skip=skip)
    assert [v.name for v in found.variants] == ["LoRA-small", "LoRA-large", "LoRA-as-is", "Full-as-is"]
    assert found.variants[1].settings == {"model.tuning": "LoRA", "model.tuning.r": 32}
    assert [(left.name, left.why) for left in found.skipped] == [("Full-small", "no rank"), ("Full-large", "no rank")]


def test_zipped_factors_advance_together(tmp_path: Path) -> None:
    factors = {"model.tuning.r": [4, 8], RATE: [0.1, 0.2], "model.tuning.alpha": [1, 2]}
    found = names(tmp_path, factors=factors, zip=[["model.tuning.r", "model.tuning.alpha"]])
    assert found == ["r4-lr0.1-alpha1", "r4-lr0.2-alpha1", "r8-lr0.1-alpha2", "r8-lr0.2-alpha2"]
    with pytest.raises(ConfigError, match="zip needs as many levels of each factor: model.tuning.r has 2, .* has 3"):
        names(tmp_path, factors={**factors, RATE: [0.1, 0.2, 0.3]}, zip=[["model.tuning.r", RATE]])


@pytest.mark.parametrize(
    "factors",
    [
        {RATE: ["1e-3", 0.01, 0.001]},
        {"model.tuning.r": [8, 16, 8.0]},
        {"rate": {"a": {RATE: "1e-3"}, "b": {RATE: 0.01}, "c": {RATE: 0.001}}},
        {"how": {"a": {"model.tuning": "LoRA"}, "b": {"model.tuning": "Full"}, "c": {"model.tuning": "ftlab.strategies.lora.LoRA"}}},
        {"how": {"a": {"model.tuning": "LoRA"}, "b": {}, "c": {"model.tuning": {"class_path": "LoRA", "init_args": {}}}}},
        {
            "model.tuning": [
                {"class_path": "LoRA", "init_args": {"r": 4, "alpha": 8}},
                "Full",
                {"class_path": "LoRA", "init_args": {"alpha": 8, "r": 4}},
            ]
        },
        {"how": {"a": {"model.optimizer": "SGD"}, "b": {}, "c": {"model.optimizer.class_path": "torch.optim.SGD"}}},
        {"a": {"one": {"model.tuning.r": 4}, "two": {}, "three": {"model.tuning.init_args.r": "4"}}},
        {"a": {"one": {"model": {"tuning": {"init_args": {"r": 4}}}}, "two": {}, "three": {"model.tuning.r": 4}}},
        {
            "how": {
                "a": {"model.tuning.strategies": [NORMS, LORA]},
                "b": {},
                "c": {"model.tuning.strategies": [{"class_path": "NormTuning", "init_args": {}}, LORA]},
            }
        },
        {
            "ranks": {
                "a": {"model.tuning.rank_pattern": {"q": 1, "v": 2}},
                "b": {"model.tuning.rank_pattern": {"q": 1}},
                "c": {"model.tuning.rank_pattern": {"v": 2, "q": 1}},
            }
        },
        {
            "model.tuning": [
                compose(LORA, NORMS),
                "Full",
                compose({"class_path": "ftlab.strategies.lora.LoRA", "init_args": {"r": 4.0}}, NORMS),
            ]
        },
    ],
    ids=str,
)
def test_what_is_the_same_runs_once(tmp_path: Path, factors: dict[str, Any]) -> None:
    found = planned(tmp_path, factors=factors)
    assert len(found.variants) == 2
    assert [left.why for left in found.aliases] == [found.variants[0].name]


def test_a_skip_means_the_setting_and_not_its_spelling(tmp_path: Path) -> None:
    found = planned(tmp_path, factors={RATE: ["1e-3", 0.001, 0.01]}, skip=[{RATE: 0.001, "why": "too slow"}])
    assert [v.name for v in found.variants] == ["lr0.01"]
    assert len(found.skipped) == 2
    assert names(tmp_path, factors={RATE: ["1e-3", 0.01]}, skip=[{RATE: 0.001, "why": "too slow"}]) == ["lr0.01"]


def test_set_is_for_all_and_factors_win(tmp_path: Path) -> None:
    shared = {"model.tuning": {"class_path": "LoRA", "init_args": {"r": 2, "dropout": 0.1}}, "data.batch_size": 2}
    [first, second, full] = planned(
        tmp_path, factors={"how": {"a": {}, "b": {"model.tuning.r": 4}, "c": {"model.tuning": "Full"}}}, set=shared
    ).variants
    assert first.settings == {"model.tuning": "LoRA", "model.tuning.r": 2, "model.tuning.dropout": 0.1, "data.batch_size": 2}
    assert second.settings == {**first.settings, "model.tuning.r": 4}
    assert full.settings == {"model.tuning": "Full", "data.batch_size": 2}


def test_two_factors_for_one_key(tmp_path: Path) -> None:
    factors = {"model.tuning.r": [4, 8], "size": {"small": {"model.tuning.r": 2}, "as-is": {}}}
    with pytest.raises(ConfigError, match="factors.model.tuning.r and factors.size both set model.tuning.r; leave it to one of them"):
        names(tmp_path, factors=factors)
    assert len(names(tmp_path, factors=factors, skip=[{"size": "small", "why": "has a rank already"}])) == 2


def test_names_are_names_of_runs(tmp_path: Path) -> None:
    odd: list[Any] = ["a/b", "a b", "../../x", "x" * 90, "x" * 91, "", None, True, "null", -1, 1e30, [1, 2], ["q", "v"], {"q": 3}]
    odd += ["Ünï", ".hidden", {}]
    found = names(tmp_path, factors={"model.tuning.target_modules": odd, "model.tuning.layers": [[0] * 40, [1] * 40]})
    assert len(found) == 2 * len(odd)
    assert all(NAME.fullmatch(name) for name in found)
    assert len({name.casefold() for name in found}) == len(found)
    found = names(tmp_path, factors={"data.batch_size": [-1, 2], "model.tuning": [LORA, "Full"]})
    assert found == ["batch_size-1-LoRA-r4", "batch_size-1-Full", "batch_size2-LoRA-r4", "batch_size2-Full"]


def test_two_variants_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two variants would both be called a-b-c"):
        names(tmp_path, factors={"x": {"a": {}, "a-b": {"model.tuning.r": 1}}, "y": {"b-c": {}, "c": {"model.tuning.alpha": 1}}})


def test_too_many(tmp_path: Path) -> None:
    factors = {key: list(range(1, 23)) for key in ("model.tuning.r", "model.tuning.alpha", "data.batch_size")}
    with pytest.raises(ConfigError, match="factors give 10648 combinations; a study has at most 10000"):
        names(tmp_path, factors=factors)


def test_a_study_without_factors_is_its_base(tmp_path: Path) -> None:
    assert [(v.name, v.settings) for v in planned(tmp_path, factors=None).variants] == [("base", {})]


def knocked(folder: Path, *parts: dict[str, Any], **keys: Any) -> Plan:
    content = {**BASE, "model": {**BASE["model"], "tuning": compose(*parts)}}
    return planned(folder, **{"content": content, "factors": None, "knockout": "model.tuning", **keys})


def test_the_knock_out_of_three(tmp_path: Path) -> None:
    found = {v.name: v.settings for v in knocked(tmp_path, LORA, NORMS, BIASES).variants}
    parts = "model.tuning.strategies"
    assert found == {
        "whole": {parts: [LORA, NORMS, BIASES]},
        "without-LoRA": {parts: [NORMS, BIASES]},
        "without-NormTuning": {parts: [LORA, BIASES]},
        "without-BitFit": {parts: [LORA, NORMS]},
        "only-LoRA": {"model.tuning": "LoRA", "model.tuning.r": 4},
        "only-NormTuning": {"model.tuning": "NormTuning"},
        "only-BitFit": {"model.tuning": "BitFit"},
    }


def test_the_knock_out_of_two(tmp_path: Path) -> None:
    found = knocked(tmp_path, LORA, NORMS)
    assert [v.name for v in found.variants] == ["whole", "without-LoRA", "without-NormTuning"]
    assert [(left.name, left.why) for left in found.aliases] == [("only-LoRA", "without-NormTuning"), ("only-NormTuning", "without-LoRA")]


def test_parts_of_one_class_and_of_any_list(tmp_path: Path) -> None:
    other = {"class_path": "LoRA", "init_args": {"r": 2}}
    parts = [v.name for v in knocked(tmp_path, LORA, other, NORMS).variants][1:4]
    assert parts == ["without-LoRA-r4", "without-LoRA-r2", "without-NormTuning"]
    callbacks = ["LearningRateMonitor", "LearningRateMonitor", "Timer"]
    found = planned(tmp_path, factors={RATE: [0.1, 0.2]}, knockout="trainer.callbacks", set={"trainer.callbacks": callbacks}).variants
    assert found[0].levels == {RATE: "0.1", "knockout": "whole"}
    assert [v.name for v in found][1:3] == ["lr0.1-without-LearningRateMonitor-1", "lr0.1-without-Timer-3"]


def test_what_cannot_be_knocked_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="knockout is trainer.callbacks, whose list has 1 parts; leaving one out needs at least two"):
        planned(tmp_path, knockout="trainer.callbacks", set={"trainer.callbacks": ["Timer"]})
    with pytest.raises(ConfigError, match="factors.knockout has the name of the factor that knockout makes; choose another"):
        knocked(tmp_path, LORA, NORMS, factors={"knockout": {"a": {}, "b": {"data.batch_size": 2}}})


def test_a_knock_out_of_rates(tmp_path: Path) -> None:
    content = {**BASE, "model": {**BASE["model"], "tuning": compose(LORA, NORMS, rates=[1, 2])}}
    with pytest.raises(ConfigError, match="model.tuning.rates gives each a rate of its own; remove the rates"):
        planned(tmp_path, content=content, factors=None, knockout="model.tuning")


def test_the_key_of_a_trial() -> None:
    settings: dict[str, object] = {"model.tuning": "LoRA", RATE: 1e-3}
    key = trial_key("v", settings, 0, "seeds")
    assert trial_key("v", {RATE: "1e-3", "model.tuning": "ftlab.strategies.lora.LoRA"}, 0, "seeds") == key
    others: list[dict[str, object]] = [{"model.tuning": "LoRA", RATE: 2e-3}, {"model.tuning": "LoRA"}]
    keys = {key, *(trial_key("v", other, 0, "seeds") for other in others)}
    keys |= {trial_key("v", settings, 1, "seeds"), trial_key("v", settings, 0, "tune"), trial_key("w", settings, 0, "seeds")}
    assert len(keys) == 6


def test_text_that_says_true_is_not_true() -> None:
    assert len({trial_key("v", {"data.source.path": value}, 0, "seeds") for value in (True, "true", "1", "True", None, "null")}) == 6


def test_the_command_of_a_trial(tmp_path: Path) -> None:
    factors = {"size": {"a": {"model.tuning.r": 4, "model.tuning": "LoRA", "data.shuffle": False}, "b": {}}}
    spec = parse(study(tmp_path, factors=factors), ("mine.py",))
    tuned = {RATE: 1e-5, "model.tuning.layers": [0, 1], "trainer.max_steps": -1, "model.tuning.r": 2}
    assert words(spec, variants(spec)[0], 3, tuned, Path("studies/first")) == [
        "fit", "--plugin", "mine.py", "--config", str(tmp_path / "base.yaml"),
        "--model.tuning", "LoRA", "--data.shuffle", "false", "--trainer.max_steps=-1",
        "--model.tuning.r", "2", "--model.optimizer.lr", "1e-05", "--model.tuning.layers", "[0, 1]",
        "--seed_everything", "3", "--run.root", "studies/first/runs", "--run.study", "first", "--run.variant", "a",
        "--run.name", "a", "--run.id", "seed-3",
    ]  # fmt: skip
