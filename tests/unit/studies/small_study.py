"""A study whose runs are made up: a function in place of `ftlab fit`, its figures a pure function of what the run was given."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ftlab.given import given, take
from ftlab.studies.identity import settle
from ftlab.studies.queue import Queue
from ftlab.studies.reading import read_records
from ftlab.studies.records import TrialRecord
from ftlab.studies.spec import StudySpec, parse
from ftlab.studies.storage import Lease, Store, connect

BASE = {"model": {"tuning": {"class_path": "LoRA", "init_args": {"r": 2}}}, "trainer": {"max_steps": 3}}
TUNED = {"trials": 3, "space": {"model.optimizer.lr": {"log_uniform": [1.0e-5, 1.0e-2]}}}


def study(folder: Path, **changes: Any) -> StudySpec:
    """Two variants with two seeds; `changes` are keys of the study file, None takes one out."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"name": "s", "base": "base-of-s.yaml", "factors": {"model.tuning.r": [2, 4]}, "seeds": 2, **changes}
    (folder / "base-of-s.yaml").write_text(yaml.safe_dump(BASE))
    (folder / "of-s.yaml").write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}))
    return parse(folder / "of-s.yaml")


def opened(spec: StudySpec, folder: Path, lease: Lease | None = None) -> Queue:
    """The study's queue, begun."""
    store = connect(None, folder, lease or Lease())
    queue = Queue(store, settle(store, spec, folder, extend=False))
    queue.begin()
    return queue


def forget(store: Store) -> None:
    """Let an hour pass since every heartbeat."""
    from sqlalchemy import text

    with store.rdb.engine.connect() as connection:
        connection.execute(text("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')"))
        connection.commit()


def figure(settings: Mapping[str, Any]) -> float:
    """The metric of a run, from everything that it was given but where it lies."""
    told = json.dumps({k: v for k, v in sorted(settings.items()) if not k.startswith("run.") and k != "config"}, default=str)
    return int(hashlib.sha256(told.encode()).hexdigest()[:8], 16) / 2**32


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """What a run is given on its command line."""
    rest, _ = take(words[1:], "--resume")
    return {item.key: item.value for item in given(rest) if item.origin == "command line"}


@dataclass
class Made:
    """A run that has ended, or never will."""

    code: int | None
    killed: bool = False
    asked: bool = False
    forked: float | None = field(default_factory=time.monotonic)

    def poll(self) -> int | None:
        if self.code is None and self.killed:
            return -9
        return 143 if self.code is None and self.asked else self.code

    def cpu_seconds(self) -> float | None:
        return 0.5 if self.poll() is not None else None

    def terminate(self) -> None:
        self.asked = True

    def kill(self) -> None:
        self.killed = True


@dataclass
class Fits:
    """Starts runs.

    Args:
        ends: Name of a run, such as r2/seed-0 → its exit code, what it says, or a function that makes it up.
        logs: What a run logs besides.
        started: The runs, in the order of their starts, with their words.
    """

    ends: Mapping[str, int | str | Callable[[], Made] | None] = field(default_factory=dict)
    metric: str = "val_loss"
    started: list[str] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    environments: list[Mapping[str, str]] = field(default_factory=list)

    def __call__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Made:
        settings = settings_of(words)
        name = f"{settings['run.name']}/{settings['run.id']}"
        self.started.append(name)
        self.words.append(settings)
        self.environments.append(environment)
        end = self.ends.get(name, self.ends.get("*", 0))
        log.parent.mkdir(parents=True, exist_ok=True)
        if callable(end):
            return end()
        if isinstance(end, str):
            with log.open("a") as file:
                file.write(f"starting\nftlab: error: {end}\n")
            return Made(1)
        if end == 0:
            self._write(Path(str(settings["run.root"])) / name, figure(settings))
        return Made(end)

    def _write(self, run: Path, value: float) -> None:
        run.mkdir(parents=True, exist_ok=True)
        lines = [{"step": 1, "time": 0.0, "train_loss": 1.0}, {"step": 3, "time": 1.0, self.metric: value, "val_accuracy": 0.5}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = {"trainable_params": 7, "tokens": 21, "peak_memory_bytes": 1024, self.metric: value}
        (run / "summary.json").write_text(json.dumps(summary))


def table(folder: Path) -> dict[str, TrialRecord]:
    return {r.folder.removeprefix("runs/"): r for r in read_records(None, "s", folder)}


def states(folder: Path) -> dict[str, str]:
    return {name: r.state for name, r in table(folder).items()}
