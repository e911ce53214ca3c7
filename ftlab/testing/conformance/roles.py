"""Run as a program by `server`: does what checks ask for, each request in processes forked from one that has built nothing."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ftlab import registry
from ftlab.quiet import quiet
from ftlab.testing.conformance import reopening, runs
from ftlab.testing.conformance.check import BrokenError
from ftlab.testing.conformance.server import MATERIAL, SUBJECT
from ftlab.testing.conformance.sources import elsewhere as sources
from ftlab.testing.conformance.tasks import elsewhere as tasks

Role = Callable[[Any, dict[str, Any], Path], None]

ROLES: dict[str, Role] = {
    "restore": reopening.restore,
    "reopen": reopening.reopen,
    "yaml": reopening.through_yaml,
    "precision": runs.precision,
    "hooks": runs.hooks,
    "fit": runs.resumable,
    "ddp": runs.two_ranks,
    "fsdp2": runs.sharded,
    "encode": tasks.encode,
    "run": tasks.run,
    "resume_rows": sources.resume,
    "share_rows": sources.share,
    "same_fingerprint": sources.same_fingerprint,
}
_LATE = (
    "ftlab.cli",
    "bitsandbytes",
    "peft",
    "torch._dynamo",
    *(f"transformers.models.{f}.modeling_{f}" for f in ("bert", "gpt2", "llama")),
)
"""What is imported on first use, and would be by every fork."""
_PATIENCE = 300.0
"""Seconds after which a process is taken to hang."""


def main() -> None:
    """Answer requests, one line of JSON each, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a role prints must not end up among the answers
    quiet()
    for name in _LATE:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line))), file=answers, flush=True)


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        notes = [Path(folder) / str(rank) for rank in range(request["ranks"])]
        children = [_fork(request, rank, note) for rank, note in enumerate(notes)]
        codes, cpu = _wait(children)
        return {"codes": codes, "said": [n.read_text() if n.exists() else "" for n in notes], "cpu": cpu}


def _wait(children: list[int]) -> tuple[list[int], float]:
    """Exit codes and CPU seconds; once a process fails or takes too long, the others are ended too."""
    ended: dict[int, int] = {}
    cpu, until = 0.0, time.monotonic() + _PATIENCE
    while len(ended) < len(children):
        for child in (c for c in children if c not in ended):
            found, status, usage = os.wait4(child, os.WNOHANG)
            if found:
                ended[child] = os.waitstatus_to_exitcode(status)
                cpu += usage.ru_utime + usage.ru_stime
                until = until if ended[child] == 0 else min(until, time.monotonic() + 5)
        if time.monotonic() > until:
            for child in (c for c in children if c not in ended):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return [ended[c] for c in children], cpu


def _fork(request: dict[str, Any], rank: int, note: Path) -> int:
    child = os.fork()
    if child:
        return child
    os.environ.update(
        FTLAB_CACHE=request["folder"], MASTER_ADDR="127.0.0.1", MASTER_PORT=str(request["port"]),
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(request["ranks"]), NODE_RANK="0",
    )  # fmt: skip
    code = 1
    try:
        _act(request)
        code = 0
    except BrokenError as error:
        note.write_text(str(error))
    except BaseException as error:
        note.write_text(f"{type(error).__name__}: {error}")
        traceback.print_exc(file=(note.parent / f"{rank}.trace").open("w"))
    finally:
        os._exit(code)


def _act(request: dict[str, Any]) -> None:
    sys.path[:] = request["path"]
    for target in request["plugins"]:
        registry.use(target)
    folder = Path(request["folder"])
    with (folder / SUBJECT).open("rb") as file:
        subject = pickle.load(file)  # written by the process that asks
    ROLES[request["role"]](subject, torch.load(folder / MATERIAL, weights_only=True), folder)


if __name__ == "__main__":
    main()
