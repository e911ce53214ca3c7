"""Virtual tokens in every family: they count, a row depends on itself alone, and generating gives each row what it gets alone."""

from __future__ import annotations

import pytest
import torch

from ftlab.backbone import Backbone
from ftlab.errors import ConfigError
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.virtual_tokens import Entry
from ftlab.testing.models import DECODERS, ENCODERS, FAMILIES
from tests.unit.strategies.prompts import KEYLESS, KINDS, LENGTH, ROWS, Bases, alone, batch, close, moved, together

TASKS = ("", "SequenceClassification")
EVERYWHERE = [(kind, f, t) for kind in ("prompt", "prefix") for f in FAMILIES for t in TASKS]
CASES = [*EVERYWHERE, *((kind, f, t) for kind in ("ptuning", "prefix-network") for f in ("bert", "llama") for t in TASKS)]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(("kind", "family", "task"), CASES)
def test_a_row_depends_on_itself_alone(bases: Bases, kind: str, family: str, task: str) -> None:
    tuning = KINDS[kind]
    if isinstance(tuning, PrefixTuning) and family in KEYLESS:
        with pytest.raises(ConfigError, match="takes no keys and values from outside, which a prefix is; choose LoRA"):
            tuning.apply(bases(family, task), {})
        return
    model = moved(tuning.apply(bases(family, task), {}))
    expected = [alone(model, row) for row in ROWS]
    base = bases(family, task)
    for row, logits in zip(ROWS, expected, strict=True):
        assert len(logits) == (3 if task else len(row))
        assert float((logits - alone(base, row)).abs().max()) > 0.02
    for side in ("right", "left") if family in DECODERS else ("right",):
        for logits, wanted in zip(together(model, batch(side)), expected, strict=True):
            close(logits, wanted)


@pytest.mark.parametrize("tuning", [KINDS["prompt"], KINDS["prefix"]], ids=["prompt", "prefix"])
@pytest.mark.parametrize("family", DECODERS)
def test_generated_rows_are_those_of_each_row_alone(bases: Bases, tuning: TuningStrategy, family: str) -> None:
    """With a cache, padded on the left, beside a loop that computes everything anew for every token."""
    model = moved(tuning.apply(bases(family), {}))
    found = model.generate(**batch("left"), max_new_tokens=6, do_sample=False, pad_token_id=1, eos_token_id=None)  # type: ignore[operator]
    for row, got in zip(ROWS, found.tolist(), strict=True):
        text = list(row)
        for _ in range(6):
            text.append(int(alone(model, text)[-1].argmax()))
        assert got[-6:] == text[-6:]


@pytest.mark.parametrize("family", ["bert", "llama", "opt"])
@pytest.mark.parametrize("tuning", KINDS.values(), ids=KINDS.keys())
def test_hidden_states_line_up_with_the_tokens(bases: Bases, tuning: TuningStrategy, family: str) -> None:
    model = tuning.apply(bases(family), {})
    out = model(**batch(), output_hidden_states=True)
    assert len(out.hidden_states) == 3
    assert {h.shape[1] for h in out.hidden_states} == {out.logits.shape[1]} == {8}


@pytest.mark.parametrize("tuning", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_recomputed_activations_give_the_same_gradients(bases: Bases, tuning: TuningStrategy, family: str) -> None:
    found = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        backbone = Backbone(name=str(bases.folder(family)), activation_checkpointing=recomputed)
        model = moved(tuning.apply(backbone.load_model("AutoModelForSequenceClassification", {}, {})[0], {}))
        model.config.pad_token_id = 1  # type: ignore[union-attr]
        torch.manual_seed(1)  # of dropout
        model(**batch()).logits.square().mean().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert all(g is not None and bool(g.any()) for g in found[0].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", ENCODERS)
def test_a_row_of_one_token(bases: Bases, family: str) -> None:
    model = moved(KINDS["prompt"].apply(bases(family), {}))
    ids = torch.tensor([[0], [0]])
    close(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[1], alone(model, [0]))


@pytest.mark.parametrize(("family", "kind"), [("mistral", "prompt"), ("mistral", "prefix"), ("modernbert", "prompt")])
def test_rows_longer_than_the_window(bases: Bases, family: str, kind: str) -> None:
    rows = [[0, *range(50, 93)], [0, *range(60, 83)]]
    model = moved(KINDS[kind].apply(bases(family), {}))
    expected = [alone(model, row) for row in rows]
    for side in ("right", "left") if family in DECODERS else ("right",):
        for logits, wanted in zip(together(model, batch(side, rows=rows)), expected, strict=True):
            close(logits, wanted)
    if kind == "prefix":  # two layers of 16 tokens each do not reach back to it
        assert float((expected[0][-1] - alone(bases(family), rows[0])[-1]).abs().max()) > 0.02


@pytest.mark.parametrize(("family", "causal"), [*((f, True) for f in DECODERS), *((f, False) for f in ENCODERS)])
def test_where_the_vectors_stand(bases: Bases, family: str, causal: bool) -> None:
    assert Entry(LENGTH, bases(family, dtype=torch.bfloat16)).causal == causal
