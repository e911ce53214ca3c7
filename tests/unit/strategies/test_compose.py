"""Several strategies on one backbone: each trains what is its own, and what two want is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ftlab import Backbone, FinetuneModule, TuningStrategy, load
from ftlab.errors import ConfigError
from ftlab.export import export
from ftlab.model_card import Facts
from ftlab.strategies.base import NotMergeableError
from ftlab.strategies.compose import Compose
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from tests.unit.exports import BERT, CLASSES, LLAMA, grown, ids, logits, trained

NORMS = Full(pattern=r".*LayerNorm.*")


class Added(nn.Module):
    def __init__(self, base: nn.Module, width: int) -> None:
        super().__init__()
        self.base = base
        self.side = nn.Linear(width, width)
        nn.init.zeros_(self.side.weight)
        nn.init.zeros_(self.side.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        beside: Tensor = self.side(out)
        return out + beside


@dataclass(frozen=True, kw_only=True)
class Side(TuningStrategy):
    """A linear map beside the last dense map of the first layer."""

    def apply(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> nn.Module:
        model.requires_grad_(False)
        output = model.get_submodule("bert.encoder.layer.0.output")
        output.dense = Added(output.get_submodule("dense"), 128)
        output.dense.side.requires_grad_(True)
        for head in heads.values():
            head.requires_grad_(True)
        return model

    def param_groups(self, model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
        return [{**group, "lr": 10 * lr} for group in super().param_groups(model, lr, weight_decay)]

    def extra_losses(self, model: nn.Module, outputs: object, batch: object) -> dict[str, Tensor]:
        return {"size": torch.ones(())}

    def metrics(self, model: nn.Module) -> dict[str, float]:
        return {"size": 2.0}


def module(*strategies: TuningStrategy, backbone: Backbone = BERT, rates: list[float] | None = None) -> FinetuneModule:
    return trained(Compose(strategies=list(strategies), rates=rates), backbone, CLASSES)


def trainables(found: FinetuneModule) -> set[str]:
    return {name for name, p in found.adapted.named_parameters() if p.requires_grad}


def test_all_of_them_train_and_nothing_else(tmp_path: Path) -> None:
    together = trainables(module(LoRA(r=2), NORMS))
    alone = [trainables(trained(s, BERT, CLASSES)) for s in (LoRA(r=2), NORMS)]
    assert together == alone[0] | alone[1]


def test_groups_are_each_strategys_own() -> None:
    found = module(LoRA(r=2), Side(), rates=[1.0, 0.5])
    groups = found.tuning.param_groups(found.adapted, 1e-3, 0.1)
    names: dict[str, float] = {name: group["lr"] for group in groups for name, _ in group["params"]}  # type: ignore[attr-defined, misc]
    assert set(names) == trainables(found)
    assert sum(len(group["params"]) for group in groups) == len(names)  # type: ignore[arg-type, misc]
    assert {rate for name, rate in names.items() if "side" in name.split(".")} == {5e-3}
    assert {rate for name, rate in names.items() if "side" not in name.split(".")} == {1e-3}
    assert trainables(found) == set(names)  # as before


def test_terms_of_both_are_kept_apart() -> None:
    tuning = Compose(strategies=[Side(), Side()])
    assert set(tuning.extra_losses(nn.Module(), None, None)) == {"size", "size_1"}  # type: ignore[arg-type]
    assert tuning.metrics(nn.Module()) == {"size": 2.0, "size_1": 2.0}


@pytest.mark.parametrize(
    ("strategies", "said"),
    [
        ((Full(last_layers=1), NORMS), r"Full and Full both train 'bert\.encoder\.layer\.\d\.\S*LayerNorm"),
        ((Side(), LoRA(r=2)), r"LoRA adapts '\S*side', which Side trains; choose other target modules"),
        ((Full(last_layers=1), LoRA(r=2)), r"LoRA adapts '\S*', which Full trains"),
    ],
)
def test_conflicts_are_named(strategies: tuple[TuningStrategy, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        module(*strategies)


def test_an_adapter_may_stand_around_another_one() -> None:
    found = module(LoRA(r=2, target_modules=["dense"]), Side())
    assert {"lora_A", "side"} <= {part for name in trainables(found) for part in name.split(".")}


def test_new_tokens_and_heads_belong_to_the_first() -> None:
    found = trained(Compose(strategies=[LoRA(r=2), NORMS]), grown(BERT), CLASSES)
    assert {"classifier.weight", "bert.embeddings.word_embeddings.new.weight"} <= trainables(found)
    assert sum(len(g["params"]) for g in found.tuning.param_groups(found.adapted, 1e-3, 0)) == len(trainables(found))  # type: ignore[misc, arg-type]


def test_it_opens_again(tmp_path: Path) -> None:
    found = module(LoRA(r=2), NORMS)
    parity = export(found, tmp_path / "out", Facts(), [{"input_ids": ids(BERT)}])
    assert parity.largest == 0
    assert torch.equal(logits(load(tmp_path / "out").model, ids(BERT)), logits(found.adapted, ids(BERT)))


def test_merging() -> None:
    found = module(LoRA(r=2), NORMS)
    expected = logits(found.adapted, ids(BERT))
    merged = found.tuning.merge(found.adapted)
    torch.testing.assert_close(logits(merged, ids(BERT)), expected, rtol=0, atol=1e-4)
    assert not any("lora_A" in name.split(".") for name, _ in merged.named_parameters())
    with pytest.raises(NotMergeableError, match="Compose holds Side"):
        Compose(strategies=[LoRA(), Side()]).merge(nn.Module())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Compose(strategies=[LoRA()]), "strategies has 1 entries; name at least two"),
        (lambda: Compose(strategies=[Full(), Compose(strategies=[LoRA(), NORMS])]), "strategies holds a Compose; list its strategies here"),
        (lambda: Compose(strategies=[LoRA(), NORMS], rates=[1.0]), r"rates is \[1\.0\]; give a number above 0 for each of 2"),
        (lambda: Compose(strategies=[LoRA(), NORMS], rates=[1.0, 0.0]), "rates is"),
    ],
)
def test_what_is_no_composition(make: Callable[[], Compose], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_language_models_as_well() -> None:
    found = trained(Compose(strategies=[LoRA(r=2, target_modules=["q_proj"]), Full(pattern=r".*layernorm.*")]), LLAMA)
    assert {name.split(".")[-1] for name in trainables(found)} == {"weight"}
