"""Two processes that train one model."""

from __future__ import annotations

import torch

from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import alike, check, require
from ftlab.testing.conformance.subject import Subject, descent
from ftlab.testing.conformance.taught import teach
from ftlab.testing.conformance.tensors import few, snapshot, trainable


@check("float32", "same_seed")
def ddp(subject: Subject) -> None:
    """Two ranks under DDP end with the same bits, and no parameter is left unused.

    A parameter that no loss reaches stops DDP in its second step; what a hook draws or counts by itself makes the ranks drift apart.
    """
    folder = server.call("ddp", subject, ranks=2)
    first, second = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    apart = {name for name, t in first.items() if not torch.equal(t, second[name])}
    require(not apart, f"after three steps the ranks differ in {few(apart)}")


@check("ddp")
def fsdp2(subject: Subject) -> None:
    """Two ranks that each hold half of every tensor (`fully_shard`) learn what one process does.

    A hook or closure that keeps a parameter holds the whole old one, while the sharded one is trained.
    """
    module = subject.module()
    teach(module, descent)
    expected = snapshot(module.adapted)
    folder = server.call("fsdp2", subject, ranks=2)
    found = torch.load(folder / "rank0.pt", weights_only=True)
    for name in trainable(module.adapted):
        require(name in found, f"sharded, the model has no '{name}'")
        alike(expected[name], found[name], 1e-4, f"sharded, '{name}' learns something else")
