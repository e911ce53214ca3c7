"""Peak memory of the plain and of the chunked cross-entropy, forward and backward, each in a process of its own.

    python tests/reference/chunked_loss.py

For positions T, a vocabulary V and a width of 64 it prints the memory that a process needs on top of hidden states and head:
the plain loss grows with T × V, the chunked one does not.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys

import torch
from torch import nn
from torch.nn import functional as F

from ftlab.tasks.cross_entropy import cross_entropy_sum

WIDTH = 64
SIZES = [(512, 8192), (2048, 8192), (8192, 8192), (2048, 32768), (8192, 32768)]


def measure(kind: str, positions: int, vocabulary: int) -> float:
    """MiB by which the peak resident memory of this process rises over the loss and its backward pass."""
    torch.manual_seed(0)
    warm = torch.randn(64, WIDTH, requires_grad=True)  # the matrix library allocates its own buffers when first used
    F.cross_entropy(warm @ warm.T, torch.zeros(64, dtype=torch.long)).backward()
    head = nn.Linear(WIDTH, vocabulary, bias=False)
    hidden = torch.randn(positions, WIDTH, requires_grad=True)
    labels = torch.randint(vocabulary, (positions,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if kind == "plain":
        loss = F.cross_entropy(head(hidden), labels, reduction="sum")
    else:
        loss = cross_entropy_sum(hidden, labels, head, head, vocabulary)
    loss.backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def in_fresh_process(kind: str, positions: int, vocabulary: int) -> float:
    words = [sys.executable, __file__, "--kind", kind, "--positions", str(positions), "--vocabulary", str(vocabulary)]
    # With its moving threshold, glibc keeps freed tensors on a heap that fragments; fixed, they go back to the system.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576", "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=["plain", "chunked"])
    parser.add_argument("--positions", type=int)
    parser.add_argument("--vocabulary", type=int)
    given = parser.parse_args()
    if given.kind:
        print(measure(given.kind, given.positions, given.vocabulary))
        return
    print(f"{'T':>6} {'V':>6} {'T × V × 4 B':>12} {'plain':>10} {'chunked':>10}")
    for positions, vocabulary in SIZES:
        product = positions * vocabulary * 4 / 2**20
        plain, chunked = (in_fresh_process(kind, positions, vocabulary) for kind in ("plain", "chunked"))
        print(f"{positions:>6} {vocabulary:>6} {product:>8.0f} MiB {plain:>6.0f} MiB {chunked:>6.0f} MiB")


if __name__ == "__main__":
    main()
