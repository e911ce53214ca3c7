from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.nn.parallel import DistributedDataParallel

from ftlab import ranks
from ftlab.main import main
from ftlab.ranks import leave_group


def gloo() -> set[str]:
    """The kernel's names of gloo's threads in this process."""
    names = {task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")}
    return {name for name in names if "gloo" in name}


def finished_run() -> None:
    """A group and what a run leaves of itself: garbage that refers to it."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=HashStore())
    model = DistributedDataParallel(nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    object.__setattr__(model, "itself", model)  # as a trainer and its module refer to each other
    assert gloo()


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["nothing"], 2)], ids=["done", "error"])
def test_gloo_has_no_thread_when_the_command_line_is_done(words: list[str], code: int) -> None:
    finished_run()
    assert main(words) == code
    assert not dist.is_initialized()
    assert gloo() == set()


def test_there_may_be_no_group() -> None:
    leave_group()
    assert not dist.is_initialized()


def test_a_rank_that_fails_alone_leaves_its_open_collective(monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run()
    others_left, ended = threading.Event(), list[int]()
    monkeypatch.setattr(ranks, "_destroy", others_left.wait)
    monkeypatch.setattr(ranks, "_PATIENCE", 0.0)
    monkeypatch.setattr(os, "_exit", ended.append)
    try:
        main(["nothing"])
    finally:
        monkeypatch.undo()
        others_left.set()
        leave_group()
    assert ended == [2]
