"""Virtual tokens in use: packed rows, caches, copies, short types, and that an export is the same model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

from ftlab.backbone import Backbone
from ftlab.errors import ConfigError
from ftlab.export import export
from ftlab.model_card import Facts
from ftlab.opening import open_folder
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.compose import Compose
from ftlab.strategies.lora import LoRA
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.strategies.ptuning import PTuning
from tests.unit.exports import BERT, CLASSES, LANGUAGE, LLAMA, difference, grown, ids, logits, trained
from tests.unit.strategies.prompts import KINDS, LENGTH, ROWS, WORDS, Bases, alone, batch, close, moved, together, trainables

ALL = pytest.mark.parametrize("tuning", KINDS.values(), ids=KINDS.keys())


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("models"))


def test_packed_rows_are_refused_for_vectors_and_right_for_a_prefix(bases: Bases) -> None:
    packed = torch.tensor([ROWS[0] + ROWS[1]])
    positions = torch.tensor([[*range(len(ROWS[0])), *range(len(ROWS[1]))]])
    model = PromptTuning(length=LENGTH).apply(bases("llama"), {})
    with pytest.raises(ConfigError, match="virtual tokens stand before a whole row, but position_ids start anew inside one"):
        model(input_ids=packed, position_ids=positions)
    model = PrefixTuning(length=LENGTH).apply(bases("llama"), {})
    found = model(input_ids=packed, position_ids=positions, use_cache=False).logits[0]
    close(found, torch.cat([alone(model, row) for row in ROWS]))


@ALL
def test_positions_that_are_given_move_along(bases: Bases, tuning: TuningStrategy) -> None:
    """As `generate` gives them for rows with padding on the left; and encoders with positions of their own."""
    model = moved(tuning.apply(bases("llama"), {}))
    inputs = batch("left")
    given = {**inputs, "position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)}
    for some, other in zip(together(model, given), together(model, inputs), strict=True):
        close(some, other)
    model = moved(tuning.apply(bases("bert"), {}))
    close(alone(model, ROWS[0], position_ids=torch.arange(6)[None]), alone(model, ROWS[0]))


@ALL
def test_a_text_goes_on_from_a_cache(bases: Bases, tuning: TuningStrategy) -> None:
    """In pieces of two tokens, without masks and positions; the virtual tokens come once."""
    model = moved(tuning.apply(bases("llama"), {}))
    cache = DynamicCache()
    pieces = [model(input_ids=torch.tensor([ROWS[0][i : i + 2]]), past_key_values=cache).logits[0] for i in (0, 2, 4)]
    close(torch.cat(pieces), alone(model, ROWS[0]))
    assert cache.get_seq_length() == len(ROWS[0]) + (0 if isinstance(tuning, PrefixTuning) else LENGTH)


def test_a_text_goes_on_after_a_forward_pass_that_failed(bases: Bases) -> None:
    model = moved(KINDS["prompt"].apply(bases("llama"), {}))
    cache = DynamicCache()
    first = model(input_ids=torch.tensor([ROWS[0][:2]]), past_key_values=cache).logits[0]

    def fail(*_: object) -> None:
        raise MemoryError

    handle = model.get_submodule("model.layers.0").register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        alone(model, ROWS[1])
    handle.remove()
    rest = model(input_ids=torch.tensor([ROWS[0][2:]]), past_key_values=cache).logits[0]
    close(torch.cat([first, rest]), alone(model, ROWS[0]))


@ALL
def test_a_cache_of_fixed_size_is_refused(bases: Bases, tuning: TuningStrategy) -> None:
    model = tuning.apply(bases("llama"), {})
    with pytest.raises(ConfigError, match="generate with cache_implementation dynamic"):
        model.generate(**batch("left"), max_new_tokens=2, cache_implementation="static", disable_compile=True)  # type: ignore[operator]


def test_a_cache_of_fixed_size_is_refused_without_a_mask_too(bases: Bases) -> None:
    model = KINDS["prompt"].apply(bases("llama"), {})
    with pytest.raises(ConfigError, match="virtual tokens do not fit into a cache of fixed size"):
        model(input_ids=torch.tensor([ROWS[0]]), past_key_values=StaticCache(config=model.config, max_cache_len=16))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_peft_gets_only_what_it_computes_alike(bases: Bases, tmp_path: Path, kind: str) -> None:
    """Neither a trained classifier that is frozen, nor an encoder under a head for decoders."""
    classifier = bases("llama", "SequenceClassification")
    encoder = AutoModelForCausalLM.from_pretrained(bases.folder("bert"))
    for number, base in enumerate((classifier, encoder, bases("llama"))):
        folder = tmp_path / str(number)
        KINDS[kind].save(KINDS[kind].apply(base, {}), folder)
        assert (folder / "adapter_config.json").exists() == (number == 2)


@ALL
def test_a_copy_is_a_model_of_its_own(bases: Bases, tuning: TuningStrategy) -> None:
    model = tuning.apply(bases("llama"), {})
    expected = alone(model, ROWS[0])
    other = moved(copy.deepcopy(model))
    assert torch.equal(alone(model, ROWS[0]), expected)
    assert difference(expected, alone(other, ROWS[0])) > 0.01


@ALL
def test_float32_virtual_tokens_on_a_short_base(bases: Bases, tuning: TuningStrategy) -> None:
    base = bases("llama", dtype=torch.bfloat16)
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does under bf16-true
    try:
        model = tuning.apply(base, {})
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in trainables(model).values()} == {torch.float32}
    assert model(**batch()).logits.dtype == torch.bfloat16


SAVED = [(k, b, t) for k in KINDS for b, t in ((LLAMA, LANGUAGE), (grown(LLAMA), LANGUAGE), (BERT, CLASSES))]


@pytest.mark.parametrize(("kind", "backbone", "task"), SAVED, ids=[f"{k}-{i}" for k in KINDS for i in ("llama", "grown", "bert")])
def test_an_export_is_the_same_model(tmp_path: Path, kind: str, backbone: Backbone, task: Any) -> None:
    module = trained(KINDS[kind], backbone, task)
    found = export(module, tmp_path / "out", Facts(), [{"input_ids": ids(backbone)}])
    assert found.largest == 0
    opened = open_folder(tmp_path / "out")
    assert torch.equal(logits(opened, ids(backbone)), logits(module.adapted, ids(backbone)))
    assert (tmp_path / "out" / "adapter_config.json").exists() == (backbone == LLAMA)  # PEFT's has no place for rows and heads


def test_an_export_that_started_as_a_text(tmp_path: Path) -> None:
    module = trained(PromptTuning(length=4, init_text="once upon a time"))
    export(module, tmp_path / "out", Facts(), [{"input_ids": ids(LLAMA)}])
    assert torch.equal(logits(open_folder(tmp_path / "out"), ids(LLAMA)), logits(module.adapted, ids(LLAMA)))


def test_dropout_is_not_exported(bases: Bases, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tuning = PTuning(length=LENGTH, hidden=6, dropout=0.9)
    model = tuning.apply(bases("llama"), {}).train()
    for folder in ("one", "two"):
        tuning.save(model, tmp_path / folder)
    one, two = (load_file(tmp_path / f / "adapter_model.safetensors")["prompt_embeddings"] for f in ("one", "two"))
    assert torch.equal(one, two)
    assert not torch.equal(alone(model, ROWS[0]), alone(model, ROWS[0]))  # drops while training
    assert model.get_submodule("model.soft_prompt").training


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_composed_with_lora(kind: str) -> None:
    for order in ([LoRA(r=2), KINDS[kind]], [KINDS[kind], LoRA(r=2)]):
        model = trained(Compose(strategies=order)).adapted
        parts = {name.partition(".lora_")[1] or "soft" for name in trainables(model)}
        assert parts == {".lora_", "soft"}
        found = logits(model, ids(LLAMA))
        assert found.shape[1] == ids(LLAMA).shape[1]
        torch.testing.assert_close(found[1], logits(model, ids(LLAMA)[1:])[0], rtol=1e-4, atol=1e-4)


def test_words_fit_the_tests() -> None:
    assert len(WORDS) == LENGTH
