"""The process behind `Warm`: it imports what a trial needs, then forks one process per trial and does nothing else.

A fork takes over one thread and nothing of the others but their locks. So here no thread
runs, no pool of OpenMP or of the tokenizers, and no CUDA context exists.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import importlib.util
import io
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import IO, TYPE_CHECKING, NamedTuple, NoReturn

from ftlab.studies.warm import Ended, Forked, Signal, Start

if TYPE_CHECKING:
    from ftlab.studies.shelf import Shelf

EARLY = ("ftlab.cli", "ftlab.commands.resume", "ftlab.commands.trainer")
"""What `ftlab fit` imports before it reads its configuration."""
LATE = ("transformers.modeling_utils", "peft")
"""What most fits import later."""
_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""With it torch asks the driver's library whether there is a GPU, without beginning to use one."""
_DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""
_REFUSED = 6


class Running(NamedTuple):
    """A trial: what it was started with, its process, and where it leaves what the next one can be spared."""

    start: Start
    pid: int
    lesson: IO[bytes]


class Zygote:
    """Forks trials for one worker.

    Args:
        worker: The connection to it.
    """

    def __init__(self, worker: Connection) -> None:
        self.worker = worker
        self.running: dict[int, Running] = {}
        self.shelf: Shelf
        self.ended, self._wake = os.pipe()

    def run(self) -> None:
        """Import, then do what the worker asks until it is gone."""
        os.set_blocking(self._wake, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only so that the wake-up below is written
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        early = preload()
        from ftlab.studies.shelf import Shelf

        self.shelf = Shelf(early)
        with suppress(EOFError, ConnectionError):  # the worker is gone
            while True:
                ready = wait([self.worker, self.ended])
                if self.ended in ready:
                    os.read(self.ended, 4096)
                    self._reap()
                if self.worker in ready:
                    self._do(self.worker.recv())
        for trial in self.running.values():
            _signal(trial.pid, signal.SIGKILL)

    def _do(self, message: Start | Signal) -> None:
        if isinstance(message, Signal):
            if message.number in self.running:
                _signal(self.running[message.number].pid, message.signal)
            return
        self.shelf.prepare(message.words)
        reason = unsafe()
        if reason:
            with open(message.log, "a", encoding="utf-8") as file:
                print(f"ftlab: error: {reason}", file=file)
            self.worker.send(Ended(message.number, _REFUSED, 0.0))
            return
        lesson = _shared_file()
        gc.collect()
        gc.freeze()  # a collection in a trial would write to, and so copy, every page that has an object
        parent, moment = os.getpid(), time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._become(message, parent, lesson)
        with suppress(OSError):  # the child does the same; whoever is first, a signal to the group finds it
            os.setpgid(pid, pid)
        self.running[message.number] = Running(message, pid, lesson)
        self.worker.send(Forked(message.number, moment))

    def _become(self, message: Start, parent: int, lesson: IO[bytes]) -> NoReturn:
        """The rest of the life of a fork."""
        code = 1
        try:
            os.setpgid(0, 0)
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
            if os.getppid() == parent:  # else it died before it could take us along
                signal.set_wakeup_fd(-1)
                for descriptor in (self.worker.fileno(), self.ended, self._wake):
                    os.close(descriptor)
                begin_afresh(message)
                self.shelf.serve()
                code = live(message.words)
                self.shelf.report(lesson)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        for number, (start, pid, lesson) in list(self.running.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            _signal(pid, signal.SIGKILL)  # what it has left behind; until it is waited for, its number is nobody else's
            _, status, used = os.wait4(pid, 0)
            del self.running[number]
            self.worker.send(Ended(number, os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime))
            with lesson:
                self.shelf.learn(start.words, lesson)


def preload() -> frozenset[str]:
    """Import what every fit needs.

    Returns:
        The modules that a fit has imported when it reads its configuration.
    """
    os.environ[_NVML] = "1"
    gc.disable()  # imports make a million objects, none of them garbage
    from ftlab.quiet import quiet

    for name in EARLY:
        importlib.import_module(name)
    quiet()
    early = frozenset(sys.modules)
    for name in LATE:
        importlib.import_module(name)
    gc.enable()
    return early


def threads() -> int:
    """Threads of this process; 1 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def unsafe() -> str:
    """Why this process must not be forked now; empty where it may."""
    import torch

    if torch.cuda.is_initialized():
        return "a trial cannot be forked because CUDA is in use where nothing may use it; do not start CUDA while a module is imported."
    names = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    _settle()
    others = threads() - 1
    if names or others:
        what = ", ".join(names) or f"{others} of a library"
        return f"a trial cannot be forked because other threads run ({what}); do not start threads while a module is imported."
    return ""


def _settle() -> None:
    """Fork for nothing: OpenBLAS ends its threads before a fork, and begins anew when it is used; those of OpenMP stay, and would hang."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def begin_afresh(message: Start) -> None:
    """Make of a fork what a process looks like that a shell has started."""
    import numpy as np
    import torch

    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(message.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a crash loses nothing that was said
    os.environ.pop(_NVML, None)
    os.environ.update(message.environment)
    sys.argv = ["ftlab", *message.words]
    # By this name Lightning starts further ranks.
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("ftlab.__main__")
    random.seed()
    np.random.seed()
    torch.seed()


def live(words: list[str]) -> int:
    """Run the command, and what it wants done when the interpreter ends; the interpreter itself is left as it is.

    Returns:
        The exit code.
    """
    from ftlab.main import main

    code = main(words)
    threading._shutdown()  # type: ignore[attr-defined]  # what `multiprocessing` does in its forks as well
    atexit._run_exitfuncs()  # W&B writes the end of a run here
    return code


def _shared_file() -> IO[bytes]:
    """A file without a name; a pipe would have a trial wait that says much."""
    try:
        return tempfile.TemporaryFile()
    except OSError:  # no room: nothing is learnt from this trial
        return io.BytesIO()


def _signal(pid: int, number: int) -> None:
    with suppress(OSError):  # it has ended by itself
        os.killpg(pid, number)


def main(descriptor: int) -> None:
    """Serve the worker at the other end of a connection.

    Args:
        descriptor: Of the connection's file.
    """
    Zygote(Connection(descriptor)).run()
