"""`ftlab` in processes that die: started by a fork that has paid for the imports, ended by signals from outside or at an exact call.

Run as a program it is the server: one line of JSON in, one out; `start` forks and gives the process, `wait` gives its exit code.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
        error: Raise a RuntimeError in place of the signal.
        errno: Raise this error of the system in place of the signal.
        times: At how many calls in a row.
    """

    target: str
    signal: int = 9
    call: int = 1
    after: bool = False
    error: bool = False
    errno: int = 0
    times: int = 1

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
            due = self.call <= calls < self.call + self.times
            if due and not self.after:
                self._happen()
            result = original(*values, **named)
            if due and self.after:
                self._happen()
            return result

        return hooked

    def _happen(self) -> None:
        if self.error:
            raise RuntimeError("as the test wants it")
        if self.errno:
            raise OSError(self.errno, os.strerror(self.errno))
        os.kill(os.getpid(), self.signal)


def _nothing(*values: Any, **named: Any) -> None:
    return None


def _obey_modes() -> None:
    """Give up root's right to write where the mode of a folder forbids it, so that chmod binds whoever runs the tests."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # linux/capability.h, version 3
    assert libc.capget(header, data) == 0
    for place in range(3):  # effective, permitted, inheritable
        data[place] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, data) == 0


def _child(request: dict[str, Any]) -> None:
    os.setsid()
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(request["folder"])
    os.environ.update(request["env"])
    tempfile.tempdir = None  # TMPDIR may be another now
    if request["modes"]:
        _obey_modes()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has it start without
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
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
    os._exit(0)  # to take torch's modules apart takes a second


@dataclass(frozen=True)
class Process:
    """A started `ftlab`.

    Args:
        pid: The process, which leads a session of its own.
        out: The file that holds what it printed.
        reap: Waits for its end and gives the exit code, negative for a signal.
    """

    pid: int
    out: Path
    reap: Callable[[], int]

    @property
    def text(self) -> str:
        return self.out.read_text(encoding="utf-8", errors="replace")

    def state(self) -> str:
        """One letter of the kernel's; nobody has reaped it, so its number is still its own."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def dead(self) -> bool:
        return self.state() == "Z"

    def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Wait for a condition; False where the process ended before."""
        begun = time.monotonic()
        while not condition():
            if self.dead():
                return condition()
            if time.monotonic() - begun > patience:
                os.killpg(self.pid, 9)
                self.reap()
                raise AssertionError(f"hangs: {self.text[-2000:]}")
            time.sleep(0.001)
        return True

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit code; a process that hangs is killed and fails the test."""
        self.until(self.dead, patience)
        return self.reap()

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)


class Forker:
    """Starts `ftlab` with arguments; see `Hook` for what can happen to it.

    `modes` keeps a child of root from writing where the mode of a folder forbids it; `ignored` are signals it was started without.
    """

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self.server = server

    def start(
        self,
        folder: Path,
        arguments: Sequence[str],
        env: dict[str, str] | None = None,
        hooks: Sequence[Hook] = (),
        out: str = "out.txt",
        modes: bool = False,
        ignored: Sequence[int] = (),
    ) -> Process:
        request = {"folder": str(folder), "arguments": list(arguments), "env": env or {}, "hooks": [asdict(h) for h in hooks]}
        pid = self._ask({**request, "out": str(folder / out), "modes": modes, "ignored": list(ignored)})
        return Process(pid, folder / out, lambda: self._ask({"wait": pid}))

    def run(
        self,
        folder: Path,
        arguments: Sequence[str],
        env: dict[str, str] | None = None,
        hooks: Sequence[Hook] = (),
        out: str = "out.txt",
        modes: bool = False,
        ignored: Sequence[int] = (),
    ) -> tuple[int, str]:
        """Exit code and what was printed."""
        process = self.start(folder, arguments, env, hooks, out, modes, ignored)
        before = len(process.text) if process.out.exists() else 0
        code = process.wait()
        return code, process.text[before:] if before <= len(process.text) else process.text

    def ranks(
        self,
        folder: Path,
        arguments: Sequence[str],
        env: dict[str, str] | None = None,
        hooks: Mapping[int, Sequence[Hook]] | None = None,
        modes: bool = False,
    ) -> list[Process]:
        """Two ranks of one run, as torchrun starts them but with nobody who ends the second when the first has failed."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {**(env or {}), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "faults"}
        words = [*arguments, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
        each = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        given = hooks or {}
        for rank in range(2):
            (folder / f"out{rank}.txt").unlink(missing_ok=True)
        return [self.start(folder, words, each[rank], given.get(rank, ()), f"out{rank}.txt", modes) for rank in range(2)]

    def _ask(self, request: dict[str, Any]) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())


def codes(ranks: Sequence[Process], patience: float = 60.0) -> list[int]:
    """The exit codes of all ranks of a run, which end within the catalogue's sixty seconds or fail the test."""
    try:
        return [rank.wait(patience) for rank in ranks]
    finally:
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.killpg(rank.pid, 9)


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
