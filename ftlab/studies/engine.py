"""`run_study`: a study from its file to its table, on this machine and whatever others work on it."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from ftlab.folders import try_writing
from ftlab.run_folder import write_text
from ftlab.studies.attempts import FAULTY, REFUSALS, Attempt
from ftlab.studies.identity import check_folder, settle
from ftlab.studies.job import Start
from ftlab.studies.queue import Queue
from ftlab.studies.reading import records_in
from ftlab.studies.report.tables import csv_text
from ftlab.studies.runner import HaltError, Runner
from ftlab.studies.spec import StudySpec
from ftlab.studies.storage import Lease, connect
from ftlab.studies.warm import Warm
from ftlab.studies.words import RESULTS

_GPUS = Path("/proc/driver/nvidia/gpus")
"""One entry for each; to ask torch would start CUDA here."""
_THREADS = "OMP_NUM_THREADS"
_DEVICES = "CUDA_VISIBLE_DEVICES"
_CRASHED = 6
_LISTED = 5
"""Failures that the summary names."""


def run_study(
    spec: StudySpec, folder: Path, workers: int = 1, extend: bool = False, storage: str | None = None,
    lease: Lease = Lease(), start: Start | None = None,  # noqa: B008  # frozen
) -> int:  # fmt: skip
    """Run what is missing of a study.

    Args:
        spec: What is asked.
        folder: The study's folder on this machine.
        workers: Trials at a time.
        extend: The study may have more variants and seeds than before.
        storage: URL of a database that several machines share; None for a file in the folder.
        lease: For how long a trial belongs to a runner that is not heard of.
        start: Starts a trial; None for forks of one process that has imported everything.

    Returns:
        The exit code: 0 where every trial is complete, 128 plus a signal, else that of what failed.

    Raises:
        ConfigError: The folder or the storage holds another study.
        StorageError: One of them cannot be reached or written.
    """
    check_folder(spec, folder)
    try_writing(folder)
    with ExitStack() as opened:
        with _alone(folder):  # two runners of one machine would make the tables, and add each trial, at once
            store = opened.enter_context(closing(connect(storage, folder, lease)))
            queue = Queue(store, settle(store, spec, folder, extend))
            queue.begin()
        halted = _run(queue, folder, workers, start)
        queue.refresh()
        write_text(folder / RESULTS, csv_text(records_in(store, spec.name)))
    return _summary(queue, halted, folder)


def _run(queue: Queue, folder: Path, workers: int, start: Start | None) -> HaltError | None:
    """Run what there is to run; what stopped it before its end."""
    with _threads(workers), Warm() as warm:
        try:
            Runner(queue, folder, start or warm.start, places(workers)).run()
        except HaltError as halt:
            return halt
    return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for another runner of this folder that begins as well."""
    with (folder / ".lock").open("a", encoding="utf-8") as file:
        with suppress(OSError):  # no locks here: then a trial may be added twice, and the queue closes one of them
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _threads(workers: int) -> Iterator[None]:
    """Divide the cores among workers, for as long as their processes are started; what the user has set stays."""
    if _THREADS in os.environ:
        yield
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ[_THREADS] = str(max(cores // workers, 1))
    try:
        yield
    finally:
        del os.environ[_THREADS]


def places(workers: int) -> list[dict[str, str]]:
    """The environment of each worker: a device of its own where there are several workers and any devices.

    Args:
        workers: How many.
    """
    named = os.environ.get(_DEVICES)
    devices = named.split(",") if named is not None else [str(n) for n in range(len(list(_GPUS.glob("*"))))]
    if workers == 1 or not any(devices):
        return [{} for _ in range(workers)]
    return [{_DEVICES: devices[n % len(devices)]} for n in range(workers)]


def _summary(queue: Queue, halted: HaltError | None, folder: Path) -> int:
    """Say how far the study is; its exit code."""
    standing = [one for one in map(queue.standing, queue.wanted) if one is not None]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(queue.states().items()))
    print(f"study {queue.spec.name}: {counts}; {folder / RESULTS}")
    failed = [one for one in standing if one.outcome in FAULTY]
    for one in failed[:_LISTED]:
        print(f"  {one.planned.variant} {one.planned.id}: {one.outcome}, {one.result.get('error', '')}", file=sys.stderr)
    if len(failed) > _LISTED:
        print(f"  and {len(failed) - _LISTED} more that did not end well", file=sys.stderr)
    for name in queue.untuned():
        print(f"  {name}: not compared, because no trial of its tuning was complete", file=sys.stderr)
    if halted is not None:
        raise halted
    return _code(failed, queue.untuned())


def _code(failed: Sequence[Attempt], untuned: Sequence[str]) -> int:
    """That of the failures where they agree; a crash, or what was not in time, is the environment's."""
    codes = {code if (code := one.result.get("code")) in REFUSALS else _CRASHED for one in failed}
    return codes.pop() if len(codes) == 1 else _CRASHED if codes or untuned else 0
