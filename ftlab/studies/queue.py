"""The queue: what is missing is added, a trial is taken by one runner, and a runner that was taken for dead is not listened to."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ftlab.studies import attempts
from ftlab.studies.attempts import FAILURES, FAULTY, PLAN, RESULT, REVIVED, Attempt, Outcome
from ftlab.studies.planned import Planned, compared, in_turns, tuning
from ftlab.studies.space import distributions, space_of
from ftlab.studies.spec import StudySpec
from ftlab.studies.stop import pruner
from ftlab.studies.storage import Store, fail_stale
from ftlab.studies.variants import variants

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.study import Study


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial that this runner has taken.

    Args:
        trial: Optuna's number of it within its database.
        attempt: What is run.
    """

    trial: int
    attempt: Attempt


class Queue:
    """The trials of one study.

    Args:
        store: Where they are.
        spec: What is asked.
    """

    def __init__(self, store: Store, spec: StudySpec) -> None:
        self.store = store
        self.spec = spec
        self.lease = store.lease
        self.variants = {v.name: v for v in variants(spec)}
        self.tuning = {name: tuning(spec, v) for name, v in self.variants.items()}
        self.known: dict[str, list[Attempt]] = {}
        self.wanted: list[Planned] = []
        self._waiting: deque[Attempt] = deque()
        self._pruners: dict[str, tuple[BasePruner, Study]] = {}
        self._compared = f"{spec.name}/seeds"
        tuned = [name for name, planned in self.tuning.items() if planned]
        self._studies = {name: self._open(name) for name in (*(f"{spec.name}/tune/{t}" for t in tuned), self._compared)}

    def begin(self) -> None:
        """Look at everything, try again what failed before, and take back what is no longer asked for."""
        self._read()
        self._plan()
        keys = {planned.key for planned in self.wanted}
        settled = {name for name in self.variants if self._tuned(name) is not None}
        for planned in self.wanted:
            last = self.standing(planned)
            over = planned.phase == "tune" and planned.variant in settled
            if last is not None and last.outcome in FAULTY and not over:
                self._add(planned, 0)
        for each in [a for found in self.known.values() for a in found]:
            if each.outcome == "waiting" and each.planned.key not in keys:
                self._withdraw(each)
        self.refresh()

    def refresh(self) -> None:
        """Read the storage, end what is stale, and add what is missing."""
        self._read()
        self._plan()
        for each in [a for found in self.known.values() for a in found]:
            if each.outcome == "waiting" and attempts.standing(self.known[each.planned.key]) is not each:
                self._withdraw(each)  # two runners have added it
        missing = [(planned, count) for planned in self.wanted if (count := self._next(planned)) is not None]
        missing += [(planned, 0) for planned in self._spared()]
        for planned, failures in missing:
            self._add(planned, failures)
        if missing:
            self._read()
            self._plan()
        self._waiting = deque(self._candidates())

    def claim(self) -> Claim | None:
        """Take the next trial that waits; None where this runner knows of none, which `refresh` may change."""
        while self._waiting:
            each = self._waiting.popleft()
            trial = self.store.patiently(self._trial, each)
            if self._take(trial):
                return Claim(trial=trial, attempt=each)
        return None

    def beat(self, claim: Claim) -> bool:
        """Say that this runner lives; False where the trial is not its own any more."""
        self.store.patiently(self.store.rdb.record_heartbeat, claim.trial)
        return self.store.patiently(self.store.rdb.get_trial, claim.trial).state.name == "RUNNING"

    def hopeless(self, claim: Claim, step: int, value: float) -> bool:
        """Report a value on the way; whether the study's pruner ends the trial.

        It ends none beside which nothing of the variant is complete or runs: the variant would be left without a choice.

        Raises:
            UpdateFinishedTrialError: The trial is not this runner's any more.
        """
        rdb, name = self.store.rdb, claim.attempt.study
        if name not in self._pruners:
            self._pruners[name] = pruner(self.spec.stop), self.store.patiently(attempts.judged, name, rdb)
        chosen, others = self._pruners[name]
        self.store.patiently(rdb.set_trial_intermediate_value, claim.trial, step, value)
        if not self.store.patiently(chosen.prune, others, self.store.patiently(rdb.get_trial, claim.trial)) or claim.attempt.revived:
            return False
        trials = self.store.patiently(partial(others.get_trials, deepcopy=False))
        return any(each.number != claim.attempt.number and each.state.name in ("COMPLETE", "RUNNING") for each in trials)

    def finish(
        self, claim: Claim, outcome: Outcome, result: Mapping[str, Any], value: float | None = None
    ) -> bool:  # fmt: skip
        """Write down how a trial ended; False where another runner has taken it over, and nothing was written."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        state = states.get(outcome, TrialState.FAIL)
        values = None if value is None or state is TrialState.FAIL else [value]
        try:
            self.store.patiently(self.store.rdb.set_trial_user_attr, claim.trial, RESULT, {"outcome": outcome, **result})
            return self.store.patiently(self.store.rdb.set_trial_state_values, claim.trial, state, values)
        except UpdateFinishedTrialError:
            return False

    def standing(self, planned: Planned) -> Attempt | None:
        """The attempt that stands for a trial."""
        return attempts.standing(self.known.get(planned.key, []))

    def states(self) -> Counter[Outcome]:
        """How many of the wanted trials are how far, when the storage was last read."""
        return Counter(one.outcome for one in map(self.standing, self.wanted) if one is not None)

    def open(self) -> bool:
        """Whether anything runs or waits, here or elsewhere."""
        return any(one is not None and one.live for one in map(self.standing, self.wanted))

    def untuned(self) -> list[str]:
        """The variants of whose tuning nothing is complete though it is over."""
        asked = {planned.variant for planned in self.wanted if planned.phase == "seeds"}
        return [] if self.open() else [name for name in self.variants if name not in asked]

    def _open(self, name: str) -> Study:
        return self.store.study(name, self.spec.direction)

    def _read(self) -> None:
        found: list[Attempt] = []
        for name, study in self._studies.items():
            self.store.patiently(fail_stale, study)
            trials = self.store.patiently(partial(study.get_trials, deepcopy=False))
            found += [attempts.attempt(name, trial) for trial in trials]
        self.known = attempts.by_key(found)

    def _plan(self) -> None:
        """What is wanted: the tuning of all variants, and the seeds of those whose tuning is over."""
        chosen = {name: self._tuned(name) for name in self.variants}
        seeds = [compared(self.spec, self.variants[name], tuned) for name, tuned in chosen.items() if tuned is not None]
        self.wanted = [*in_turns(self.tuning.values()), *in_turns(seeds)]

    def _tuned(self, variant: str) -> Mapping[str, object] | None:
        """What tuning chose, once and for all; None while it runs, and where none of its trials was complete."""
        planned = self.tuning[variant]
        if not planned:
            return {}
        begun = [a for found in self.known.values() for a in found if a.planned.phase == "seeds" and a.planned.variant == variant]
        if begun:
            return min(begun, key=lambda each: each.number).planned.tuned
        chosen = attempts.best(map(self.standing, planned), self.spec.direction) if self._over(planned) else None
        return None if chosen is None else chosen.planned.tuned

    def _over(self, planned: Iterable[Planned]) -> bool:
        """Whether trials have all ended for good."""
        return not any(self._next(one) is not None or (last := self.standing(one)) is None or last.live for one in planned)

    def _spared(self) -> list[Planned]:
        """Of each variant whose tuning ended with nothing complete the best trial of those that were pruned: it goes on after all.

        What they were pruned for may have failed later, on this machine or on another.
        """
        found = []
        for planned in filter(self._over, self.tuning.values()):
            tries = [self.standing(one) for one in planned]
            chosen = None if attempts.best(tries, self.spec.direction) else attempts.best(tries, self.spec.direction, "pruned")
            found += [one for one in planned if chosen is not None and one.key == chosen.planned.key]
        return found

    def _next(self, planned: Planned) -> int | None:
        last = self.standing(planned)
        return None if last is not None and last.live else attempts.next_failures(last, self.spec.retries)

    def _candidates(self) -> Iterable[Attempt]:
        return [one for planned in self.wanted if (one := self.standing(planned)) is not None and one.outcome == "waiting"]

    def _add(self, planned: Planned, failures: int) -> None:
        from optuna import create_trial
        from optuna.trial import TrialState

        name = f"{self.spec.name}/tune/{planned.variant}" if planned.phase == "tune" else self._compared
        space = distributions(space_of(self.spec, self.variants[planned.variant])) if planned.params else {}
        revived = any(each.outcome == "pruned" for each in self.known.get(planned.key, []))
        noted = {**({FAILURES: failures} if failures else {}), **({REVIVED: True} if revived else {})}
        made = create_trial(
            state=TrialState.WAITING, params=dict(planned.params), distributions=space, user_attrs={PLAN: planned.plain(), **noted},
        )  # fmt: skip
        self.store.patiently(self._studies[name].add_trial, made)

    def _withdraw(self, each: Attempt) -> None:
        """Close a trial that waits without running it."""
        trial = self.store.patiently(self._trial, each)
        if self._take(trial):
            self.finish(Claim(trial=trial, attempt=each), "withdrawn", {})

    def _trial(self, each: Attempt) -> int:
        rdb = self.store.rdb
        return rdb.get_trial_id_from_study_id_trial_number(rdb.get_study_id_from_name(each.study), each.number)

    def _take(self, trial: int) -> bool:
        """Take a trial that waits. The heartbeat comes first: a trial that runs and never had one is not seen to be stale."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        self.store.patiently(self.store.rdb.record_heartbeat, trial)
        try:
            return self.store.patiently(self.store.rdb.set_trial_state_values, trial, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False
