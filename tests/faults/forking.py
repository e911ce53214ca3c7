"""Run as a program: `ftlab` in a fresh fork for every line of stdin, so that the imports are paid for once.

Arguments: the modules to import first. A request and its answer are one line of JSON each.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import tempfile
import traceback
from typing import Any, BinaryIO


def _leave_out(target: str) -> None:
    """Put nothing in the place of `module:Class.function`, for a negative control."""
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    assert callable(getattr(owner, name)), target
    setattr(owner, name, lambda *values, **named: None)


def _child(request: dict[str, Any], out: BinaryIO, err: BinaryIO, report: BinaryIO) -> None:
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


if __name__ == "__main__":
    main()
