"""A runner of a study in a process that may be killed; its trials are made-up fits in forks, with checkpoints and a journal."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ftlab.errors import FtlabError, StorageError
from ftlab.lock import locked
from ftlab.studies.engine import run_study
from ftlab.studies.reading import read_records
from ftlab.studies.spec import parse
from ftlab.studies.storage import Lease
from tests.unit.studies.small_study import figure, settings_of

STEPS, STEP = 4, 0.02
"""Of each trial, and seconds that one takes."""
LEASE = Lease(interval=1, grace=2)
PATIENCE = 120.0


class Fork:
    """A made-up fit in a process that dies with the runner, as those of `ftlab.studies.warm` do."""

    def __init__(self, settings: Mapping[str, Any], log: Path, journal: Path) -> None:
        self.cpu: float | None = None
        self.code: int | None = None
        self.forked: float | None = time.monotonic()
        parent = os.getpid()
        log.parent.mkdir(parents=True, exist_ok=True)
        self.pid = os.fork()
        if self.pid == 0:
            _become(settings, log, journal, parent)
        with suppress(OSError):
            os.setpgid(self.pid, self.pid)

    def poll(self) -> int | None:
        if self.code is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code, self.cpu = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        return self.code

    def cpu_seconds(self) -> float | None:
        return self.cpu

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)


def _become(settings: Mapping[str, Any], log: Path, journal: Path, parent: int) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() == parent:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                signal.signal(number, signal.SIG_DFL)
            asked: list[int] = []
            signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
            code = _fit(settings, journal, asked)
    except StorageError as error:
        log.write_text(f"ftlab: error: {error}\n")
        code = 8
    finally:
        os._exit(code)


def _fit(settings: Mapping[str, Any], journal: Path, asked: list[int]) -> int:
    """Steps with a checkpoint after each, gone on with where there is one."""
    run = Path(str(settings["run.root"])) / str(settings["run.name"]) / str(settings["run.id"])
    run.mkdir(parents=True, exist_ok=True)
    name, checkpoint = f"{run.parent.name}/{run.name}", run / "last.json"
    with locked(run):
        done = json.loads(checkpoint.read_text())["step"] if checkpoint.exists() else 0
        _note(journal, f"start {name} {done}")
        for step in range(done + 1, STEPS + 1):
            time.sleep(STEP)
            _note(journal, f"step {name} {step}")
            work = run / ".last.tmp"
            work.write_text(json.dumps({"step": step, "filler": "x" * 4096}))
            os.replace(work, checkpoint)
            if asked and step < STEPS:
                return 143
        value = figure(settings)
        (run / "metrics.jsonl").write_text(json.dumps({"step": STEPS, "val_loss": value, "val_accuracy": 1 - value}) + "\n")
        (run / "summary.json").write_text(json.dumps({"trainable_params": 7, "tokens": 21, "peak_memory_bytes": 9}))
    return 0


def _note(journal: Path, line: str) -> None:
    with journal.open("a") as file:
        file.write(f"{line}\n")


class Process:
    """A runner, forked from a server that has paid for the imports."""

    def __init__(self, arguments: Sequence[str], out: Path) -> None:
        self.out = out
        self._process = _SERVER.Process(target=_live, args=(list(arguments), str(out)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def ended(self) -> bool:
        """Whether it has."""
        return self._process.exitcode is not None

    def send(self, number: int) -> None:
        """Send a signal to the runner alone; its trials must see to their own end."""
        os.kill(self.pid, number)

    def end(self, patience: float = PATIENCE) -> tuple[int, str]:
        """Exit code and what was said; one that hangs is killed."""
        self._process.join(patience)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
        assert code is not None, f"hangs: {self.out.read_text()}"
        return code, self.out.read_text()


_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["tests.faults.study_run", "scipy.stats", "optuna.storages._rdb.models", "alembic.command", "sqlalchemy.dialects"]
)


def _live(arguments: list[str], out: str) -> None:
    os.setsid()
    said = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    code = main(arguments)
    sys.stdout.flush()
    os._exit(code)


def begin(place: Path, workers: int = 1, url: str | None = None, folder: str = "s", real: bool = False) -> Process:
    """Start a runner of the study in a folder."""
    journal = "" if real else str(place / "journal")
    words = [str(place / "of-s.yaml"), str(place / folder), journal, str(workers), *([url] if url else [])]
    return Process(words, place / f"out-{time.monotonic_ns()}")


def journal_of(path: Path) -> dict[str, list[tuple[str, int]]]:
    """Trial → what its processes did, in order."""
    found: dict[str, list[tuple[str, int]]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        what, name, step = line.split()
        found.setdefault(name, []).append((what, int(step)))
    return found


def table(folder: Path, url: str | None = None) -> dict[str, tuple[Any, ...]]:
    """What a finished study must come to, however often it was killed."""
    records = read_records(url, "s", folder)
    assert len({r.key for r in records}) == len(records)
    beside = ("cpu_seconds", "wall_seconds", "peak_memory")
    return {r.folder: tuple(repr(v) for k, v in dataclasses.asdict(r).items() if k not in beside) for r in records}


def attempts(folder: Path, url: str | None = None) -> dict[str, int]:
    """Trial → how many of its attempts are complete."""
    from ftlab.studies.attempts import attempt
    from ftlab.studies.storage import connect

    found: dict[str, int] = {}
    with closing(connect(url, folder)) as store:
        for name in store.names("s"):
            for trial in store.rdb.get_all_trials(store.rdb.get_study_id_from_name(name)):
                one = attempt(name, trial)
                key = f"{one.planned.variant}/{one.planned.id}"
                found[key] = found.get(key, 0) + (one.outcome == "complete")
    return found


def main(arguments: Sequence[str]) -> int:
    """`ftlab ablate` with made-up fits: study file, folder, journal, workers and perhaps a URL; without a journal the fits are real."""
    study, folder, journal, workers, *url = arguments

    def start(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Fork:
        return Fork(settings_of(words), log, Path(journal))

    try:
        storage, made_up = url[0] if url else None, start if journal else None
        return run_study(parse(Path(study)), Path(folder), int(workers), storage=storage, lease=LEASE, start=made_up)
    except FtlabError as error:
        print(f"ftlab: error: {error}", file=sys.stderr)
        return error.exit_code
