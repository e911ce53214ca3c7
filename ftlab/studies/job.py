"""One trial while this runner has it: started, watched, ended in time, and its result written down."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ftlab.run_folder import FEATURES
from ftlab.studies.attempts import Outcome
from ftlab.studies.changes import edited
from ftlab.studies.outcome import SILENT, Metrics, found, said
from ftlab.studies.planned import Planned
from ftlab.studies.queue import Claim, Queue
from ftlab.studies.words import RUNS, words

STORAGE = 8
"""Exit code of a run that could not write."""
_SIGNALLED = (129, 130, 143)
_NEVER_LOGGED, _NOT_FINITE = 2, 5
_LEAVE = 120.0
"""Seconds that a trial has for its checkpoint."""
_LOCKED = 600.0
"""Seconds to wait for a process of a dead runner that still holds the run's folder."""
_PREPARED = 1800.0
"""Seconds that a trial waits for its fork: for the imports, and for a base that is read for all."""


_Leaving = Literal["stopped", "pruned"]
"""Why a trial was asked to save a checkpoint and leave."""


class Child(Protocol):
    """A started run; see `ftlab.studies.warm`."""

    forked: float | None

    def poll(self) -> int | None: ...
    def cpu_seconds(self) -> float | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


Start = Callable[[Sequence[str], Path, Mapping[str, str]], Child]
"""Starts `ftlab` with words, a log and variables of its environment."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a trial ended here.

    Args:
        planned: The trial.
        outcome: How, None where another runner has taken it over.
        code: Exit code; None where it was not started.
        error: One sentence.
        value: The metric.
        logged: What was logged where the metric was not.
        begun: When it was asked for, by the monotonic clock.
        seconds: From its fork to its end.
        orphaned: It died because what had forked it did.
        edited: Why it must not run now; see `ftlab.studies.changes.edited`.
    """

    planned: Planned
    outcome: Outcome | None
    code: int | None
    error: str
    value: float | None = None
    logged: tuple[str, ...] = ()
    begun: float = 0.0
    seconds: float = 0.0
    orphaned: bool = False
    edited: str = ""


@dataclass(kw_only=True)
class Job:
    """One trial.

    Args:
        queue: Where it was taken from.
        claim: The trial.
        folder: The study's folder.
        start: Starts it.
        environment: Variables that are its own.
    """

    queue: Queue
    claim: Claim
    folder: Path
    start: Start
    environment: Mapping[str, str] = field(default_factory=dict)
    child: Child | None = None
    ending: Literal["", "stopped", "timeout", "pruned", "fenced"] = ""
    _begun: float = field(default_factory=time.monotonic)
    _beaten: float = field(default_factory=time.monotonic)
    _asked: float = 0.0
    _offset: int = 0
    _step: int = -1
    _edited: str | None = None

    def __post_init__(self) -> None:
        planned = self.planned
        self.run = self.folder / RUNS / planned.variant / planned.id
        self.log = self.run.with_name(f"{planned.id}.log")
        self._metrics = Metrics(self.run / "metrics.jsonl")

    @property
    def planned(self) -> Planned:
        """What is run."""
        return self.claim.attempt.planned

    @property
    def seconds(self) -> float:
        """Time since its fork: what comes before serves all trials."""
        return 0.0 if self.child is None or self.child.forked is None else time.monotonic() - self.child.forked

    def look(self) -> Ended | None:
        """Go on with it; how it ended, once it has."""
        now = time.monotonic()
        if now - self._beaten >= self.queue.lease.interval:
            self._beaten = now
            if not self.queue.beat(self.claim):
                self.ending = "fenced"
        if self.child is None:
            return self._begin(now)
        code = self.child.poll()
        if code is not None:
            return self._end(self.child, code)
        self._watch(self.child, now)
        return None

    def stop(self) -> None:
        """Ask it to save a checkpoint and leave."""
        self._leave("stopped")

    def _begin(self, now: float) -> Ended | None:
        if self.ending:
            return self._finished("stopped" if self.ending == "stopped" else None, None, "it had not begun")
        if not _held(self.run):
            if found := edited(self.queue.spec):
                self._edited = found
                return self._finished("stopped", None, found)
            self._begun = now
            self._offset = self.log.stat().st_size if self.log.exists() else 0
            variant, planned = self.queue.variants[self.planned.variant], self.planned
            given = words(self.queue.spec, variant, planned.seed, planned.tuned, self.folder, planned.id)
            shared = {FEATURES: str(self.folder / "features")} if self.queue.spec.cache_features else {}
            self.child = self.start([*given, "--resume", "auto"], self.log, {**self.environment, **shared})
        elif now - self._begun > _LOCKED:
            return self._finished("failed", None, f"{self.run} is still held by a process of a runner that died; end it")
        return None

    def _prove(self, child: Child) -> None:
        """End it where plugins were edited while it waited for its fork, which imports them."""
        if self._edited is None and child.forked is not None:
            self._edited = edited(self.queue.spec)
            if self._edited and not self.ending:
                self._leave("stopped")
                child.kill()

    def _watch(self, child: Child, now: float) -> None:
        self._prove(child)
        minutes = self.queue.spec.timeout_minutes
        if self.ending in ("stopped", "pruned"):  # it saves a checkpoint, for which the limit does not count
            if now - self._asked > _LEAVE:
                child.kill()
        elif child.forked is None:
            if now - self._begun > _PREPARED:
                child.kill()
        elif self.ending == "fenced":
            child.kill()
        elif minutes is not None and self.seconds > 60 * minutes and not self.ending:
            self.ending = "timeout"
            child.kill()
        elif not self.ending and self._report():
            self._leave("pruned")

    def _report(self) -> bool:
        """Give the pruner what was logged; whether it ends the trial."""
        from optuna.exceptions import UpdateFinishedTrialError

        metric = self.queue.spec.metric
        if self.queue.spec.stop is None or self.planned.phase != "tune":
            return False
        hopeless = False
        for record in self._metrics.new():
            step, value = record.get("step"), record.get(metric)
            if not isinstance(step, int) or not isinstance(value, int | float) or step <= self._step:
                continue
            self._step = step
            try:
                hopeless = self.queue.hopeless(self.claim, step, value) or hopeless
            except UpdateFinishedTrialError:
                self.ending = "fenced"
                break
        return hopeless

    def _leave(self, why: _Leaving) -> None:
        if not self.ending:
            self.ending, self._asked = why, time.monotonic()
            if self.child is not None:
                self.child.terminate()

    def _end(self, child: Child, code: int) -> Ended:
        cpu = child.cpu_seconds()
        result = {"code": code, "cpu_seconds": cpu, "wall_seconds": self.seconds}
        if self.ending == "fenced":
            return self._finished(None, code, "another runner has taken it over")
        if code == 0:
            return self._whole(result)
        sentence, tail = said(self.log, self._offset)
        orphaned = code < 0 and cpu is None and not self.ending
        outcome: Outcome = self.ending or ("lost" if orphaned else "stopped" if code in (STORAGE, *_SIGNALLED) else "failed")
        sentence = f"it took longer than {self.queue.spec.timeout_minutes:g} minutes" if outcome == "timeout" else sentence
        sentence = f"ended by signal {-code}: {sentence}" if code < 0 and outcome == "failed" else sentence
        sentence = f"it ended with exit code {code} and said nothing" if code > 0 and sentence == SILENT else sentence
        sentence = "the process that had forked it ended" if outcome == "lost" else sentence
        value = None
        if outcome == "pruned":
            value = found(self.run, self.queue.spec.metric).value
        return self._finished(outcome, code, sentence, result={**result, "error": sentence, "tail": tail}, value=value, orphaned=orphaned)

    def _whole(self, result: Mapping[str, Any]) -> Ended:
        """A run that ended well is complete if it logged the metric."""
        self._report()  # what was logged since the last look: others are judged by it
        metric = self.queue.spec.metric
        left = found(self.run, metric)
        result = {**result, "metrics": left.metrics, **left.figures}
        if left.value is not None:
            return self._finished("complete", 0, "", result=result, value=left.value)
        if metric in left.logged:
            sentence = f"{metric} is not a finite number at its end"
            return self._finished("failed", _NOT_FINITE, sentence, result={**result, "code": _NOT_FINITE, "error": sentence})
        sentence = f"it never logged {metric}"
        return self._finished(
            "invalid", _NEVER_LOGGED, sentence, result={**result, "code": _NEVER_LOGGED, "error": sentence}, logged=left.logged
        )

    def _finished(
        self, outcome: Outcome | None, code: int | None, error: str, result: Mapping[str, Any] | None = None,
        value: float | None = None, logged: tuple[str, ...] = (), orphaned: bool = False,
    ) -> Ended:  # fmt: skip
        if outcome is not None:
            written = result if result is not None else {"error": error}
            if not self.queue.finish(self.claim, outcome, written, value):
                outcome, error = None, "another runner has taken it over"
        return Ended(
            planned=self.planned, outcome=outcome, code=code, error=error, value=value, logged=logged,
            begun=self._begun, seconds=self.seconds, orphaned=orphaned, edited=self._edited or "",
        )  # fmt: skip


def _held(run: Path) -> bool:
    """Whether a process works in a run's folder: one whose runner has died may, for moments."""
    try:
        with (run / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run yet, or a file system without locks
        return False
    return False
