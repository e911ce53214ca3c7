"""Several runs on one backbone: each is what it is alone, and the backbone is held once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ftlab import AdapterBank, load
from ftlab.errors import ConfigError
from ftlab.export import export_run
from ftlab.model_card import Facts
from ftlab.strategies.base import TuningStrategy
from ftlab.strategies.compose import Compose
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from tests.unit.exports import BERT, CLASSES, ids, logits, trained

RUNS: dict[str, TuningStrategy] = {
    "low": LoRA(r=4),
    "all": Full(),
    "norms": Compose(strategies=[LoRA(r=2, target_modules=["query"]), Full(pattern=".*LayerNorm.*")]),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bank")
    for name, tuning in RUNS.items():
        export_run(trained(tuning, BERT, CLASSES), root / name, Facts())
    return {name: root / name for name in RUNS}


@pytest.fixture(scope="module")
def bank(folders: dict[str, Path]) -> AdapterBank:
    filled = AdapterBank()
    for name, folder in folders.items():
        filled.add(name, folder)
    return filled


def test_every_run_is_what_it_is_alone(bank: AdapterBank, folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        alone = logits(load(folder).model, ids(BERT))
        assert torch.equal(logits(bank.use(name), ids(BERT)), alone)
    assert len({float(logits(bank.use(name), ids(BERT)).sum()) for name in bank}) == len(RUNS)


def test_rows_of_one_batch_go_to_their_own_runs(bank: AdapterBank) -> None:
    inputs = {"input_ids": torch.cat([ids(BERT), ids(BERT)])}
    names = ["norms", "low", "all", "low"]
    found = bank.logits(inputs, names)
    for row, name in enumerate(names):
        torch.testing.assert_close(found[row], logits(bank.use(name), inputs["input_ids"][row : row + 1])[0], rtol=0, atol=1e-6)


def test_what_is_equal_is_held_once(bank: AdapterBank, folders: dict[str, Path]) -> None:
    sizes = {name: sum(p.numel() * p.element_size() for p in load(folder).model.parameters()) for name, folder in folders.items()}
    assert bank.bytes() < sizes["all"] + 0.4 * sizes["low"] + sizes["norms"]
    low = {p.data_ptr() for p in bank.use("low").parameters()}
    shared = [p for p in bank.use("norms").parameters() if p.data_ptr() in low]
    assert sum(p.numel() for p in shared) > 0.9 * sum(p.numel() for p in bank.use("norms").parameters()) - 10_000


def test_forgetting_a_run(folders: dict[str, Path]) -> None:
    one = AdapterBank()
    one.add("a", folders["low"])
    alone = one.bytes()
    one.add("b", folders["norms"])
    before = logits(one.use("a"), ids(BERT))
    one.remove("b")
    assert one.bytes() == alone
    assert torch.equal(logits(one.use("a"), ids(BERT)), before)
    with pytest.raises(ConfigError, match=r"the bank has no 'b'; allowed: a"):
        one.use("b")
    with pytest.raises(ConfigError, match=r"the bank has 'a' already"):
        one.add("a", folders["low"])
