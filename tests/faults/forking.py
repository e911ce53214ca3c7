"""`ftlab` in a fresh fork for every call, so that the imports are paid for once.

Run as a program it is the server. Arguments: the modules to import first. A request and its answer are one line of JSON each.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

PATIENCE = 300
"""Seconds after which a process is taken to hang, and ended."""


@dataclass(frozen=True)
class Result:
    """What a process left: exit code, both streams, and whether torch was imported."""

    code: int
    out: str
    err: str
    torch: bool

    @property
    def sentence(self) -> str:
        """The last line of stderr, without `ftlab: error: `; nothing on the way there may be a warning or a traceback."""
        lines = self.err.splitlines()
        assert 0 < len(lines) <= 8, self.err
        assert "Traceback" not in self.err, self.err
        assert "Warning" not in self.err, self.err
        assert lines[-1].startswith("ftlab: error: "), self.err
        return lines[-1].removeprefix("ftlab: error: ")


Run = Callable[..., Result]


@contextmanager
def served(*modules: str) -> Iterator[Run]:
    """A server that has imported `modules`, for as long as the block lasts."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, __file__, *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(folder: Path, *arguments: str, env: dict[str, str] | None = None, without: Sequence[str] = ()) -> Result:
            assert process.stdin is not None
            assert process.stdout is not None
            surroundings = {"FTLAB_CACHE": str(folder / "cache"), **(env or {})}
            request = {"folder": str(folder), "arguments": arguments, "env": surroundings, "without": without}
            print(json.dumps(request), file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            return Result(answer["code"], answer["out"], answer["err"], answer.get("torch", False))

        yield run
        process.stdin.close()


def _leave_out(target: str) -> None:
    """Put nothing in the place of `module:Class.function`, for a negative control."""
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    assert callable(getattr(owner, name)), target
    setattr(owner, name, lambda *values, **named: None)


def _child(request: dict[str, Any], out: BinaryIO, err: BinaryIO, report: BinaryIO) -> None:
    signal.alarm(PATIENCE)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.chdir(request["folder"])
    sys.path.insert(0, request["folder"])  # the worst case: what lies beside a configuration can be imported
    os.environ.update(request["env"])
    for target in request["without"]:
        _leave_out(target)
    from ftlab.main import main

    try:
        code = main(request["arguments"])
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    report.write(json.dumps({"torch": "torch" in sys.modules}).encode())
    report.flush()
    os._exit(code)


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as report:
        child = os.fork()
        if not child:
            _child(request, out, err, report)
        _, status = os.waitpid(child, 0)
        for file in (out, err, report):
            file.seek(0)
        told = json.loads(report.read() or "{}")
        return {"code": os.waitstatus_to_exitcode(status), "out": out.read().decode(), "err": err.read().decode(), **told}


def main() -> None:
    sys.argv, modules = ["ftlab"], sys.argv[1:]
    for name in modules:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line))), flush=True)
    os._exit(0)  # to take torch's modules apart takes a second


if __name__ == "__main__":
    main()
