"""What is written down: checkpoints, exports, merged models, and that they are the trained model again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.checkpoint import keep_owned
from ftlab.errors import ConfigError
from ftlab.export import export, put
from ftlab.growth import NewRows
from ftlab.heads import output_of
from ftlab.model_card import Facts
from ftlab.module import FinetuneModule
from ftlab.parity import REARRANGED
from ftlab.strategies.base import NotMergeableError
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import BrokenError, NotApplicableError, alike, check, require
from ftlab.testing.conformance.subject import CLASSES, LANGUAGE, TEXTS, Build, Subject, batch, train
from ftlab.testing.conformance.tensors import few, logits, moved, snapshot, trainable
from ftlab.testing.models import DECODERS


@check("base_untouched")
def owned_exactly(subject: Subject) -> None:
    """A checkpoint holds everything that is trained, and nothing that loading and applying give anyway.

    PEFT writes a whole embedding matrix beside an adapter of kilobytes when it cannot tell whether it was changed.
    """
    module, other = subject.module(seed=1), subject.module(seed=2)
    model = module.adapted
    owned, before, elsewhere = subject.strategy.owned(model), snapshot(model), other.adapted.state_dict()
    missing = owned - before.keys()
    require(not missing, f"owned() names {few(missing)}, which the model does not have")
    lost = trainable(model) - owned
    require(not lost, f"owned() leaves out {few(lost)}, which is trained")
    train(module, [batch(module)] * 2)
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    idle = {name for name in (owned & frozen) - moved(before, model) if torch.equal(before[name], elsewhere[name])}
    require(not idle, f"owned() names {few(idle)}, which no training changes")


@check("base_untouched")
def checkpoint_restores(subject: Subject) -> None:
    """The owned tensors, put into a model that a fresh process builds, give the same outputs.

    State in a Python attribute, or in what was drawn at random and not saved, is gone with its process.
    """
    module = subject.trained()
    inputs = batch(module).inputs
    owned = keep_owned(dict(module.adapted.state_dict()), subject.strategy.owned(module.adapted))
    server.call("restore", subject, {"owned": owned, "inputs": inputs, "logits": logits(module.adapted, inputs)})


@check("checkpoint_restores", "yaml")
def exports(subject: Subject) -> None:
    """What `save` writes opens in a fresh process and gives the same outputs.

    AdaLoRA and LoftQ folders of PEFT opened as other models; whatever is not in the folder comes from the process that wrote it.
    """
    module = subject.trained()
    with tempfile.TemporaryDirectory(dir=subject.root) as work:
        inputs = batch(module).inputs
        exported(module, Path(work) / "out", inputs)
        server.call("reopen", subject, {"inputs": inputs, "logits": logits(module.adapted, inputs), "folder": str(Path(work) / "out")})


def exported(module: FinetuneModule, folder: Path, inputs: dict[str, Tensor], *, merge: bool = False) -> None:
    """Write a module, which opens what it wrote and compares."""
    export(module, folder, Facts(), [inputs], merge=merge)


def _survives(subject: Subject, module: FinetuneModule, texts: tuple[str, ...] = TEXTS) -> None:
    """A trained module, exported and merged where that is promised, is the same model again."""
    with tempfile.TemporaryDirectory(dir=subject.root) as work:
        inputs = batch(module, texts).inputs
        exported(module, Path(work) / "adapter", inputs)
        if subject.merges:
            exported(module, Path(work) / "merged", inputs, merge=True)


@check("exports")
def merges(subject: Subject) -> None:
    """A merged model is a plain one with the same outputs, and merging leaves the unmerged one as it was; or `merge` refuses.

    Merging without alpha / r, or twice, gives a model that still talks and is worse.
    """
    module = subject.trained()
    inputs = batch(module).inputs
    expected = logits(module.adapted, inputs)
    if not subject.can_merge:
        _refuses_to_merge(module)
        return
    if not subject.quantised:  # merging into packed weights rounds; `export` allows for that, and merges into the base as it is stored
        _merged_alike(subject, module, inputs, expected)
    _survives(subject, module)
    require(torch.equal(expected, logits(module.adapted, inputs)), "after the export with --merge the unmerged model has other logits")


def _merged_alike(subject: Subject, module: FinetuneModule, inputs: dict[str, Any], expected: Tensor) -> None:
    other = subject.module(seed=5)
    put(other.adapted, keep_owned(dict(module.adapted.state_dict()), subject.strategy.owned(module.adapted)))
    merged = subject.strategy.merge(other.adapted)
    plain = subject.base(module).state_dict().keys()
    require(merged.state_dict().keys() == plain, f"merged, the model still has {few(merged.state_dict().keys() ^ plain)}")
    alike(expected, logits(merged, inputs), REARRANGED, "the merged model has other logits")


def _refuses_to_merge(module: FinetuneModule) -> None:
    try:
        module.tuning.merge(module.adapted)
    except NotMergeableError:
        return
    raise BrokenError("merge returns a model, though traits.mergeable is False; declare it True")


@check("exports", beside=("merges",))
def heads(subject: Subject) -> None:
    """A fresh head is trained, owned, saved and restored.

    Without `modules_to_save` PEFT leaves a new classification head at its random weights, frozen, and out of the file.
    """
    module = subject.module(task=CLASSES)
    model = module.adapted
    before = snapshot(model)
    base = subject.base(module)
    head = {n for n, p in base.named_parameters() if p.shape[0] == len(CLASSES.labels or [])}
    sizes = {base.get_parameter(n).shape for n in head}
    train(module, [batch(module)] * 3)
    changed = {before[n].shape for n in moved(before, model) & subject.strategy.owned(model)}
    require(sizes <= changed, f"the head {few(head)} is not trained and owned")
    _survives(subject, module)


@check("exports", beside=("merges",))
def tied_embeddings(subject: Subject) -> None:
    """Where input and output embedding are one tensor, they stay one, and saved and merged models are right.

    A clone of one of them trains well, and is lost when the model is opened with its weights tied.
    """
    module = subject.trained(_decoder(subject), LANGUAGE, build=Build(settings={"tie_word_embeddings": True}))
    output, table = output_of(module.adapted), _input_of(module.adapted)
    if isinstance(table, nn.Embedding) and isinstance(output, nn.Linear):
        require(output.weight is table.weight, "the tied embeddings are two tensors after training")
    _survives(subject, module)


def _input_of(model: nn.Module) -> object:
    getter = getattr(model, "get_input_embeddings", None)
    return getter() if callable(getter) else None


def _decoder(subject: Subject) -> str:
    if subject.family not in DECODERS:
        raise NotApplicableError("the strategy takes no decoder")
    return subject.family


@check("exports", beside=("merges",))
def grown_vocabulary(subject: Subject) -> None:
    """Rows of new tokens are trained, owned, saved and restored.

    A resized embedding under PEFT is neither trained nor saved unless it is named, and new tokens stay at their random rows.
    """
    texts = ("one <first> two", "a <second>", "words", "more <first> words")
    module = subject.module(build=Build(backbone={"new_tokens": ["<first>", "<second>"]}))
    model = module.adapted
    before = snapshot(model)
    train(module, [batch(module, texts)] * 3)
    rows = {f"{name}.weight" for name, m in model.named_modules(remove_duplicate=False) if isinstance(m, NewRows)}
    require(bool(rows), "the rows of the new tokens are gone from the model")
    still = rows - moved(before, model)
    require(not still, f"the new rows {few(still)} do not move")
    try:
        _survives(subject, module, texts)
    except ConfigError as error:
        raise BrokenError(f"a model with new tokens cannot be saved: {error}") from error
