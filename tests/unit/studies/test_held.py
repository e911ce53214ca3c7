"""A base that is held is, bit for bit and random number for random number, the one that is read."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ftlab.backbone import Backbone
from ftlab.commands.verify import equal
from ftlab.studies import held, shelf
from ftlab.studies.held import NotHeldError, hold, identity
from ftlab.studies.shelf import Shelf, kind
from ftlab.testing.models import DECODERS, ENCODERS
from ftlab.weights import Read, Reading, from_files, reader
from tests.unit.backbones import Models

What = tuple[str, dict[str, object]]
CLASSES: What = ("AutoModelForSequenceClassification", {"num_labels": 3})
WHOLE: What = ("AutoModelForCausalLM", {})
PACKED: dict[str, object] = {
    "quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, llm_int8_skip_modules=["score"])
}


@contextmanager
def asked(who: Callable[[Reading], Read]) -> Iterator[None]:
    token = reader.set(who)
    try:
        yield
    finally:
        reader.reset(token)


def reading(backbone: Backbone, what: What = CLASSES, options: dict[str, object] | None = None) -> Reading:
    seen: list[Reading] = []

    def note(each: Reading) -> Read:
        seen.append(each)
        return from_files(each)

    with asked(note):
        backbone.load_model(*what, options or {})
    return seen[0]


def check(backbone: Backbone, what: What, options: dict[str, object]) -> set[str]:
    """Read a model twice with one seed, from its files and from memory; the names of its fresh parameters."""
    copy = hold(reading(backbone, what, options))
    found = []
    for who in (from_files, lambda each: copy.take()):
        torch.manual_seed(5), random.seed(5), np.random.seed(5)
        with asked(who):
            model, missing = backbone.load_model(*what, options)
        found.append((model, missing, torch.get_rng_state(), random.getstate()))
    (first, missing, *states), (second, missing_too, *states_too) = found
    assert equal(states, states_too)
    assert missing == missing_too
    tensors, others = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (first, second))
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype
        assert torch.equal(tensor.flatten().view(torch.uint8), others[name].flatten().view(torch.uint8)), name
    assert first.training == second.training is True
    assert first.config.to_dict() == second.config.to_dict()
    return missing


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_fresh_heads_are_those_of_the_seed(models: Models, family: str) -> None:
    assert check(Backbone(name=str(models.folder(family))), CLASSES, {}), "a classifier has a head that no file fills"


def test_whole_models_other_types_and_packed_ones(models: Models) -> None:
    name = str(models.folder("llama"))
    assert check(Backbone(name=name), WHOLE, {}) == set()
    assert check(Backbone(name=name, dtype="bfloat16"), CLASSES, {})
    assert check(Backbone(name=name), CLASSES, PACKED)


def test_holding_leaves_no_trace(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "0")
    wanted = reading(Backbone(name=str(models.folder("bert"))))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = torch.get_rng_state(), random.getstate()
        hold(wanted)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert os.environ["HF_DEACTIVATE_ASYNC_LOAD"] == "0"


@pytest.mark.parametrize("draw", [torch.rand, lambda n: random.random(), lambda n: np.random.rand()], ids=["torch", "python", "numpy"])
def test_a_model_that_draws_otherwise_while_it_is_read_is_not_held(
    models: Models, monkeypatch: pytest.MonkeyPatch, draw: Callable[[int], object]
) -> None:
    wanted = reading(Backbone(name=str(models.folder("bert"))))
    monkeypatch.setattr(held, "from_files", lambda each: (draw(1), from_files(each))[1])
    with pytest.raises(NotHeldError, match="does not draw its fresh weights the same way"):
        hold(wanted)


def test_a_copy_that_was_changed_is_not_given_out(models: Models) -> None:
    copy = hold(reading(Backbone(name=str(models.folder("bert")))))
    weight = copy.read[0].get_parameter("bert.embeddings.word_embeddings.weight")
    with torch.no_grad():
        weight[3, 3] += 1
    with pytest.raises(NotHeldError, match="was changed"):
        copy.take()


def test_another_model_has_another_identity(models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(models.folder("llama")).save_pretrained(folder)
    backbone = Backbone(name=str(folder))
    first = reading(backbone)
    others = [
        reading(Backbone(name=str(folder), dtype="bfloat16")), reading(Backbone(name=str(folder), attention="eager")),
        reading(backbone, WHOLE), reading(backbone, (CLASSES[0], {"num_labels": 4})), reading(backbone, CLASSES, PACKED),
    ]  # fmt: skip
    assert len({identity(each) for each in (first, *others)}) == 6
    assert identity(first) == identity(reading(backbone))
    before = identity(first)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert identity(first) != before


def test_what_cannot_be_told_apart_or_lies_elsewhere_is_not_held(models: Models) -> None:
    known = reading(Backbone(name=str(models.folder("bert"))))

    def other(location: str = known.location, **arguments: object) -> Reading:
        return Reading(auto_class=known.auto_class, location=location, config=known.config, arguments={**known.arguments, **arguments})

    for wanted, why in (
        (other(location="org/name"), "revision is not known"), (other(odd=object()), "cannot be compared"),
        (other(device_map={"": torch.device("cuda", 0)}), "read onto cuda:0"),
    ):  # fmt: skip
        with pytest.raises(NotHeldError, match=why):
            hold(wanted)


def trial(folder: Path, rate: float = 1.0, tuning: str = "LoRA") -> list[str]:
    return ["fit", "--model.backbone.name", str(folder), "--model.tuning", tuning, "--model.optimizer.lr", str(rate)]


def test_trials_of_a_kind_differ_in_what_a_study_varies(models: Models) -> None:
    folder = models.folder("bert")
    assert kind(trial(folder)) == kind([*trial(folder, rate=2.0), "--plugin", "some.py", "--resume", "auto", "--model.tuning.r", "3"])
    assert len({kind(trial(folder)), kind(trial(folder, tuning="Full")), kind(trial(models.folder("llama")))}) == 3
    assert kind(["fit", "--config", "no.yaml"]) == ""


def test_what_is_read_otherwise_than_expected_is_not_held_any_more(models: Models, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    words, own = trial(models.folder("bert")), Shelf(frozenset())
    backbone = Backbone(name=str(models.folder("bert")))
    first, second = reading(backbone), reading(backbone, (CLASSES[0], {"num_labels": 7}))

    def read(each: Reading) -> bool:
        own.prepare(words)
        caplog.clear()
        own._answer(each)
        own._remember(kind(words), each)
        return "read for an earlier trial" in caplog.text

    assert [read(each) for each in (first, first, first)] == [False, True, True]
    assert [read(each) for each in (second, first, second)] == [False, False, False]


def test_why_a_base_is_not_held_is_said_once(models: Models, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO")
    words, own = trial(models.folder("bert")), Shelf(frozenset())
    wanted = reading(Backbone(name=str(models.folder("bert"))))
    own._remember(kind(words), wanted)

    def fail(each: Reading) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(shelf, "hold", fail)
    said = []
    for _ in range(2):
        own.prepare(words)
        caplog.clear()
        own._answer(wanted)
        own._read = None
        said.append(caplog.text.count("read anew for each trial: MemoryError: no room"))
    assert said == [1, 0]
