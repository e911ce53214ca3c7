"""New tokens in a written model: plain transformers opens it with nothing missing and the same logits, and the live model stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ftlab.backbone import Backbone
from ftlab.batch import Batch
from ftlab.export import export
from ftlab.heads import output_of
from ftlab.model_card import Facts
from ftlab.module import FinetuneModule
from ftlab.saving import folded, save_whole
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.tasks.base import Task
from tests.unit.exports import difference, digest, trained
from tests.unit.test_growth import EVERY, MASKED, NEW, SIZE, base_folder, batch_for


def learnt(family: str, task: Task, folder: Path, tuning: TuningStrategy, **settings: object) -> tuple[FinetuneModule, Batch]:
    base = Backbone(name=str(base_folder(family, task, folder, settings)), new_tokens=NEW)
    module = trained(tuning, base, task)
    return module, batch_for(module)


def opened(folder: Path, task: Task) -> Any:
    model, said = getattr(transformers, task.auto_class).from_pretrained(folder, output_loading_info=True)
    assert not any(said.values())
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module, batch: Batch) -> Tensor:
    found: Tensor = model(**batch.inputs)[0]
    return found


def places(model: nn.Module) -> list[tuple[str, int]]:
    """Every name of every parameter, and which parameter it is."""
    return [(name, id(p)) for name, p in model.named_parameters(remove_duplicate=False)]


@EVERY
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [SIZE, SIZE + 1, 272], ids=["no room", "room for one", "room"])
def test_a_whole_model_opens_in_plain_transformers(family: str, task: Task, tied: bool, rows: int, tmp_path: Path) -> None:
    module, batch = learnt(family, task, tmp_path / "base", Full(), tie_word_embeddings=tied, vocab_size=rows)
    before = digest(module), places(module.adapted)
    save_whole(module.adapted, tmp_path / "out")
    assert (digest(module), places(module.adapted)) == before
    plain = opened(tmp_path / "out", task)
    assert plain.config.vocab_size == max(rows, SIZE + 2)
    assert difference(logits(module.adapted, batch), logits(plain, batch)) <= 1e-6


@EVERY
def test_a_merged_model_opens_in_plain_transformers(family: str, task: Task, tmp_path: Path) -> None:
    module, batch = learnt(family, task, tmp_path / "base", LoRA(r=2))
    found = export(module, tmp_path / "out", Facts(), [batch.inputs], merge=True)
    assert found.holds
    assert difference(logits(module.adapted, batch), logits(opened(tmp_path / "out", task), batch)) <= 1e-5


def fail_while_folded(model: nn.Module) -> None:
    with folded(model):
        raise OSError("the disk is full")


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_an_error_while_folded_leaves_every_name_where_it_was(family: str, tmp_path: Path) -> None:
    module, _ = learnt(family, MASKED, tmp_path, Full())
    before, output = places(module.adapted), output_of(module.adapted)
    with pytest.raises(OSError, match="full"):
        fail_while_folded(module.adapted)
    assert places(module.adapted) == before
    assert output_of(module.adapted) is output


@EVERY
def test_a_checkpoint_fills_another_model(family: str, task: Task, tmp_path: Path) -> None:
    """What a strategy owns is what is stored; the rest comes from the base."""
    module, batch = learnt(family, task, tmp_path, LoRA(r=2))
    owned = LoRA(r=2).owned(module.adapted)
    state = {name: t for name, t in module.adapted.state_dict().items() if name in owned}
    again = FinetuneModule(module.backbone, task, LoRA(r=2))
    again.configure_model()
    assert again.adapted.load_state_dict(state, strict=False).unexpected_keys == []  # not strict: it is no whole model
    assert torch.equal(logits(module.adapted, batch), logits(again.adapted.eval(), batch))


@EVERY
def test_an_adapter_opens_as_it_was_trained(family: str, task: Task, tmp_path: Path) -> None:
    """PEFT leaves out the bias of an output whose new rows are trained; such an adapter is written in ftlab's own format."""
    module, batch = learnt(family, task, tmp_path / "base", LoRA(r=2))
    assert export(module, tmp_path / "out", Facts(), [batch.inputs]).holds
    output = output_of(module.adapted)
    assert (tmp_path / "out" / "adapter_config.json").exists() == (output is None or getattr(output, "bias", None) is None)
