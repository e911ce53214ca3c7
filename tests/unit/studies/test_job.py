"""One trial while a runner has it: its limit, and its time to leave."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ftlab.studies import job
from ftlab.studies.job import Ended, Job
from tests.unit.studies.small_study import Made, opened, study


@dataclass
class Saving(Made):
    """Takes its time to leave."""

    code: int | None = None

    def poll(self) -> int | None:
        return -9 if self.killed else self.code


def started(folder: Path, child: Made, *plugins: str) -> Job:
    queue = opened(replace(study(folder, timeout_minutes=1), plugins=plugins), folder)
    claim = queue.claim()
    assert claim is not None
    found = Job(queue=queue, claim=claim, folder=folder, start=lambda words, log, environment: child)
    assert found.look() is None
    return found


def later(of: Job, seconds: float) -> Ended | None:
    """A look after some time."""
    of._begun -= seconds
    if of.child is not None and of.child.forked is not None:
        of.child.forked -= seconds
    of._asked -= seconds
    return of.look()


@pytest.mark.parametrize("why", ["stopped", "pruned"])
def test_a_trial_that_saves_its_checkpoint_has_no_limit(tmp_path: Path, why: job._Leaving) -> None:
    child = Saving()
    one = started(tmp_path, child)
    one._leave(why)
    assert later(one, 61) is None
    assert (one.ending, child.asked, child.killed) == (why, True, False)
    child.code = 143
    ended = one.look()
    assert ended is not None
    assert ended.outcome == why


@pytest.mark.parametrize("why", ["stopped", "pruned"])
def test_a_trial_that_does_not_leave_is_killed(tmp_path: Path, why: job._Leaving) -> None:
    child = Saving()
    one = started(tmp_path, child)
    one._leave(why)
    assert later(one, 121) is None
    assert child.killed
    ended = one.look()
    assert ended is not None
    assert ended.outcome == why


def test_a_trial_that_nobody_has_asked_has_a_limit(tmp_path: Path) -> None:
    child = Saving()
    one = started(tmp_path, child)
    assert (later(one, 59), child.killed) == (None, False)
    assert (later(one, 2), child.killed) == (None, True)
    ended = one.look()
    assert ended is not None
    assert (ended.outcome, ended.error) == ("timeout", "it took longer than 1 minutes")


def test_a_trial_begins_with_its_fork(tmp_path: Path) -> None:
    child = Saving(forked=None)
    one = started(tmp_path, child)
    assert (later(one, 100), child.killed, one.seconds) == (None, False, 0.0)
    child.forked = time.monotonic() - 5
    assert (one.look(), child.killed) == (None, False)
    child.code = 0
    ended = one.look()
    assert ended is not None
    assert 5 <= ended.seconds < 50
    assert 5 <= one.queue.store.rdb.get_trial(one.claim.trial).user_attrs["result"]["wall_seconds"] < 50


def test_what_never_begins_is_given_up(tmp_path: Path) -> None:
    child = Saving(forked=None)
    one = started(tmp_path, child)
    assert (later(one, 1700), child.killed) == (None, False)
    assert (later(one, 101), child.killed) == (None, True)


def test_a_plugin_that_was_edited_before_the_fork_ends_the_trial_unsaved(tmp_path: Path) -> None:
    mine, child = tmp_path / "mine.py", Saving(forked=None)
    mine.write_text("a = 1")
    one = started(tmp_path, child, str(mine))
    mine.write_text("a = 2")
    assert (later(one, 1), child.killed) == (None, False)
    child.forked = time.monotonic()
    assert (one.look(), child.killed) == (None, True)
    ended = one.look()
    assert ended is not None
    assert (ended.outcome, "the code of --plugin mine.py is another" in ended.edited) == ("stopped", True)


def test_a_plugin_that_is_edited_behind_the_fork_leaves_the_trial_alone(tmp_path: Path) -> None:
    mine, child = tmp_path / "mine.py", Saving()
    mine.write_text("a = 1")
    one = started(tmp_path, child, str(mine))
    assert one.look() is None
    mine.unlink()
    assert (later(one, 1), child.asked, child.killed) == (None, False, False)
