"""Prompt tuning beside runs of the untouched model with hand-built inputs, and p-tuning beside PEFT's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PromptEncoderConfig, get_peft_model
from torch import Tensor, nn

from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.strategies.ptuning import PTuning
from ftlab.testing.models import DECODERS, FAMILIES
from tests.reference.test_lora_peft import distance
from tests.unit.strategies.prompts import LENGTH, PAD, ROWS, WORDS, Bases, alone, batch, close, moved, together


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("task", ["", "SequenceClassification"])
@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_of_words_are_those_words(bases: Bases, family: str, task: str) -> None:
    """In a decoder before the text, in an encoder after its first token; the outputs are those of the other tokens."""
    model = PromptTuning(length=LENGTH, init_ids=WORDS).apply(bases(family, task), {})
    base = bases(family, task)
    first = 0 if family in DECODERS else 1
    for row, found in zip(ROWS, together(model, batch()), strict=True):
        whole = alone(base, [*row[:first], *WORDS, *row[first:]])
        close(found, whole if task else torch.cat([whole[:first], whole[first + LENGTH :]]))


def with_vectors(base: Any, row: list[int], first: int, vectors: Tensor) -> Tensor:
    """The embedded row (1, P+T, D) with vectors after its first `first` tokens."""
    embedded = base.get_input_embeddings()(torch.tensor([row]))[0]
    return torch.cat([embedded[:first], vectors, embedded[first:]])[None]


def tuned(bases: Bases, family: str, task: str = "") -> tuple[Any, Any, Tensor]:
    """The model with a moved prompt, the untouched one, and the prompt's vectors."""
    model = moved(PromptTuning(length=LENGTH).apply(bases(family, task), {}))
    (vectors,) = (p.detach() for p in model.parameters() if p.requires_grad)
    return model, bases(family, task).requires_grad_(False), vectors


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_causal_language_model(bases: Bases, family: str) -> None:
    model, base, vectors = tuned(bases, family)
    for row, found in zip(ROWS, together(model, batch("left")), strict=True):
        close(found, base(inputs_embeds=with_vectors(base, row, 0, vectors)).logits[0, LENGTH:])


def test_padded_inputs_by_hand(bases: Bases) -> None:
    model, base, vectors = tuned(bases, "llama")
    inputs = batch()
    embedded = base.get_input_embeddings()(inputs["input_ids"])
    rows = len(embedded)
    whole = base(
        inputs_embeds=torch.cat([vectors.expand(rows, -1, -1), embedded], 1),
        attention_mask=torch.cat([torch.ones(rows, LENGTH), inputs["attention_mask"]], 1),
    )
    for found, expected, mask in zip(together(model, inputs), whole.logits[:, LENGTH:], inputs["attention_mask"], strict=True):
        close(found, expected[mask.bool()])


def test_decoder_classification(bases: Bases) -> None:
    """The class is read at a row's last token, wherever its padding is."""
    model, base, vectors = tuned(bases, "llama", "SequenceClassification")
    for side in ("right", "left"):
        for row, found in zip(ROWS, together(model, batch(side)), strict=True):
            states = base.model(inputs_embeds=with_vectors(base, row, 0, vectors)).last_hidden_state
            close(found, base.score(states[0, -1]))


@pytest.mark.parametrize("task", ["", "SequenceClassification"])
def test_encoder(bases: Bases, task: str) -> None:
    """BERT with segments; its vectors are of the first."""
    model, base, vectors = tuned(bases, "bert", task)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]])
    found = together(model, {**batch(), "token_type_ids": segments})
    for row, logits, kinds in zip(ROWS, found, segments, strict=True):
        both = torch.cat([kinds[:1], torch.zeros(LENGTH, dtype=torch.long), kinds[1 : len(row)]])[None]
        whole = base(inputs_embeds=with_vectors(base, row, 1, vectors), token_type_ids=both).logits[0]
        close(logits, whole if task else torch.cat([whole[:1], whole[1 + LENGTH :]]))


def test_next_sentence(bases: Bases) -> None:
    """BERT's pooler stands inside the wrapped body, and reads [CLS] all the same."""
    model, base, vectors = tuned(bases, "bert", "PreTraining")
    with torch.no_grad():
        found = model(**batch())
    for number, row in enumerate(ROWS):
        whole = base(inputs_embeds=with_vectors(base, row, 1, vectors))
        close(found.seq_relationship_logits[number], whole.seq_relationship_logits[0])
        words = torch.cat([whole.prediction_logits[0, :1], whole.prediction_logits[0, 1 + LENGTH :]])
        close(found.prediction_logits[number, : len(row)], words)


@pytest.mark.parametrize(("family", "first"), [("llama", 0), ("bert", 1)])
def test_the_gradient_of_the_vectors(bases: Bases, family: str, first: int) -> None:
    model, base, vectors = tuned(bases, family)
    vectors = vectors.clone().requires_grad_()
    mine = model(**batch()).logits[batch()["attention_mask"].bool()].square().sum()
    theirs = torch.zeros(())
    for row in ROWS:
        whole = base(inputs_embeds=with_vectors(base, row, first, vectors)).logits[0].square().sum(1)
        theirs = theirs + whole[:first].sum() + whole[first + LENGTH :].sum()
    mine.backward()
    theirs.backward()
    (own,) = (p.grad for p in model.parameters() if p.requires_grad)
    close(own, vectors.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("beams", [1, 3])
def test_generating_by_hand(bases: Bases, beams: int) -> None:
    model, base, vectors = tuned(bases, "llama")
    settings = {"num_beams": beams, "max_new_tokens": 8, "do_sample": False, "pad_token_id": PAD, "eos_token_id": None}
    for row in ROWS:
        expected = base.generate(inputs_embeds=with_vectors(base, row, 0, vectors), **settings)[0]
        assert torch.equal(model.generate(torch.tensor([row]), **settings)[0, len(row) :], expected)


def peft_model(base: nn.Module, kind: str) -> Any:
    config = PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, encoder_reparameterization_type=kind.upper(), encoder_hidden_size=6
    )
    return get_peft_model(base, config)


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    """That of all tokens but the first; with labels of its own PEFT scores the first too, which its last vector predicts."""
    logits: Tensor = model(input_ids=ids).logits[:, -ids.shape[1] :]
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradients(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    loss_of(model, ids).backward()
    found = {str(i): p.grad for i, p in enumerate(p for p in model.parameters() if p.requires_grad) if p.grad is not None}
    model.zero_grad()
    return found


def five_steps(model: nn.Module, ids: Tensor) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = loss_of(model, ids)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
def test_ptuning_is_that_of_peft(bases: Bases, kind: str) -> None:
    torch.manual_seed(0)
    mine = PTuning(length=LENGTH, hidden=6, encoder=kind).apply(bases("llama"), {})  # type: ignore[arg-type]
    torch.manual_seed(0)
    peft = peft_model(bases("llama"), kind)
    inputs = batch()
    found, expected = together(mine, inputs), peft(**inputs).logits[:, LENGTH:]
    for logits, theirs, mask in zip(found, expected, inputs["attention_mask"], strict=True):
        close(logits, theirs[mask.bool()])
    ids = torch.tensor(ROWS[:1])
    some, other = gradients(mine, ids), gradients(peft, ids)
    assert len(some) == sum(p.requires_grad for p in mine.parameters())
    assert distance(some, other) < 1e-5
    torch.testing.assert_close(five_steps(mine, ids), five_steps(peft, ids), rtol=1e-5, atol=0)
