"""Trials that begin with everything imported: a process that has done so once forks each of them, and no more than that.

The process is the worker's own, but not the worker: a worker has threads, connections to a storage and locks that a fork would inherit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from ftlab.errors import StorageError

_PATIENCE = 10.0
"""Seconds that the process has to leave by itself."""
_RANKS = frozenset({
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES",
    "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_JOB_NUM_NODES",
})  # fmt: skip
"""Variables by which Lightning takes a process for one rank of several that srun or torchrun has started."""
_STEPS = ("SLURM_STEP_", "TORCHELASTIC_", "JSM_NAMESPACE_", "OMPI_COMM_WORLD_", "PMI_", "PMIX_")
"""How more of them begin, also those of jsrun and mpirun."""


class Start(NamedTuple):
    """Asks for a trial: number, what follows `ftlab`, where its output goes, what differs in its environment."""

    number: int
    words: list[str]
    log: str
    environment: dict[str, str]


class Signal(NamedTuple):
    """Asks for a signal to a trial and whatever it started."""

    number: int
    signal: int


class Forked(NamedTuple):
    """Says that a trial has begun, and when by the monotonic clock, which the processes of a machine share."""

    number: int
    moment: float


class Ended(NamedTuple):
    """Says how a trial ended: exit code, or minus the signal that ended it; seconds of processor time."""

    number: int
    code: int
    cpu_seconds: float


class Child:
    """One trial, made by `Warm.start`.

    Args:
        warm: What started it.
        number: Its number there.
    """

    forked: float | None = None
    """When it began, by the monotonic clock; None while it waits for the imports and the base, and where it never began."""

    def __init__(self, warm: Warm, number: int) -> None:
        self._warm = warm
        self._number = number
        self._ended: Ended | None = None

    def poll(self) -> int | None:
        """None while it runs; then its exit code, or minus the number of the signal that ended it."""
        if self._ended is None:
            self._warm.hear()
        return None if self._ended is None else self._ended.code

    def cpu_seconds(self) -> float | None:
        """Processor time of the trial and what it waited for, from the fork on; None while it runs, or where nobody could tell."""
        return None if self.poll() is None or self._ended is None or self._ended.cpu_seconds < 0 else self._ended.cpu_seconds

    def terminate(self) -> None:
        """Ask it to leave: it finishes its step and saves a checkpoint."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything that it started; before its fork, the process that should fork it, and so all trials."""
        if self.poll() is None and self.forked is None:
            self._warm.close()
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.poll() is None:
            self._warm.tell(Signal(self._number, number))

    def end(self, ended: Ended) -> None:
        """Note how it ended; `Warm` hears of it."""
        self._ended = ended


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run of its own, whatever has started the runner.

    Args:
        environment: The runner's.
    """
    return {name: value for name, value in environment.items() if name not in _RANKS and not name.startswith(_STEPS)}


class Warm:
    """Starts trials; the first one waits for the imports, which are then there for all.

    A trial that crashes harms nothing else. Where the forking process itself dies, its trials die with it and the next start makes another.
    When the worker closes this or dies, trials that still run are killed.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._far: Connection | None = None
        self._running: dict[int, Child] = {}
        self._count = 0

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Child:
        """Run `ftlab <words>` in a fresh fork.

        Args:
            words: What follows `ftlab`.
            log: Its standard output and error are appended there.
            environment: Variables that it has beside those of this process; it is no rank of what this process may be a rank of.

        Raises:
            StorageError: The log cannot be written.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.open("ab").close()
        except OSError as error:
            raise StorageError(f"{log} cannot be written ({error.strerror}); free space, or choose another folder.") from error
        self.hear()
        if self._process is None:
            self._begin()
        self._count += 1
        child = self._running[self._count] = Child(self, self._count)
        self.tell(Start(self._count, list(words), str(log.absolute()), dict(environment or {})))
        return child

    def _begin(self) -> None:
        self._far, near = Pipe()
        command = [sys.executable, "-P", "-c", f"from ftlab.studies.zygote import main; main({near.fileno()})"]
        # A session of its own: Ctrl-C reaches the runner, which decides what becomes of the trials.
        self._process = subprocess.Popen(
            command, env=alone(os.environ), pass_fds=[near.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        near.close()

    def tell(self, message: Start | Signal) -> None:
        """Send a message to the forking process."""
        try:
            assert self._far is not None
            self._far.send(message)
        except OSError:  # it is gone, and with it its trials
            self.close()

    def hear(self) -> None:
        """Take in which trials have begun and ended."""
        try:
            while self._far is not None and self._far.poll():
                heard: Forked | Ended = self._far.recv()
                if isinstance(heard, Forked):
                    self._running[heard.number].forked = heard.moment
                else:
                    self._running.pop(heard.number).end(heard)
        except (EOFError, OSError):
            self.close()

    def close(self) -> None:
        """End the forking process and what it still runs."""
        if self._far is not None:
            self._far.close()  # it sees the end of the file, kills its trials and leaves
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                with suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._far = self._process = None
        for number, child in self._running.items():
            child.end(Ended(number, -signal.SIGKILL, -1.0))
        self._running.clear()
