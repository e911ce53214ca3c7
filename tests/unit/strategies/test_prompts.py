"""Virtual tokens: what is refused, how they start, what is trained, and that an export is the same model."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, DynamicCache, StaticCache

from ftlab.backbone import Backbone
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import ConfigError
from ftlab.export import export
from ftlab.model_card import Facts
from ftlab.module import FinetuneModule
from ftlab.opening import open_folder
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.compose import Compose
from ftlab.strategies.lora import LoRA
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.strategies.ptuning import PTuning
from ftlab.testing.models import CONTEXT
from tests.unit.exports import BERT, CLASSES, LANGUAGE, LLAMA, difference, grown, ids, logits, trained
from tests.unit.strategies.prompts import KINDS, LENGTH, ROWS, WORDS, Bases, alone, batch, close, moved, together

ALL = pytest.mark.parametrize("tuning", KINDS.values(), ids=KINDS.keys())


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("models"))


def trainables(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


BOTH = "model.tuning.init_text and model.tuning.init_ids are both set; choose one of them."


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (PromptTuning, {"length": 0}, "model.tuning.length is 0; it must be at least 1."),
        (PTuning, {"length": -1}, "model.tuning.length is -1; it must be at least 1."),
        (PrefixTuning, {"length": 0}, "model.tuning.length is 0; it must be at least 1."),
        (PromptTuning, {"init_text": "a", "init_ids": [1]}, BOTH),
        (PrefixTuning, {"init_text": "a", "init_ids": [1]}, BOTH),
        (PromptTuning, {"init_text": " "}, "model.tuning.init_text is empty; give a token, or leave it out."),
        (PromptTuning, {"init_ids": []}, "model.tuning.init_ids is empty; give a token, or leave it out."),
        (PTuning, {"hidden": 0}, "model.tuning.hidden is 0; it must be at least 1."),
        (PTuning, {"lstm_layers": 0}, "model.tuning.lstm_layers is 0; it must be at least 1."),
        (PTuning, {"dropout": 1.0}, "model.tuning.dropout is 1; it is a probability, at least 0 and below 1."),
        (
            PTuning,
            {"dropout": 0.1, "encoder": "mlp"},
            "model.tuning.dropout is 0.1, but it acts between layers of an LSTM; set it to 0 or take two.",
        ),
        (PrefixTuning, {"hidden": 0}, "model.tuning.hidden is 0; it must be at least 1, or null."),
        (
            PrefixTuning,
            {"hidden": 4, "init_ids": [3]},
            "model.tuning.hidden makes the prefix by a network, which cannot start from a text; set one of them.",
        ),
    ],
)
def test_bad_fields(kind: type[TuningStrategy], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        kind(**fields)
    assert str(error.value) == message


def small(family: str, **shape: Any) -> Any:
    auto: Any = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return auto.from_config(AutoConfig.for_model(family, **{**sizes, **shape}))


@ALL
def test_what_has_no_place_for_virtual_tokens(bases: Bases, tuning: TuningStrategy) -> None:
    with pytest.raises(ConfigError, match="MambaForCausalLM takes no past_key_values and position_ids, so no text can go on"):
        tuning.apply(small("mamba", state_size=4), {})
    with pytest.raises(ConfigError, match="BloomForCausalLM takes no past_key_values and position_ids"):
        tuning.apply(small("bloom", n_layer=2, n_head=2), {})
    with pytest.raises(ConfigError, match="T5ForConditionalGeneration does not take inputs_embeds and an attention_mask alone"):
        tuning.apply(small("t5", d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2), {})
    for other in KINDS.values():
        with pytest.raises(ConfigError, match="LlamaForCausalLM has virtual tokens already; use one of"):
            other.apply(tuning.apply(bases("llama"), {}), {})


def test_other_attention_is_refused_for_a_prefix(bases: Bases) -> None:
    model = bases("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ConfigError, match="model.backbone.attention is flash_attention_2; keys and values of a prefix need sdpa or eager"):
        PrefixTuning(length=2).apply(model, {})


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "roberta"])
def test_as_many_tokens_as_there_are_positions(bases: Bases, family: str) -> None:
    model = PromptTuning(length=LENGTH).apply(bases(family), {})
    alone(model, [7] * (CONTEXT - LENGTH))
    with pytest.raises(ConfigError) as error:
        alone(model, [7] * (CONTEXT - LENGTH + 1))
    assert str(error.value) == (
        f"model.tuning.length is {LENGTH}, which with rows of {CONTEXT - LENGTH + 1} tokens makes {CONTEXT + 1}, but the model has "
        f"positions for {CONTEXT}; set it lower, or data.max_length to {CONTEXT - LENGTH}."
    )
    with pytest.raises(ConfigError, match="model.tuning.length is 64"):
        PromptTuning(length=CONTEXT).apply(bases(family), {})


def test_a_prefix_takes_positions_of_a_decoder(bases: Bases) -> None:
    model = PrefixTuning(length=LENGTH).apply(bases("gpt2"), {})
    alone(model, [7] * (CONTEXT - LENGTH))
    with pytest.raises(ConfigError, match=f"makes {CONTEXT + 1}, but the model has positions for {CONTEXT}"):
        alone(model, [7] * (CONTEXT - LENGTH + 1))
    alone(PrefixTuning(length=LENGTH).apply(bases("bert"), {}), [7] * CONTEXT)


@pytest.mark.parametrize("tuning", [*KINDS.values(), Compose(strategies=[LoRA(), KINDS["prompt"]])])
def test_rows_are_cut_to_what_the_virtual_tokens_leave(bases: Bases, tuning: TuningStrategy) -> None:
    def limit(taken: TuningStrategy, most: int | None) -> int:
        data = FinetuneData(Rows(items=[{"text": "a"}]), max_length=most)
        module = FinetuneModule(Backbone(name=str(bases.folder("llama"))), LANGUAGE, taken)
        data.trainer = SimpleNamespace(lightning_module=module)  # type: ignore[assignment]
        return data.limit()

    assert limit(tuning, None) == limit(tuning, CONTEXT - LENGTH) == CONTEXT - LENGTH
    assert limit(LoRA(), CONTEXT) == CONTEXT
    with pytest.raises(ConfigError) as error:
        limit(tuning, CONTEXT - LENGTH + 1)
    assert str(error.value) == (
        f"data.max_length is {CONTEXT - LENGTH + 1} and model.tuning adds {LENGTH} virtual tokens, {CONTEXT + 1} in all, "
        f"but the model has positions for {CONTEXT} tokens; lower it."
    )
    with pytest.raises(ConfigError, match="model.tuning adds 64 virtual tokens, but the model has positions for 64; take fewer"):
        limit(PromptTuning(length=CONTEXT), None)


@ALL
def test_only_the_virtual_tokens_are_trained_and_owned(bases: Bases, tuning: TuningStrategy) -> None:
    model = bases("llama", "SequenceClassification")
    before = dict(model.named_parameters())
    model = tuning.apply(model, {"score": model.score})
    found = trainables(model)
    assert {name for name in found if name in before} == {"score.weight"}
    assert all(name == "score.weight" or name.startswith("model.soft_prompt.") for name in found)
    assert tuning.owned(model) == found.keys()


@ALL
def test_the_seed_decides(bases: Bases, tuning: TuningStrategy) -> None:
    found = []
    for seed in (0, 0, 1):
        model = bases("llama")
        torch.manual_seed(seed)
        found.append(torch.cat([p.detach().flatten() for p in trainables(tuning.apply(model, {})).values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def vectors(tuning: TuningStrategy, base: Any) -> torch.Tensor:
    (found,) = trainables(tuning.apply(base, {})).values()
    return found.detach()


def test_vectors_start_as_the_words_of_a_text(bases: Bases) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bases.folder("gemma"))
    word = tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert len(word) == 2
    for length, wanted in ((5, [*word, *word, word[0]]), (1, word[:1])):
        bound = PromptTuning(length=length, init_text="ab").bind(tokenizer)
        assert bound == PromptTuning(length=length, init_ids=word)
        base = bases("gemma")
        assert torch.equal(vectors(bound, base), base.get_input_embeddings()(torch.tensor(wanted)))  # Gemma's are scaled
    assert PrefixTuning(init_text="ab").bind(tokenizer) == PrefixTuning(init_ids=word)
    assert PromptTuning().bind(tokenizer) == PromptTuning()
    for kind in (PromptTuning, PrefixTuning):
        with pytest.raises(ConfigError, match="model.tuning.init_text needs the tokenizer; call bind"):
            kind(init_text="ab").apply(bases("gemma"), {})
    with pytest.raises(ConfigError, match="model.tuning.init_text 'ab' has no token; write other words"):
        PromptTuning(init_text="ab").bind(lambda *_, **__: {"input_ids": []})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="model.tuning.init_ids has 261; the ids of this model are 0 to 260"):
        PromptTuning(init_ids=[3, 261]).apply(bases("gemma"), {})


def test_vectors_start_as_vocabulary_or_at_random(bases: Bases) -> None:
    table = bases("llama").get_input_embeddings().weight.detach()
    torch.manual_seed(0)
    sampled = vectors(PromptTuning(length=40), bases("llama"))
    assert all(bool((table == row).all(1).any()) for row in sampled)
    assert len(sampled.unique(dim=0)) > 30
    random = vectors(PromptTuning(length=40, init="random"), bases("llama"))
    assert not any(bool((table == row).all(1).any()) for row in random)
    assert 0.9 < float(random.std() / table.std()) < 1.1


def test_a_prefix_starts_with_the_spread_of_keys_and_values(bases: Bases) -> None:
    torch.manual_seed(0)
    words, random = (vectors(PrefixTuning(length=40, init=init), bases("llama")) for init in ("vocabulary", "random"))
    for mine, like in zip(random.chunk(4, 1), words.chunk(4, 1), strict=True):  # keys and values of two layers
        assert 0.8 < float(mine.std() / like.std()) < 1.2


def test_a_random_prefix_is_that_of_no_token(bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlab.strategies.prefix_tuning.start_ids", lambda *_: torch.full((4,), 7))
    words, random = (vectors(PrefixTuning(length=4, init=init), bases("llama"))[:, 16:32] for init in ("vocabulary", "random"))
    assert len(words.unique(dim=0)) == 1  # the values of one token in the first layer
    assert len(random.unique(dim=0)) == 4


def test_the_module_binds_the_tokenizer(bases: Bases) -> None:
    module = FinetuneModule(Backbone(name=str(bases.folder("llama"))), LANGUAGE, PromptTuning(length=2, init_text="ab"))
    module.configure_model()
    (found,) = trainables(module.adapted).values()
    wanted = module.tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert torch.equal(found, module.adapted.get_input_embeddings().weight[wanted])  # type: ignore[operator]
    assert "init_text': 'ab'" in str(module.spec())


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
