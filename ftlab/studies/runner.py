"""One machine's part in a study: as many trials at once as it has workers, until nothing is left to do or something stops it."""

from __future__ import annotations

import logging
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftlab.errors import FtlabError, StorageError
from ftlab.signals import WATCHED, SignalFlag
from ftlab.studies.attempts import REFUSALS
from ftlab.studies.job import STORAGE, Ended, Job, Start
from ftlab.studies.queue import Queue

log = logging.getLogger(__name__)

_POLL = 0.05
"""Seconds between two looks at running trials."""
_REFRESH = 2.0
"""Seconds between two looks at what others do, where this runner has nothing to start."""
_ALIKE = 3
"""Failures with one cause after which the study stops, unless anything has gone well."""
_QUICK = 10.0
"""Seconds within which they fail; what runs for longer is not like them."""
_DEATHS = 5
"""Of the process that forks trials, with nothing complete between them, after which the study stops."""
_BUG, _INVALID, _ENVIRONMENT = 1, 2, 6


class HaltError(FtlabError):
    """Something for which the study stops before its end; the same command goes on with it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class Runner:
    """Runs trials of a queue.

    Args:
        queue: The study.
        folder: Its folder.
        start: Starts a trial.
        places: The environment of each worker; one trial at a time runs in each.
    """

    def __init__(self, queue: Queue, folder: Path, start: Start, places: Sequence[Mapping[str, str]]) -> None:
        self.queue = queue
        self.folder = folder
        self.start = start
        self.places = places
        self.flag = SignalFlag()
        self.halt: HaltError | None = None
        self._jobs: dict[int, Job] = {}
        self._refreshed = 0.0
        self._waits = False
        self._alike: Counter[str] = Counter()
        self._failure: Ended | None = None
        self._well = False
        self._deaths = 0
        self._died = 0.0

    def run(self) -> None:
        """Run until nothing is left here or elsewhere.

        Raises:
            HaltError: Something stopped it.
            StorageError: The storage does not answer.
        """
        ignored = [number for number in WATCHED if signal.getsignal(number) is signal.SIG_IGN]
        self.flag.install()
        for number in ignored:  # as under nohup
            signal.signal(number, signal.SIG_IGN)
        try:
            while self._work():
                pass
        except StorageError:
            self._leave()
            raise
        finally:
            self.flag.remove()
        if self.halt is not None:
            raise self.halt

    def _work(self) -> bool:
        """One look at everything; whether there is more to do."""
        ended = [(place, done) for place, job in list(self._jobs.items()) if (done := job.look()) is not None]
        for place, done in ended:
            del self._jobs[place]
            self._note(done)
        if any(done.outcome == "lost" for _, done in ended):
            self.queue.refresh()  # so that it comes before what waits, as if it had not died
        doubtful = self._doubtful()
        if self.flag.number and self.halt is None:
            number = signal.SIGTERM if self.flag.number == signal.SIGUSR1 else self.flag.number
            self._stop(HaltError(f"stopped by {signal.Signals(number).name}; the same command goes on with the study.", 128 + number))
        if self.halt is not None:
            time.sleep(0 if ended else _POLL)
            return bool(self._jobs)
        began = not doubtful and self._fill(bool(ended))
        if not ended and not began:
            time.sleep(_POLL)
        if self._jobs:
            self._waits = False
            return True
        if self.queue.open():
            self._say_waiting()
            return True
        return False

    def _say_waiting(self) -> None:
        """Say once why nothing happens."""
        if not self._waits:
            self._waits = True
            running, grace = self.queue.states()["running"], self.queue.lease.grace
            log.info("waiting for other runners, who have %d of the trials; what is not heard of for %d s is taken over", running, grace)

    def _fill(self, changed: bool) -> bool:
        """Start trials where there is room; whether any was."""
        began = False
        for place, environment in enumerate(self.places):
            if place in self._jobs:
                continue
            claim = self.queue.claim()
            if claim is None and (changed or time.monotonic() - self._refreshed > _REFRESH):
                self.queue.refresh()
                self._refreshed, changed = time.monotonic(), False
                claim = self.queue.claim()
            if claim is None:
                break
            self._jobs[place] = Job(queue=self.queue, claim=claim, folder=self.folder, start=self.start, environment=environment)
            began = True
        return began

    def _note(self, done: Ended) -> None:
        """Say how a trial ended, and stop where going on would be a waste."""
        told = f"{self.queue.spec.metric} {done.value:.6g}" if done.value is not None else done.error
        log.info("%s %s: %s, %s (%.1f s)", done.planned.variant, done.planned.id, done.outcome or "given up", told, done.seconds)
        if done.outcome in ("complete", "pruned"):
            self._well, self._deaths = True, 0
        if done.outcome == "invalid" and not self._goes():
            logged = ", ".join(done.logged) or "nothing"
            sentence = f"metric {self.queue.spec.metric} was never logged by the first run; it logged: {logged}; correct it in the study."
            self._stop(HaltError(sentence, _INVALID))
        if done.edited:
            self._stop(HaltError(done.edited, _INVALID))
        if done.outcome == "stopped" and done.code == STORAGE:
            self._stop(HaltError(f"{done.error.rstrip('.')}; the study stops before the next trial meets the same.", STORAGE))
        if done.outcome == "failed":
            self._failure = done
            self._alike[done.error.replace(done.planned.id, "").replace(done.planned.variant, "")] += done.seconds < _QUICK
        elif done.outcome == "timeout":
            self._alike[done.outcome] = 0  # it is not like them
        if done.orphaned and done.begun >= self._died:  # else it died with the one that was counted
            self._died = time.monotonic()
            self._deaths += 1
            if self._deaths >= _DEATHS:
                self._stop(HaltError("the process that starts trials was killed again and again; look for what kills it.", _ENVIRONMENT))

    def _goes(self) -> bool:
        """Whether any trial of the study has gone well, now or in a session before."""
        return self._well or any(self.queue.states()[state] for state in ("complete", "pruned"))

    def _doubtful(self) -> bool:
        """Whether all that has ended failed alike; then what runs is awaited, and where none of it differs, the study stops."""
        if self._failure is None or len(self._alike) != 1 or self._alike.total() < _ALIKE or self._goes():
            return False
        if not self._jobs:
            code = self._failure.code if self._failure.code in (_BUG, *REFUSALS) else _ENVIRONMENT
            self._stop(HaltError(f"the first {self._alike.total()} trials failed alike: {self._failure.error}", code))
        return all(job.seconds < _QUICK for job in self._jobs.values())

    def _stop(self, why: HaltError) -> None:
        """Start nothing more, and let what runs save a checkpoint."""
        if self.halt is None:
            self.halt = why
            for job in self._jobs.values():
                job.stop()

    def _leave(self) -> None:
        """End what runs, without the storage: it will be stale there."""
        for job in self._jobs.values():
            job.stop()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and any(job.child is not None and job.child.poll() is None for job in self._jobs.values()):
            time.sleep(_POLL)
