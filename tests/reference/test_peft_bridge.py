"""Every bridged method against a hand-written loop with plain PEFT: outputs, gradients, five steps, and the folder that is written."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ftlab.adapter_check import open_adapter
from ftlab.adapters import without_notice
from ftlab.batch import Batch
from ftlab.export import put
from ftlab.strategies.base import NotMergeableError
from ftlab.strategies.peft_bridge import NATIVE, UNMERGEABLE, Peft
from ftlab.strategies.peft_loop import bridge_of
from ftlab.testing.models import tiny_model_folder
from tests.reference.peft_cases import CASES, VARIANTS, Case

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::UserWarning:torch", "ignore::FutureWarning:peft")

IDS = torch.tensor([[0, 15, 19, 40, 7, 13], [0, 18, 18, 12, 90, 20]])
LABELS = torch.tensor([0, 1])
STEPS = 5
_models: dict[bool, nn.Module] = {}


def load_bases(folder: Path) -> None:
    """A tiny decoder and a tiny classifier, read once."""
    torch.manual_seed(0)
    _models[False] = AutoModelForCausalLM.from_pretrained(tiny_model_folder("llama", folder / "llama"))
    _models[True] = AutoModelForSequenceClassification.from_pretrained(tiny_model_folder("bert", folder / "bert"))


@pytest.fixture(scope="module", autouse=True)
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    load_bases(tmp_path_factory.mktemp("bases"))
    yield
    _models.clear()


def base(encoder: bool) -> nn.Module:
    return copy.deepcopy(_models[encoder]).eval()


def batch(encoder: bool) -> Batch:
    labels = LABELS if encoder else IDS.clone().index_fill(1, torch.tensor([0]), -100)
    head = "label" if encoder else "lm"
    return Batch(inputs={"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}, labels={head: labels}, rows=torch.arange(2))


def by_ftlab(case: Case, encoder: bool) -> tuple[Peft, nn.Module]:
    torch.manual_seed(0)
    strategy = Peft(method=case.method, options=case.on(encoder))
    return strategy, strategy.apply(base(encoder), {})


def by_peft(case: Case, encoder: bool) -> Any:
    """PEFT's tuner: where no kind of task is named, the class around it passes the tuner's own forward by, and its losses with it."""
    torch.manual_seed(0)
    fields: dict[str, Any] = dict(case.on(encoder))
    if case.method == "ADALORA":
        fields["total_step"] = STEPS
    return get_peft_model(base(encoder), PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[case.method]](**fields)).base_model


def trainables(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def spread(model: nn.Module) -> None:
    """Half of the methods start at zero, where the other half of their tensors has no gradient."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainables(model):
            parameter.add_(torch.randn_like(parameter), alpha=0.02)


def logits(model: nn.Module, case: Case | None = None) -> Tensor:
    extra = {"task_ids": torch.zeros(2, dtype=torch.long)} if case is not None and case.method == "POLY" else {}
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=IDS, **extra).logits
    return found


def steps_of_ftlab(strategy: Peft, model: nn.Module, given: Batch) -> list[float]:
    """What FinetuneModule does with a strategy."""
    torch.manual_seed(2)
    optimizer = torch.optim.AdamW(trainables(model), lr=1e-2)
    losses = []
    for step in range(1, STEPS + 1):
        out = model(**given.inputs, labels=next(iter(given.labels.values())))
        loss = out.loss + sum(strategy.extra_losses(model, out, given).values())
        losses.append(loss.item())
        loss.backward()
        strategy.on_gradients(model, step - 1)
        optimizer.step()
        strategy.on_step(model, step, STEPS)
        optimizer.zero_grad()
    return losses


def steps_of_peft(case: Case, model: Any, given: Batch) -> list[float]:
    """The loop that PEFT's documentation asks for."""
    torch.manual_seed(2)
    optimizer = torch.optim.AdamW(trainables(model), lr=1e-2)
    extra = {"task_ids": torch.zeros(2, dtype=torch.long)} if case.method == "POLY" else {}
    losses = []
    for step in range(1, STEPS + 1):
        loss = model(**given.inputs, labels=next(iter(given.labels.values())), **extra).loss
        if "kasa_config" in case.options:
            loss = loss + model._get_kasa_loss()
        if "monteclora_config" in case.options:
            loss = loss + model._get_monteclora_loss()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        if case.method in ("ADALORA", "ADAMSS"):
            model.update_and_allocate(step)
        optimizer.zero_grad()
    return losses


def close(some: Tensor, other: Tensor, tolerance: float) -> bool:
    some, other = some.detach(), other.detach()
    return float((some - other).norm()) <= tolerance * max(1.0, float(other.norm()))


PAIRS = [pytest.param(c, e, id=f"{c}-{'encoder' if e else 'decoder'}") for c in CASES for e in (False, True) if c.encoder or not e]
WITHOUT_DATA = [c for c in VARIANTS if c.options.get("init_lora_weights") not in ("eva", "corda", "lora_ga", "loftq")]


@pytest.mark.parametrize(("case", "encoder"), [*PAIRS, *(pytest.param(c, False, id=str(c)) for c in WITHOUT_DATA)])
def test_same_as_peft(case: Case, encoder: bool, tmp_path: Path) -> None:
    strategy, mine = by_ftlab(case, encoder)
    theirs = by_peft(case, encoder)
    assert close(logits(mine), logits(theirs, case), 1e-6)
    assert close(logits(mine), logits(base(encoder)), 1e-5) == case.starts_at_base
    spread(mine)
    spread(theirs)
    pairs = list(zip(trainables(mine), trainables(theirs), strict=True))
    assert all(torch.equal(some, other) for some, other in pairs)
    given = batch(encoder)
    mine.train()
    theirs.train()
    assert steps_of_ftlab(strategy, mine, given) == pytest.approx(steps_of_peft(case, theirs, given), rel=1e-5)
    for number, (some, other) in enumerate(pairs):
        assert close(some, other, 1e-4), number
    after = logits(mine)
    assert close(after, logits(theirs, case), 1e-5)
    assert opens_again(strategy, mine, case, encoder, tmp_path) == (case.method not in NATIVE)


def opens_again(strategy: Peft, model: nn.Module, case: Case, encoder: bool, folder: Path) -> bool:
    """Whether plain PEFT opens the export; the outputs must then be equal."""
    strategy.save(model, folder)
    if not (folder / "adapter_config.json").exists():
        return False
    torch.manual_seed(9)
    with without_notice():
        opened = open_adapter(base(encoder), folder) if encoder else PeftModel.from_pretrained(base(encoder), folder)
    assert close(logits(opened), logits(model), 1e-5)
    return True


def copied(strategy: Peft, model: nn.Module, encoder: bool) -> nn.Module:
    """What another process would have: the model made anew under another seed, and the owned tensors."""
    torch.manual_seed(77)
    other = strategy.apply(base(encoder), {})
    assert strategy.owned(other) == strategy.owned(model)
    put(other, {name: t for name, t in model.state_dict().items() if name in strategy.owned(model)})
    return other


@pytest.mark.parametrize("case", [*CASES, *WITHOUT_DATA], ids=str)
def test_owned_tensors_are_the_whole_result_and_merge_to_it(case: Case) -> None:
    strategy, model = by_ftlab(case, False)
    spread(model)
    for step in range(1, STEPS + 1):  # what is remembered of the run counts too
        model(input_ids=IDS, labels=IDS).loss.backward()
        strategy.on_step(model, step, STEPS)
    expected = logits(model)
    other = copied(strategy, model, False)
    assert close(logits(other), expected, 1e-6)
    if case.method in UNMERGEABLE or case.method == "BEFT":  # the maps of a Llama have no bias to add to
        with pytest.raises(NotMergeableError):
            strategy.merge(other)
        return
    merged = strategy.merge(other)
    assert merged.state_dict().keys() == base(False).state_dict().keys()
    assert close(logits(merged), expected, 1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if c.method in ("ADALORA", "ADAMSS")], ids=str)
def test_a_resumed_run_is_the_same_run(case: Case) -> None:
    strategy, model = by_ftlab(case, False)
    spread(model)
    ends = []
    for stop in (0, 3):
        other, optimizer = model, torch.optim.SGD(trainables(model), lr=0.1)
        state = copy.deepcopy(model.state_dict())
        for step in range(1, 5):
            if step == stop:
                other = copied(strategy, other, False)
                optimizer = torch.optim.SGD(trainables(other), lr=0.1)
            other(input_ids=IDS, labels=IDS).loss.backward()
            strategy.on_gradients(other, step - 1)
            optimizer.step()
            strategy.on_step(other, step, 6)
            optimizer.zero_grad()
        ends.append({name: t.clone() for name, t in other.state_dict().items()})
        model.load_state_dict(state)
        bridge_of(model).config.rank_pattern = None
    assert all(torch.equal(t, ends[1][name]) for name, t in ends[0].items())
