"""Starts that come from data, against PEFT's own functions: the same A and B, the same outputs, the same five steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, initialize_lora_eva_weights, preprocess_loraga
from peft.tuners.lora.corda import preprocess_corda
from torch import Tensor, nn

from ftlab.adapters import without_notice
from ftlab.batch import Batch
from ftlab.errors import ConfigError
from ftlab.strategies.peft_bridge import Peft
from ftlab.strategies.peft_options import build_config
from tests.reference.peft_cases import VARIANTS
from tests.reference.test_peft_bridge import base, bases, close, copied, logits, steps_of_ftlab, steps_of_peft, trainables

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:peft", "ignore::UserWarning:torch", "ignore::FutureWarning:peft", "ignore:Full backward hook"
)

__all__ = ["bases"]
CASES = {str(c.options["init_lora_weights"]): c for c in VARIANTS if c.options.get("init_lora_weights") in ("eva", "corda", "lora_ga")}


def exact_svd(matrix: Tensor, q: int = 6, niter: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """In place of the randomised one, whose signs depend on what was drawn before."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :q], s[:q], vh[:q].T


def rows(count: int = 4, width: int = 12) -> Batch:
    ids = torch.randint(5, 200, (count, width), generator=torch.Generator().manual_seed(4))
    labels = ids.clone().index_fill(1, torch.tensor([0]), -100)
    return Batch(inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels={"lm": labels}, rows=torch.arange(count))


def by_hand(init: str, given: Batch) -> Any:
    config = build_config("LORA", CASES[init].on(False))
    assert isinstance(config, LoraConfig)
    model: Any = base(False)

    def run() -> None:
        for ids in given.inputs["input_ids"]:
            model(input_ids=ids[None])

    def train() -> None:
        model(**given.inputs, labels=given.labels["lm"]).loss.backward()

    if init == "corda":
        preprocess_corda(model, config, run)
    if init == "lora_ga":
        preprocess_loraga(model, config, train)
    wrapped = get_peft_model(model, config)
    if init == "eva":
        inputs = {**given.inputs, "labels": given.labels["lm"]}
        initialize_lora_eva_weights(wrapped, [inputs], show_progress_bar=False)
    return wrapped.base_model


def by_ftlab(init: str, given: Batch) -> tuple[Peft, nn.Module]:
    strategy = Peft(method="LORA", options=CASES[init].on(False))
    model = strategy.apply(base(False), {}).train()
    strategy.prepare(model, iter([given]))
    assert model.training
    return strategy, model


@pytest.mark.parametrize("init", sorted(CASES))
def test_same_as_peft(init: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "svd_lowrank", exact_svd)
    given = rows()
    strategy, mine = by_ftlab(init, given)
    theirs = by_hand(init, given)
    pairs = list(zip(trainables(mine), trainables(theirs), strict=True))
    assert all(close(some, other, 1e-5) for some, other in pairs)
    assert any(some.abs().max() > 0 for some, _ in pairs[1::2]) == (init != "eva")  # B
    assert close(logits(mine), logits(theirs), 1e-5)
    assert close(logits(mine), logits(base(False)), 1e-5)
    mine.train()
    theirs.train()
    assert steps_of_ftlab(strategy, mine, given) == pytest.approx(steps_of_peft(CASES[init], theirs, given), rel=1e-4)
    after = logits(mine)
    assert close(after, logits(theirs), 1e-3)
    again = copied(strategy, mine, False)  # as a resumed run has it: without the data
    assert close(logits(again), after, 1e-6)
    strategy.save(mine, tmp_path)
    with without_notice():
        assert close(logits(PeftModel.from_pretrained(base(False), tmp_path)), after, 1e-5)
    merged = strategy.merge(again)
    assert merged.state_dict().keys() == base(False).state_dict().keys()
    assert close(logits(merged), after, 1e-5)


@pytest.mark.parametrize("init", ["pissa", "olora", "corda", "lora_ga"])
def test_the_base_keeps_its_weights(init: str) -> None:
    strategy = Peft(method="LORA", options={"r": 4, "init_lora_weights": init, **({"lora_ga_config": {}} if init == "lora_ga" else {})})
    model = strategy.apply(base(False), {})
    strategy.prepare(model, iter([rows()]))
    own = {name.replace(".base_layer.", "."): t for name, t in model.state_dict().items()}
    assert all(torch.equal(own[name], t) for name, t in base(False).state_dict().items())


@pytest.mark.parametrize("init", sorted(CASES))
def test_padding_makes_no_difference(init: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "svd_lowrank", exact_svd)
    given = rows()
    wider = {name: torch.nn.functional.pad(t, (0, 3), value=1 if name == "input_ids" else 0) for name, t in given.inputs.items()}
    labels = {"lm": torch.nn.functional.pad(given.labels["lm"], (0, 3), value=-100)}
    plain, padded = (by_ftlab(init, b)[1] for b in (given, Batch(inputs=wider, labels=labels, rows=given.rows)))
    assert all(close(some, other, 1e-3) for some, other in zip(trainables(plain), trainables(padded), strict=True))


def test_too_little_data_is_refused() -> None:
    strategy = Peft(method="LORA", options=CASES["eva"].on(False))
    model = strategy.apply(base(False), {})
    with pytest.raises(ConfigError, match="which needs training data, and there is none"):
        strategy.prepare(model, iter([]))
    with pytest.raises(ConfigError, match="is 4, above the 3 tokens of a batch"):
        strategy.prepare(model, iter([rows(1, 3)]))
