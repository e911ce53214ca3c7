"""Hidden states from a file: the same in every run, the model's own up to rounding, and refused where a row has none of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlab.backbone import Backbone
from ftlab.callbacks.features import require_same_rows
from ftlab.errors import ConfigError, StorageError
from ftlab.feature_files import name_of, table_at
from ftlab.features import Cut, Skipping, Table, find_cut, noting
from ftlab.module import FinetuneModule
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.strategies.loreft import LoReFT
from ftlab.strategies.prompt_tuning import PromptTuning
from ftlab.strategies.qlora import QLoRA
from ftlab.tasks.base import Task
from ftlab.tasks.masked_lm import MaskedLM
from ftlab.testing.models import DECODERS, ENCODERS, tiny_model_folder
from tests.conftest import Command
from tests.unit.backbones import CLASSES, LANGUAGE, TEXTS, batch_of, configured

STILL: dict[str, dict[str, object]] = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "deberta-v2": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "electra": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "roberta": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "gpt2": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}, "opt": {"dropout": 0.0, "attention_dropout": 0.0},
    "gpt_neox": {"hidden_dropout": 0.0, "attention_dropout": 0.0},
}  # fmt: skip
"""Settings by which a family has no dropout; the others have none."""
ONE = Full(last_layers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    root = tmp_path_factory.mktemp("still")

    def made(family: str) -> str:
        path = root / family
        return str(path if path.is_dir() else tiny_model_folder(family, path, STILL.get(family, {})))

    return made


def cut_of(module: FinetuneModule) -> Cut:
    batch = batch_of(module)
    return find_cut(module.adapted, lambda: module.task.forward(module.adapted, batch))


def noted(module: FinetuneModule, cut: Cut, texts: tuple[str, ...] = TEXTS) -> Table:
    with noting(cut) as found:
        for text in texts:
            module.task.forward(module.adapted, batch_of(module, [text]))
    places, at = {}, 0
    for key, states in found.items():
        places[key] = at
        at += len(states)
    return Table(states=torch.cat(list(found.values())), places=places)


def passed(module: FinetuneModule) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the losses of a batch, and the gradients of what trains."""
    module.adapted.zero_grad()
    total = torch.stack(list(module.task.forward(module.adapted, batch_of(module)).sums.values())).sum()
    total.backward()
    return total.detach(), {name: p.grad.clone() for name, p in module.adapted.named_parameters() if p.grad is not None}


@contextmanager
def watched(layers: nn.ModuleList) -> Iterator[set[int]]:
    """Which layers compute: those in which a linear map runs."""
    ran: set[int] = set()
    handles = []
    for place, layer in enumerate(layers):
        inner = next(m for m in layer.modules() if isinstance(m, nn.Linear | Conv1D))
        handles.append(inner.register_forward_hook(lambda module, values, output, place=place: ran.add(place)))
    yield ran
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_states_stand_in_for_the_layers_below(folder: Callable[[str], str], family: str) -> None:
    torch.manual_seed(0)
    module = configured(Backbone(name=folder(family)), CLASSES, ONE)
    cut = cut_of(module)
    assert cut.depth == len(cut.layers) - 1 == 1
    whole = passed(module)
    skipping = Skipping(cut, [noted(module, cut)])
    skipping.install()
    with watched(cut.layers) as ran:
        cached = passed(module)
    skipping.remove()
    assert ran == {1}, "the layer below does not run"
    torch.testing.assert_close(cached[0], whole[0], rtol=1e-5, atol=1e-5)
    assert cached[1].keys() == whole[1].keys()
    for name, gradient in whole[1].items():
        torch.testing.assert_close(cached[1][name], gradient, rtol=1e-3, atol=1e-5)
    again = passed(module)
    assert torch.equal(again[0], whole[0]), "the model is as before"


@pytest.mark.parametrize(
    ("tuning", "depth"),
    [(Full(last_layers=0), 2), (LoRA(r=2, target_modules=["q_proj"], layers=[1]), 1), (LoReFT(r=2, layers=[1]), 1)],
    ids=["head alone", "LoRA on top", "LoReFT on top"],
)
def test_the_cut_lies_below_the_first_thing_that_trains(folder: Callable[[str], str], tuning: TuningStrategy, depth: int) -> None:
    module = configured(Backbone(name=folder("llama")), LANGUAGE, tuning)
    cut = cut_of(module)
    assert cut.depth == depth
    names = set(cut.below)
    assert any("embed_tokens" in name for name in names)
    assert not any(f"layers.{depth}." in name or name.startswith("norm.") for name in names)
    whole = passed(module)[0]
    skipping = Skipping(cut, [noted(module, cut)])
    skipping.install()
    torch.testing.assert_close(passed(module)[0], whole, rtol=1e-5, atol=1e-5)
    skipping.remove()


@pytest.mark.parametrize(
    ("family", "tuning", "why"),
    [
        ("llama", Full(), "embed_tokens.weight trains, in the first layer or below"),
        ("llama", Full(pattern=".*embed_tokens.*"), "embed_tokens.weight trains, in the first layer or below"),
        ("llama", PromptTuning(length=2), "trains, in the first layer or below|no input_ids|called with"),
        ("llama", QLoRA(r=2), "quantised"),
    ],
)
def test_refused(folder: Callable[[str], str], family: str, tuning: TuningStrategy, why: str) -> None:
    module = configured(Backbone(name=folder(family)), LANGUAGE, tuning)
    with pytest.raises(ConfigError, match=why):
        cut_of(module)


def test_active_dropout_below_the_cut_is_refused(tmp_path: Path) -> None:
    module = configured(Backbone(name=str(tiny_model_folder("bert", tmp_path / "bert"))), CLASSES, ONE)
    before = torch.get_rng_state()
    with pytest.raises(ConfigError, match="dropout is active below"):
        cut_of(module)
    assert torch.equal(before, torch.get_rng_state())


def test_a_row_that_is_not_there_is_refused(folder: Callable[[str], str]) -> None:
    module = configured(Backbone(name=folder("llama")), CLASSES, ONE)
    cut = cut_of(module)
    skipping = Skipping(cut, [noted(module, cut, TEXTS[:1])])
    skipping.install()
    with pytest.raises(ConfigError, match="neither split"):
        passed(module)
    skipping.remove()


def test_names_and_files(folder: Callable[[str], str], tmp_path: Path) -> None:
    module = configured(Backbone(name=folder("llama")), CLASSES, ONE)
    cut = cut_of(module)
    first = name_of(cut, "rows", "32-true")
    assert first == name_of(cut_of(configured(Backbone(name=folder("llama")), CLASSES, ONE)), "rows", "32-true"), "the head is another"
    deeper = cut_of(configured(Backbone(name=folder("llama")), CLASSES, Full(last_layers=0)))
    assert len({first, name_of(cut, "others", "32-true"), name_of(cut, "rows", "bf16-mixed"), name_of(deeper, "rows", "32-true")}) == 4
    states = {b"ab": torch.rand(2, 3), b"c": torch.rand(1, 3)}
    table = table_at(tmp_path, first, lambda: states)
    again = table_at(tmp_path, first, lambda: pytest.fail("it is there"))
    assert torch.equal(table.states, torch.cat([*states.values()]))
    assert again.places == table.places == {b"ab": 0, b"c": 2}
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []
    (tmp_path / f"{first}.safetensors").write_bytes(b"half")
    with pytest.raises(StorageError, match="cannot be written or read"):
        table_at(tmp_path, first, lambda: states)
    with torch.no_grad():
        cut.layers[0].get_parameter("mlp.up_proj.weight")[0, 0] += 1
    assert name_of(cut, "rows", "32-true") != first


@pytest.mark.slow
def test_fits_that_read_the_states_are_equal_and_near_the_one_that_does_not(
    ftlab: Command, folder: Callable[[str], str], tmp_path: Path
) -> None:
    rows = {
        "train": [{"text": "row " * (i % 4 + 1) + str(i), "label": i % 2} for i in range(12)],
        "val": [{"text": "one of them", "label": 0}, {"text": "row 0", "label": 1}],
    }
    words = [
        "fit", "--model.backbone.name", folder("llama"), "--model.task", "SequenceClassification", "--model.task.labels", '["0","1"]',
        "--model.tuning", "Full", "--model.tuning.last_layers", "1", "--model.optimizer.class_path", "torch.optim.AdamW",
        "--model.optimizer.lr", "1e-2", "--data.source", "Rows", "--data.source.items", json.dumps(rows), "--data.batch_size", "3",
        "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1", "--run.root", str(tmp_path), "--run.name", "v",
    ]  # fmt: skip

    def losses(name: str, folder: str | None, *more: str) -> list[float]:
        done = ftlab(*words, "--run.id", name, *more, env={"FTLAB_FEATURES": str(tmp_path / folder)} if folder else {})
        assert done.returncode == 0, done.stderr
        assert ("1 of 2 layers are left out" in done.stderr) == (folder is not None)
        lines = (tmp_path / "v" / name / "metrics.jsonl").read_text().splitlines()
        return [v for line in lines for k, v in json.loads(line).items() if k.endswith("loss")]

    whole, first, second, elsewhere = losses("a", None), losses("b", "one"), losses("c", "one"), losses("d", "two")
    assert first == second == elsewhere
    assert len(whole) == len(first)
    assert whole == pytest.approx(first, rel=1e-4)
    assert losses("e", "one", "--seed_everything", "7") != first


@pytest.mark.parametrize(
    ("task", "tuning", "ranks", "why"),
    [
        (MaskedLM(), ONE, 1, "MaskedLM draws its rows anew"), (CLASSES, PromptTuning(length=2), 1, "PromptTuning adds positions"),
        (CLASSES, ONE, 2, "2 ranks"),
    ],
)  # fmt: skip
def test_what_a_row_must_be(task: Task, tuning: TuningStrategy, ranks: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        require_same_rows(task, tuning, ranks)
