"""Prefix tuning beside PEFT's with the same weights, beside real words before the text, and beside a cache filled by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from torch import nn
from transformers import DynamicCache

from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.testing.models import DECODERS
from tests.reference.test_lora_peft import distance
from tests.reference.test_prompts_by_hand import five_steps, gradients
from tests.unit.strategies.prompts import KEYLESS, KINDS, LENGTH, ROWS, WORDS, Bases, alone, batch, close, moved, together

ENCODERS = ("bert", "electra", "roberta")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("models"))


def pair(bases: Bases, family: str, hidden: int | None) -> tuple[Any, Any]:
    """Ours and PEFT's on the same base, with PEFT's weights in both."""
    mine = PrefixTuning(length=LENGTH, hidden=hidden).apply(bases(family), {})
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, prefix_projection=hidden is not None, encoder_hidden_size=hidden
    )
    torch.manual_seed(1)
    peft = get_peft_model(bases(family), config)
    with torch.no_grad():
        for own, theirs in zip(trainables(mine), trainables(peft), strict=True):
            own.copy_(theirs)
    return mine, peft


def trainables(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("hidden", [None, 6], ids=["direct", "network"])
@pytest.mark.parametrize("family", DECODERS)
def test_same_as_peft(bases: Bases, family: str, hidden: int | None) -> None:
    mine, peft = pair(bases, family, hidden)
    inputs = batch()
    expected = peft(**inputs).logits
    for logits, theirs, mask in zip(together(mine, inputs), expected, inputs["attention_mask"], strict=True):
        close(logits, theirs[mask.bool()])
    ids = torch.tensor(ROWS[:1])
    some, other = gradients(mine, ids), gradients(peft, ids)
    assert len(some) == len(trainables(mine))
    assert distance(some, other) < 1e-5
    torch.testing.assert_close(five_steps(mine, ids), five_steps(peft, ids), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("kind", "family"), [*((k, f) for k in ("prompt", "prefix") for f in DECODERS), ("ptuning", "llama"), ("prefix-network", "llama")]
)
def test_plain_peft_opens_what_is_saved(bases: Bases, tmp_path: Path, kind: str, family: str) -> None:
    tuning = KINDS[kind]
    model = moved(tuning.apply(bases(family), {}))
    tuning.save(model, tmp_path)
    if isinstance(tuning, PrefixTuning) and family == "mistral":  # has a window, out of which PEFT's prefix falls
        assert not (tmp_path / "adapter_config.json").exists()
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        peft = PeftModel.from_pretrained(bases(family), tmp_path).eval()
    for row in ROWS:
        close(alone(model, row), alone(peft, row)[-len(row) :])


@pytest.mark.parametrize("family", [f for f in DECODERS if f != "mistral"])
def test_a_prefix_that_starts_as_words_is_those_words(bases: Bases, family: str) -> None:
    model = PrefixTuning(length=LENGTH, init_ids=WORDS).apply(bases(family), {})
    base = bases(family)
    for row, found in zip(ROWS, together(model, batch("left")), strict=True):
        close(found, alone(base, [*WORDS, *row])[LENGTH:])


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_with_a_cache_filled_by_hand(bases: Bases, family: str) -> None:
    """transformers takes one without a mask; its positions are those of the text alone."""
    model = moved(PrefixTuning(length=LENGTH).apply(bases(family), {}))
    (weight,) = (p.detach() for p in model.parameters() if p.requires_grad)
    layers = weight.view(LENGTH, 2, 2, 4, 8).permute(1, 2, 3, 0, 4)[:, :, None]  # 2 layers, keys and values, 4 heads of width 8
    base = bases(family)
    first = 2 if family == "roberta" else 0
    for row, found in zip(ROWS, together(model, batch()), strict=True):
        cache = DynamicCache([(keys, values) for keys, values in layers])
        ids = torch.tensor([row])
        body = base.base_model(input_ids=ids, position_ids=torch.arange(first, first + len(row))[None], past_key_values=cache)
        head = base.lm_head if family == "roberta" else base.cls if family == "bert" else None
        states = body.last_hidden_state
        logits = base.generator_lm_head(base.generator_predictions(states)) if head is None else head(states)
        close(found, logits[0])


def test_families_are_all_accounted_for() -> None:
    from ftlab.testing.models import FAMILIES

    assert {*DECODERS, *ENCODERS, *KEYLESS} == {*FAMILIES}
