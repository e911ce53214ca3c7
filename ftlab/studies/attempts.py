"""What has become of a trial that was tried, perhaps more than once: read from Optuna's trials alone, so that whoever looks says the same.

Each attempt is a trial of Optuna's own. One that has ended cannot be changed any more, which keeps out whatever a runner has to say
that was taken for dead; to try again means a new attempt under the same key.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ftlab.studies.planned import Planned

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

PLAN, RESULT, FAILURES, REVIVED = "plan", "result", "failures", "revived"
"""User attributes: what is run, what came of it, how often this trial had crashed before, and that it had been pruned before."""
Outcome = Literal["waiting", "running", "complete", "pruned", "failed", "timeout", "invalid", "stopped", "lost", "withdrawn"]
"""`stopped` is one that a signal or a full disk ended, `lost` one whose runner died, `withdrawn` one that another attempt stands for."""
FAULTY = ("failed", "timeout", "invalid")
"""Outcomes of a trial that did not end well and is over, until the same command is given again."""
_SAID = (*FAULTY, "stopped", "withdrawn")
REFUSALS = (2, 3, 4, 5, 7)
"""Exit codes of `ftlab fit` that say what is wrong with what was asked; after any other, also one not of its own, it may go better."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One of Optuna's trials.

    Args:
        study: Name of Optuna's study.
        number: Its number there.
        planned: What is run.
        outcome: How far it is or how it ended.
        failures: How often the trial had crashed before it.
        value: The metric.
        result: What its runner wrote down at its end.
        revived: It goes on with a trial that had been pruned, and is not pruned again.
    """

    study: str
    number: int
    planned: Planned
    outcome: Outcome
    failures: int
    value: float | None
    result: Mapping[str, Any]
    revived: bool = False

    @property
    def live(self) -> bool:
        """Whether it runs or will."""
        return self.outcome in ("waiting", "running")

    @property
    def crashed(self) -> bool:
        """Whether another attempt may go better."""
        return self.outcome == "failed" and self.result.get("code") not in REFUSALS


def attempt(study: str, trial: FrozenTrial) -> Attempt:
    """One of Optuna's trials as ftlab reads it."""
    result = trial.user_attrs.get(RESULT, {})
    return Attempt(
        study=study, number=trial.number, planned=Planned(**trial.user_attrs[PLAN]), outcome=_outcome(trial, result),
        failures=trial.user_attrs.get(FAILURES, 0), value=trial.value if trial.values else None, result=result,
        revived=trial.user_attrs.get(REVIVED, False),
    )  # fmt: skip


def _outcome(trial: FrozenTrial, result: Mapping[str, Any]) -> Outcome:
    named: dict[str, Outcome] = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned"}
    if trial.state.name in named:
        return named[trial.state.name]
    said: Outcome = result.get("outcome", "lost")
    return said if said in _SAID else "lost"  # it wrote that it is complete, and was taken for dead before that counted


def by_key(attempts: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    """Key → its attempts, in their order, without those that another stands for."""
    found: dict[str, list[Attempt]] = {}
    for each in attempts:
        if each.outcome != "withdrawn":
            found.setdefault(each.planned.key, []).append(each)
    return found


def standing(attempts: Sequence[Attempt]) -> Attempt | None:
    """The attempt that stands for a trial: the finished one, else the first that runs or waits, else the last.

    Of one that was revived only the attempts behind that count, unless one before was complete. Two runners that look at once may both
    add an attempt. Whoever sees the later one sees the earlier one too, so all of them agree.
    """
    if not any(each.outcome == "complete" for each in attempts):
        attempts = [each for each in attempts if each.revived] or attempts
    for wanted in (("complete",), ("pruned",), ("running", "waiting")):
        for each in attempts:
            if each.outcome in wanted:
                return each
    return attempts[-1] if attempts else None


def judged(study: str, storage: BaseStorage) -> Study:
    """What a pruner compares: of each trial the attempt that stands for it, so that none competes with itself or counts twice.

    One that did not end well is left out, however good it was on its way: it cannot be chosen, so nothing must be ended for it.

    Args:
        study: Name of Optuna's study.
        storage: Where it is.
    """
    import optuna

    class Judged(optuna.Study):
        def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
            trials = super().get_trials(deepcopy)
            tries = by_key(attempt(self.study_name, trial) for trial in trials)
            numbers = {one.number for one in map(standing, tries.values()) if one is not None and one.outcome not in FAULTY}
            return [trial for trial in trials if trial.number in numbers and (states is None or trial.state in states)]

    return Judged(study, storage)


def next_failures(last: Attempt | None, retries: int) -> int | None:
    """How often a trial has crashed before its next attempt; None where there shall be none."""
    if last is None:
        return 0
    if last.outcome in ("stopped", "lost"):
        return last.failures
    if last.crashed and last.failures < retries:
        return last.failures + 1
    return None


def best(attempts: Iterable[Attempt | None], direction: str, outcome: Outcome = "complete") -> Attempt | None:
    """The attempt with one outcome that has the best value, the first of equal ones; None where none ended so."""
    whole = [each for each in attempts if each is not None and each.outcome == outcome and each.value is not None]
    sign = 1 if direction == "minimize" else -1
    return min(whole, key=lambda each: sign * (each.value or 0.0), default=None)
