"""`ftlab` in processes that die: started by a fork that has paid for the imports, ended by signals from outside or at an exact call.

Run as a program it is the server: one line of JSON in, one out; `start` forks and gives the process, `wait` gives its exit code.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

IMPORTS = ("ftlab.main", "ftlab.cli", "transformers.models.llama.modeling_llama", "peft")
PATIENCE = 300.0
"""Seconds after which a process that has not done what is waited for is taken to hang."""


@dataclass(frozen=True)
class Hook:
    """What happens at a function of the child: a signal to itself at the n-th call, or nothing where the function should be.

    Args:
        target: `module:Class.function`.
        signal: The signal; 0 leaves the function out instead.
        call: At which call, from 1.
        after: When the function has returned, not before it is called.
    """

    target: str
    signal: int = 9
    call: int = 1
    after: bool = False

    def install(self) -> None:
        module, _, path = self.target.partition(":")
        *outer, name = path.split(".")
        owner = functools.reduce(getattr, outer, importlib.import_module(module))
        original = getattr(owner, name)
        setattr(owner, name, self._wrapped(original) if self.signal else _nothing)

    def _wrapped(self, original: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        @functools.wraps(original)
        def hooked(*values: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.call and not self.after:
                os.kill(os.getpid(), self.signal)
            result = original(*values, **named)
            if calls == self.call and self.after:
                os.kill(os.getpid(), self.signal)
            return result

        return hooked


def _nothing(*values: Any, **named: Any) -> None:
    return None


def _child(request: dict[str, Any]) -> None:
    os.setsid()
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(request["folder"])
    os.environ.update(request["env"])
    tempfile.tempdir = None  # TMPDIR may be another now
    for hook in request["hooks"]:
        Hook(**hook).install()
    from ftlab.main import main

    try:
        code = main(request["arguments"])
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    """Answer requests until stdin ends."""
    sys.argv = ["ftlab"]
    for name in IMPORTS:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if not child:
            _child(request)
        print(child, flush=True)


@dataclass(frozen=True)
class Process:
    """A started `ftlab`.

    Args:
        pid: The process, which leads a session of its own.
        out: The file that holds what it printed.
        wait: Waits for its end and gives the exit code, negative for a signal.
    """

    pid: int
    out: Path
    wait: Callable[[], int]

    @property
    def text(self) -> str:
        return self.out.read_text(encoding="utf-8", errors="replace")

    def dead(self) -> bool:
        """Whether it has ended; nobody has waited for it, so its number is still its own."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for a condition; False where the process ended before."""
        begun = time.monotonic()
        while not condition():
            if self.dead():
                return condition()
            assert time.monotonic() - begun < PATIENCE, f"hangs: {self.text[-2000:]}"
            time.sleep(0.001)
        return True

    def kill(self, signal: int) -> None:
        os.kill(self.pid, signal)


class Forker:
    """Starts `ftlab` with arguments; see `Hook` for what can happen to it."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self.server = server

    def start(
        self, folder: Path, arguments: Sequence[str], env: dict[str, str] | None = None, hooks: Sequence[Hook] = (), out: str = "out.txt"
    ) -> Process:
        request = {"folder": str(folder), "arguments": list(arguments), "env": env or {}, "hooks": [asdict(h) for h in hooks]}
        pid = self._ask({**request, "out": str(folder / out)})
        return Process(pid, folder / out, lambda: self._ask({"wait": pid}))

    def run(
        self, folder: Path, arguments: Sequence[str], env: dict[str, str] | None = None, hooks: Sequence[Hook] = (), out: str = "out.txt"
    ) -> tuple[int, str]:
        """Exit code and what was printed."""
        process = self.start(folder, arguments, env, hooks, out)
        before = len(process.text) if process.out.exists() else 0
        code = process.wait()
        return code, process.text[before:] if before <= len(process.text) else process.text

    def _ask(self, request: dict[str, Any]) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())


@contextmanager
def forker() -> Iterator[Forker]:
    """A server, for as long as the block lasts."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("FTLAB_RUN_FOLDER", None)
    with subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        yield Forker(process)
        process.stdin.close()


if __name__ == "__main__":
    serve()
