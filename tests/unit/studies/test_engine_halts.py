"""What stops a study before its end, with one worker and with several, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ftlab.errors import FtlabError
from ftlab.studies.engine import run_study
from ftlab.studies.job import Job
from tests.unit.studies.small_study import TUNED, Fits, Made, states, study

pytestmark = pytest.mark.usefixtures("quick")
BROKEN = {f"r4/seed-{seed}": "no such model" for seed in range(20)}


@dataclass
class Slow(Made):
    """Ends after some looks."""

    looks: int = 0

    def poll(self) -> int | None:
        self.looks -= 1
        return None if self.looks > 0 else self.code


@dataclass
class SlowFits(Fits):
    """Runs that take some time; by default no two end together."""

    looks: Callable[[str, int], int] = field(default=lambda name, number: 20 + 7 * (number % 4))

    def __call__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Slow:
        code = super().__call__(words, log, environment).code
        return Slow(code, looks=self.looks(self.started[-1], len(self.started)))


@dataclass
class Orphan(Made):
    """Was killed together with the process that had forked it."""

    code: int | None = -9

    def cpu_seconds(self) -> float | None:
        return None


@pytest.mark.parametrize(("code", "own"), [(1, 1), (3, 3), (77, 6), (-11, 6)])
def test_the_study_ends_with_a_code_of_its_own(tmp_path: Path, code: int, own: int) -> None:
    with pytest.raises(FtlabError, match=r"^the first \d trials failed alike: ") as caught:
        run_study(study(tmp_path, seeds=20, retries=0), tmp_path, start=Fits({"*": lambda: Made(code)}))
    assert caught.value.exit_code == own


@pytest.mark.parametrize("workers", [2, 4])
def test_failures_of_one_cause_stop_several_workers_too(tmp_path: Path, workers: int) -> None:
    fits = SlowFits({"*": "no such model"})
    with pytest.raises(FtlabError, match=r"^the first \d trials failed alike: no such model"):
        run_study(study(tmp_path, seeds=20, retries=0), tmp_path, workers=workers, start=fits)
    assert len(fits.started) <= workers + 2
    assert list(states(tmp_path).values()).count("failed") == len(fits.started), "none was cut off, because it might have differed"


def test_what_runs_still_may_show_that_one_variant_alone_is_broken(tmp_path: Path) -> None:
    fits = SlowFits(BROKEN, looks=lambda name, number: 40 if name.startswith("r2") else 2)
    assert run_study(study(tmp_path, seeds=4, retries=0), tmp_path, workers=4, start=fits) == 6
    assert sorted(states(tmp_path).values()) == ["complete"] * 4 + ["failed"] * 4


def test_a_trial_that_took_too_long_is_not_like_those_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "seconds", property(lambda one: 100.0 if one.planned.variant == "r2" else 1.0))
    fits = Fits({**BROKEN, "*": lambda: Made(None)})
    spec = study(tmp_path, seeds=4, retries=0, timeout_minutes=0.003, factors={"model.tuning.r": [4, 2]})
    assert run_study(spec, tmp_path, workers=2, start=fits) == 6
    assert sorted(states(tmp_path).values()) == ["failed"] * 4 + ["timeout"] * 4


def test_what_runs_for_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long: list[Slow] = []
    left: list[int] = []

    class Watched(Fits):
        def __call__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Made:
            made = super().__call__(words, log, environment)
            if self.started[-1].startswith("r2"):
                made = Slow(made.code, looks=500)
                long.append(made)
            if self.started[-1] == "r2/seed-2":
                left.extend(each.looks for each in long)
                for each in long:
                    each.looks = 0
            return made

    monkeypatch.setattr(Job, "seconds", property(lambda one: 100.0 if one.planned.variant == "r2" else 1.0))
    spec = study(tmp_path, seeds=3, retries=0, factors={"model.tuning.r": [4, 2]})
    assert run_study(spec, tmp_path, workers=3, start=Watched(BROKEN)) == 6
    assert min(left) > 0, "the first two still ran when the third began"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_of_which_something_is_complete_goes_on(tmp_path: Path, workers: int) -> None:
    run_study(study(tmp_path, seeds=2, retries=0), tmp_path, start=Fits(BROKEN))
    wider = study(tmp_path, seeds=3, retries=0, factors={"model.tuning.r": [4, 2]})
    assert run_study(wider, tmp_path, workers=workers, extend=True, start=(fits := Fits(BROKEN))) == 6
    assert sorted(fits.started[:3]) == ["r4/seed-0", "r4/seed-1", "r4/seed-2"]
    assert sorted(states(tmp_path).values()) == ["complete"] * 3 + ["failed"] * 3


def test_one_death_of_the_process_that_forks_is_one(tmp_path: Path) -> None:
    killed: list[Orphan] = []

    class Once(Fits):
        def __call__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Made:
            if len(killed) == 6:
                return super().__call__(words, log, environment)
            killed.append(Orphan())
            return killed[-1]

    assert run_study(study(tmp_path, seeds=3, retries=0), tmp_path, workers=6, start=(fits := Once())) == 0
    assert (len(killed), len(fits.started)) == (6, 6)


@pytest.mark.parametrize("workers", [1, 3])
def test_five_deaths_of_the_process_that_forks_stop_the_study(tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fits = Fits({"*": Orphan})
    with pytest.raises(FtlabError, match="the process that starts trials was killed again and again") as caught:
        run_study(study(tmp_path), tmp_path, workers=workers, start=fits)
    assert (caught.value.exit_code, len(fits.started)) == (6, 5 * workers)
    assert set(states(tmp_path).values()) == {"waiting"}
    assert caplog.text.count("seed-0: lost, the process that had forked it ended") >= 5


def test_what_was_lost_comes_before_what_waits(tmp_path: Path) -> None:
    ends: dict[str, Callable[[], Made]] = {"base/tune-0": Orphan}
    fits = Fits(ends)

    class Once(Fits):
        def __call__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Made:
            made = fits(words, log, environment)
            ends.clear()
            return made

    assert run_study(study(tmp_path, factors=None, seeds=1, tune=TUNED), tmp_path, start=Once()) == 0
    assert fits.started == ["base/tune-0", "base/tune-0", "base/tune-1", "base/tune-2", "base/seed-0"]


def test_a_plugin_that_is_edited_meanwhile_stops_the_study_before_the_next_trial(tmp_path: Path) -> None:
    mine, running = tmp_path / "mine.py", Made(None)
    mine.write_text("a = 1")

    def edited() -> Made:
        mine.write_text("a = 2")
        return running

    spec = replace(study(tmp_path, seeds=3), plugins=(str(mine),))
    fits = Fits({"r2/seed-1": edited})
    with pytest.raises(
        FtlabError, match=r"other settings: the code of --plugin mine.py is another; undo it, or choose a new name\.$"
    ) as caught:
        run_study(spec, tmp_path, workers=2, start=fits)
    assert (caught.value.exit_code, fits.started, running.asked) == (2, ["r2/seed-0", "r4/seed-0", "r2/seed-1"], True)
    assert sorted(states(tmp_path).values()) == ["complete"] * 2 + ["waiting"] * 4
    mine.write_text("a = 1")
    assert run_study(spec, tmp_path, start=(later := Fits())) == 0
    assert sorted(later.started) == ["r2/seed-1", "r2/seed-2", "r4/seed-1", "r4/seed-2"]
