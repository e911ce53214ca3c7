"""Processes for checks: one that has imported everything and built nothing, which forks a fresh one for each request."""

from __future__ import annotations

import atexit
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ftlab import registry
from ftlab.errors import EnvironmentFault
from ftlab.testing.conformance.check import BrokenError
from ftlab.testing.conformance.examined import Examined

SUBJECT = "subject.pickle"
MATERIAL = "material.pt"
_KILLED = -9

spent = 0.0
"""CPU seconds of the processes so far."""


def call(
    role: str,
    subject: Examined,
    material: Mapping[str, Any] | None = None,
    *,
    ranks: int = 1,
    killed: bool = False,
    folder: Path | None = None,
) -> Path:
    """Have fresh processes do something with the subject.

    Args:
        role: A name in `roles.ROLES`.
        subject: The plugin.
        material: What the role works on: tensors and plain values.
        ranks: How many processes, which find each other.
        killed: Whether the process is to die by SIGKILL.
        folder: Where an earlier call worked that this one goes on with.

    Returns:
        The folder in which they worked.

    Raises:
        BrokenError: One of them found something wrong, or did not end as it should.
    """
    global spent
    work = folder or Path(tempfile.mkdtemp(prefix=f"{role}-", dir=subject.root))
    with (work / SUBJECT).open("wb") as file:
        pickle.dump(subject.sent(), file)  # read by our own process alone
    torch.save(dict(material or {}), work / MATERIAL)
    given = [p.package for p in registry.plugins() if p.version == "-"]
    answer = _ask({"role": role, "folder": str(work), "ranks": ranks, "path": sys.path, "plugins": given, "port": _free_port()})
    spent += answer["cpu"]
    wanted = _KILLED if killed else 0
    for code, said in zip(answer["codes"], answer["said"], strict=True):
        if code != wanted:
            raise BrokenError(said or f"the process ended with {code} instead of {wanted}")
    return work


def _ask(request: Mapping[str, object]) -> dict[str, Any]:
    process, errors = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
    except (OSError, ValueError) as error:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise EnvironmentFault(f"the process that runs checks ended ({said[0]}); run the check again.") from error
    return answer


@cache
def _process() -> tuple[subprocess.Popen[str], BinaryIO]:
    """The process, started when it is first needed, and what it writes to stderr."""
    errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process runs
    # Another order of sets than here, also where a test runner has fixed it: what follows from it is no function of the rows.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "random"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[3]), environment.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    made = subprocess.Popen(
        [sys.executable, "-P", "-m", "ftlab.testing.conformance.roles"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
    )  # fmt: skip
    atexit.register(_close, made, errors)
    return made, errors


def _close(process: subprocess.Popen[str], errors: BinaryIO) -> None:
    with process, errors:  # which closes the pipes and waits
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
