"""What a strategy refuses by the architecture alone is said before rows are tokenised and weights are read, and nothing else is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertForPreTraining, BertForSequenceClassification, PreTrainedModel

from ftlab import rng
from ftlab.backbone import Backbone
from ftlab.errors import ConfigError, FtlabError
from ftlab.module import FinetuneModule
from ftlab.rehearsal import rehearse
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.bitfit import BitFit
from ftlab.strategies.compose import Compose
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.strategies.peft_bridge import Peft
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.tasks.base import Task
from ftlab.tasks.next_sentence import NextSentencePrediction
from ftlab.testing.conformance.subject import CLASSES, LANGUAGE
from ftlab.testing.models import tiny_config, tiny_model_folder
from tests.conftest import Command
from tests.reference.peft_cases import CASES, VARIANTS, Case

EMBEDDING = "model.task=SentenceEmbedding"


@pytest.mark.parametrize(
    ("family", "arguments", "sentence"),
    [
        ("llama", ["--model.tuning=BitFit"], "model.tuning is BitFit, but LlamaForCausalLM has no bias outside its fresh heads"),
        ("llama", ["--model.tuning=LoRA", "--model.tuning.target_modules=[q_prj]"], "did you mean q_proj"),
        ("llama", ["--model.tuning=QLoRA", "--model.tuning.target_modules=[q_prj]"], "did you mean q_proj"),
        ("distilbert", ["--model.tuning=PrefixTuning", f"--{EMBEDDING}"], "DistilBertModel takes no keys and values from outside"),
    ],
)
def test_nothing_is_read_for_what_is_refused(family: str, arguments: list[str], sentence: str, ftlab: Command, tmp_path: Path) -> None:
    folder = tiny_model_folder(family, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "one two three", "sentence1": "one", "sentence2": "two", "score": 1.0}) + "\n", encoding="utf-8")
    data = ["--data.source=JsonLines", f"--data.source.path={{train: {rows}}}"]
    task = [] if f"--{EMBEDDING}" in arguments else ["--model.task=CausalLM"]
    cache = tmp_path / "cache"
    run = ftlab(
        "fit", f"--model.backbone.name={folder}", *task, *arguments, *data, "--trainer.max_steps=1", env={"FTLAB_CACHE": str(cache)}
    )
    assert sentence in run.stderr
    assert run.returncode == 2
    assert not cache.exists()


@pytest.mark.parametrize(
    ("case", "encoder"),
    [
        pytest.param(c, e, id=f"{c}-{'encoder' if e else 'decoder'}")
        for c in (*CASES, *VARIANTS)
        for e in (False, True)
        if c.encoder or not e
    ],
)
def test_a_method_of_peft_is_refused_only_where_the_real_model_would_refuse_it(case: Case, encoder: bool, tmp_path: Path) -> None:
    task = CLASSES if encoder else LANGUAGE
    subject = module("bert" if encoder else "llama", task, Peft(method=case.method, options=case.on(encoder)), tmp_path)
    try:
        rehearse(subject)
    except FtlabError as refusal:  # as LoftQ is where there is no GPU
        with pytest.raises(type(refusal), match=re.escape(str(refusal))):
            subject.configure_model()


@pytest.mark.parametrize("tuning", [LoRA(), PromptTuning()], ids=["rehearsed", "needs values"])
def test_random_numbers_stay_as_they_are(tuning: TuningStrategy, tmp_path: Path) -> None:
    subject = module("bert", CLASSES, tuning, tmp_path)
    before = rng.states()
    rehearse(subject)
    assert str(rng.states()) == str(before)
    assert torch.equal(torch.get_rng_state(), before[0]["torch"])
    assert subject.model is None


def test_a_head_without_stored_weights_is_told_from_one_with_them(tmp_path: Path) -> None:
    tiny_model_folder("modernbert", tmp_path / "modernbert")
    with pytest.raises(ConfigError, match="has no bias outside its fresh heads"):  # but in its classifier, which is fresh
        rehearse(module("modernbert", CLASSES, BitFit(), tmp_path))
    config = tmp_path / "modernbert" / "config.json"
    values = json.loads(config.read_text(encoding="utf-8")) | {"architectures": ["ModernBertForSequenceClassification"]}
    config.write_text(json.dumps(values), encoding="utf-8")
    rehearse(module("modernbert", CLASSES, BitFit(), tmp_path))


@pytest.mark.parametrize(
    ("kind", "task", "tuning"),
    [
        (BertForSequenceClassification, CLASSES, Compose(strategies=[LoRA(), Full(last_layers=0)])),  # with another number of labels
        (BertForPreTraining, NextSentencePrediction(), BitFit(modules=["seq_relationship"])),  # a head of two in the file
    ],
    ids=["a head of another size", "a head of another class"],
)
def test_what_the_stored_heads_leave_open_is_not_refused(
    kind: type[PreTrainedModel], task: Task, tuning: TuningStrategy, tmp_path: Path
) -> None:
    folder = tiny_model_folder("bert", tmp_path / "bert")
    kind(tiny_config("bert", {"num_labels": 5})).save_pretrained(folder)
    subject = module("bert", task, tuning, tmp_path)
    rehearse(subject)
    subject.configure_model()


def test_tokens_without_an_embedding_are_found(tmp_path: Path) -> None:
    tiny_model_folder("llama", tmp_path / "llama")
    config = tmp_path / "llama" / "config.json"
    values = json.loads(config.read_text(encoding="utf-8")) | {"vocab_size": 8}
    config.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConfigError, match="has an embedding of 8, so they belong to different models"):
        rehearse(module("llama", LANGUAGE, LoRA(), tmp_path))


def test_a_configuration_cannot_name_what_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr("transformers.pipeline", called.append)
    folder = tiny_model_folder("bert", tmp_path / "bert")
    config = folder / "config.json"
    values = json.loads(config.read_text(encoding="utf-8")) | {"architectures": ["pipeline"]}
    config.write_text(json.dumps(values), encoding="utf-8")
    rehearse(module("bert", CLASSES, LoRA(), tmp_path))
    assert called == []


@dataclass(frozen=True, kw_only=True)
class Asking(LoRA):
    """A strategy that asks for a value, and puts what torch says of it into words of its own."""

    def apply(self, model: nn.Module, heads: object) -> nn.Module:
        try:
            next(model.parameters()).sum().item()
            next(model.parameters()).cpu()
        except (NotImplementedError, RuntimeError) as error:
            raise ConfigError("the weights cannot be read") from error
        raise AssertionError("a tensor without values gave one")


def test_a_refusal_for_want_of_values_is_left_to_the_real_model(tmp_path: Path) -> None:
    rehearse(module("llama", LANGUAGE, Asking(), tmp_path))


def module(family: str, task: Task, tuning: TuningStrategy, root: Path) -> FinetuneModule:
    folder = root / family
    if not folder.is_dir():
        tiny_model_folder(family, folder)
    return FinetuneModule(Backbone(name=str(folder)), task, tuning)
