"""P2, P3, P7 with two ranks: whichever of them is signalled, all end together, and the run goes on as if nothing had been."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.processes import Forker, Hook, codes
from tests.faults.small_run import Place, Reference, differences, place_of

STEP = "ftlab.module:FinetuneModule.training_step"
WRITE = "torch:save"
FIRST, SECOND = 3, 6
"""The calls of `torch.save` that write a checkpoint; the two before each pickle random generators for the other rank."""
SHORT = ["--trainer.max_epochs", "3"]

Hooks = dict[int, Sequence[Hook]]


def trained(fork: Forker, place: Place, arguments: Sequence[str], hooks: Hooks | None = None) -> tuple[list[int], str]:
    """Exit codes of both ranks, and what they printed."""
    ranks = fork.ranks(place.folder, arguments, place.env, hooks)
    ended = codes(ranks)
    return ended, "".join(rank.text for rank in ranks)


@pytest.fixture(scope="module")
def whole(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The run of two ranks that was left alone."""
    place = Place(tmp_path_factory.mktemp("whole") / "run", SHORT)
    ended, said = trained(fork, place, place.first)
    assert ended == [0, 0], said
    return Reference({place_of(r): r for r in place.trace()}, place.result())


def term(target: str, *calls: int) -> list[Hook]:
    return [Hook(target, signal.SIGTERM, call=call) for call in calls]


def wrongly_stopped(place: Place, ended: list[int], said: str) -> list[str]:
    """What is not as it must be when two ranks have been asked to stop."""
    found = [f"exit codes {ended}"] if ended != [143, 143] else []
    found += [] if said.count("stopped by SIGTERM after step") == 1 else [f"said {said[-500:]}"]
    step = max((record["step"] for record in place.trace()), default=0)
    saved = place.run / "checkpoints" / f"step-{step:08d}.ckpt"
    return found + ([] if saved.is_file() else [f"{saved.name} is not there"])


def continues(fork: Forker, place: Place, whole: Reference) -> None:
    """The resumed run is the one that was left alone."""
    ended, said = trained(fork, place, place.again)
    assert ended == [0, 0], said
    assert differences(place, whole) == []


CASES: dict[str, Hooks] = {
    "rank 1": {1: term(STEP, 3)},
    "rank 0": {0: term(STEP, 3)},
    "both": {0: term(STEP, 3), 1: term(STEP, 3)},
    "at different steps of one window": {0: term(STEP, 4), 1: term(STEP, 3)},
    "rank 1 twice": {1: term(STEP, 3, 4)},
    "both twice": {0: term(STEP, 3, 4), 1: term(STEP, 3, 4)},
    "rank 0 in the write": {0: term(WRITE, FIRST)},
    "rank 1 in the step, rank 0 in the write": {0: term(WRITE, FIRST), 1: term(STEP, 3)},
}
"""Who is signalled, and where."""
SAMPLE = "rank 1"


@pytest.mark.parametrize("case", [name if name == SAMPLE else pytest.param(name, marks=pytest.mark.slow) for name in CASES])
def test_both_ranks_stop_and_go_on(fork: Forker, tmp_path: Path, whole: Reference, case: str) -> None:
    """P2, P3: one or both ranks are signalled, once or twice, in a step or in a checkpoint's write."""
    place = Place(tmp_path / "run", SHORT)
    assert wrongly_stopped(place, *trained(fork, place, place.first, CASES[case])) == []
    continues(fork, place, whole)


@pytest.mark.parametrize("left_out", ["ftlab.signals:SignalFlag.install", "torch.distributed:all_reduce"])
def test_without_the_flag_or_the_agreement_they_do_not(fork: Forker, tmp_path: Path, left_out: str) -> None:
    """P2, P3, control: the signal is not noted, or the ranks do not tell each other."""
    place = Place(tmp_path / "run", SHORT)
    without = Hook(left_out, signal=0)
    ranks = fork.ranks(place.folder, place.first, place.env, {0: [without], 1: [*CASES[SAMPLE][1], without]})
    try:
        ended = codes(ranks, 15.0)
    except AssertionError as hang:
        assert str(hang).startswith("hangs")  # noqa: PT017  # one of the ways not to end
        return
    assert wrongly_stopped(place, ended, "".join(rank.text for rank in ranks)) != []


@pytest.mark.slow
def test_the_third_signal_in_the_write_ends_it_at_once(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    """P3: three within five seconds; the old checkpoint stays, no rank survives, and the run goes on from it."""
    place = Place(tmp_path / "run", SHORT)
    ended, said = trained(fork, place, place.first, {0: term(WRITE, SECOND, SECOND, SECOND)})
    assert ended[0] == 143
    assert ended[1] != 0
    assert "a checkpoint is saved" not in said
    assert [p.name for p in (place.run / "checkpoints").glob("step-*.ckpt")] == ["step-00000002.ckpt"]
    continues(fork, place, whole)


@pytest.mark.slow
def test_a_rank_that_is_stopped_for_a_minute_is_waited_for(fork: Forker, tmp_path: Path, whole: Reference) -> None:
    """P7: SIGSTOP of rank 1 for 60 s, then SIGCONT."""
    place = Place(tmp_path / "run", SHORT)
    ranks = fork.ranks(place.folder, place.first, place.env, {1: [Hook(STEP, signal.SIGSTOP, call=4)]})
    assert ranks[1].until(lambda: ranks[1].state() == "T")
    time.sleep(60)  # the row's minute
    ranks[1].kill(signal.SIGCONT)
    assert codes(ranks) == [0, 0], ranks[0].text
    assert differences(place, whole) == []
