"""Virtual tokens: what is refused, how they start, what is trained, and that an export is the same model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from ftlab.backbone import Backbone
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import ConfigError
from ftlab.module import FinetuneModule
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.compose import Compose
from ftlab.strategies.lora import LoRA
from ftlab.strategies.prefix_tuning import PrefixTuning
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.strategies.ptuning import PTuning
from ftlab.testing.models import CONTEXT
from tests.unit.exports import LANGUAGE
from tests.unit.strategies.prompts import KINDS, LENGTH, Bases, alone, trainables

ALL = pytest.mark.parametrize("tuning", KINDS.values(), ids=KINDS.keys())


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("models"))


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
    what = (
        "keys and values from outside, which"
        if isinstance(tuning, PrefixTuning)
        else "past_key_values and position_ids, so no text can go on"
    )
    with pytest.raises(ConfigError, match=f"MambaForCausalLM takes no {what}"):
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


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_autocast_leaves_the_small_network_alone(bases: Bases, encoder: Any) -> None:
    """Under autocast to bfloat16 torch has no LSTM on processors without AVX-512."""
    model = PTuning(length=LENGTH, encoder=encoder, hidden=8).apply(bases("llama"), {})
    source = model.get_submodule("model.soft_prompt.source")
    with torch.autocast("cpu", torch.bfloat16):
        vectors = source()
    assert vectors.dtype == torch.float32
    assert vectors.equal(source())


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
