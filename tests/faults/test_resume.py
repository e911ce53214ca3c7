"""Runs that go on after a kill or an error in an unlucky place, and are the run that was left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlab import checkpoint_io
from tests.faults.kill_matrix import chain
from tests.faults.processes import Forker, Hook
from tests.faults.small_run import (
    BATCHES,
    EPOCHS,
    INTERVAL,
    STEPS,
    THREES,
    WORKERS,
    Place,
    Reference,
    again,
    differences,
    killed,
    reference,
    resumed,
)  # fmt: skip

STEP = "ftlab.module:FinetuneModule"


class TestKilled:
    """R2–R6, R8, R9; R1 and the rest of R2, R3 and R6 are the kill matrix, of which test_kill_sample.py runs a part."""

    def test_before_the_short_last_window_of_an_epoch(self, fork: Forker, tmp_path: Path, threes: Reference) -> None:
        """R3."""
        assert threes.result["global_step"] == 2 * EPOCHS
        assert threes.result["lr_schedulers"][0]["last_epoch"] == 2 * EPOCHS
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=15), *THREES)
        control = again(place, tmp_path / "control")
        assert resumed(fork, place)[0] == 0
        assert differences(place, threes) == []
        assert resumed(fork, control, without="ftlab.data.loader:FinetuneLoader.load_state_dict")[0] == 0
        assert differences(control, threes) != []

    @pytest.mark.slow
    @pytest.mark.parametrize("call", range(1, EPOCHS * BATCHES + 1, 3))
    def test_in_any_micro_batch_of_a_window_of_three(self, fork: Forker, tmp_path: Path, threes: Reference, call: int) -> None:
        """R3."""
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=call), *THREES)
        assert resumed(fork, place)[0] == 0
        assert differences(place, threes) == []

    @pytest.mark.parametrize("call", [14, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, EPOCHS * BATCHES + 1, 4))])
    def test_with_worker_processes(self, fork: Forker, tmp_path: Path, whole: Reference, call: int) -> None:
        """R2: killed and continued with two workers that outlive an epoch; the rows are those of a run without any."""
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=call), *WORKERS)
        control = again(place, tmp_path / "control") if call == 14 else None
        code, said = resumed(fork, place)
        assert code == 0, said
        assert differences(place, whole) == []
        if control is not None:
            assert resumed(fork, control, without="ftlab.data.loader:FinetuneLoader.load_state_dict")[0] == 0
            assert differences(control, whole) != []

    def test_an_error_in_the_middle_of_a_window(self, fork: Forker, tmp_path: Path, threes: Reference) -> None:
        """R4: what is kept is the state after a step, and the window runs again."""
        place = Place(tmp_path / "run", THREES)
        code, said = fork.run(place.folder, place.first, place.env, [Hook(f"{STEP}.training_step", call=12, error=True)])
        assert code == 1
        assert "bug or unexpected fault: RuntimeError: as the test wants it" in said
        path = checkpoint_io.newest(place.run / "checkpoints")
        assert path is not None
        content = checkpoint_io.load(path)
        # Four epochs' halves: the twelfth micro-batch is the second of the first window of the third epoch.
        assert content["global_step"] == 4
        assert content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == BATCHES
        control = again(place, tmp_path / "control")
        before = len(place.trace())
        assert resumed(fork, place)[0] == 0
        assert place.trace()[before]["batch"] == 0
        assert differences(place, threes) == []
        # What Lightning does by itself: the window goes on after the micro-batch that failed.
        assert resumed(fork, control, without="ftlab.data.loader:FinetuneLoader.load_state_dict")[0] == 0
        assert differences(control, threes) != []

    @pytest.mark.parametrize("epochs", [2, pytest.param(4, marks=pytest.mark.slow)])
    def test_at_the_checkpoint_of_an_epochs_end(self, fork: Forker, tmp_path: Path, whole: Reference, epochs: int) -> None:
        """R5."""
        saves = epochs * 3 // INTERVAL
        place = killed(fork, tmp_path, Hook("ftlab.callbacks.checkpoints:Checkpoints.save", call=saves, after=True))
        control = again(place, tmp_path / "control") if epochs == 2 else None
        before = place.trace()
        assert before[-1]["step"] == 3 * epochs
        assert resumed(fork, place)[0] == 0
        assert place.trace()[len(before)]["epoch"] == epochs
        assert differences(place, whole) == []
        if control is not None:
            assert resumed(fork, control, without="ftlab.rng:restore")[0] == 0
            assert differences(control, whole) != []

    @pytest.mark.slow
    def test_after_each_single_step(self, fork: Forker, tmp_path: Path) -> None:
        """R6."""
        each = ["--save.every_n_steps", "1"]
        died, faults = chain(fork, Place(tmp_path / "chain", each), reference(fork, tmp_path / "each", each))
        assert (died, faults) == (24, [])

    @pytest.mark.parametrize("call", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 5])
    def test_in_validation_and_in_the_check_before_the_fit(self, fork: Forker, tmp_path: Path, whole: Reference, call: int) -> None:
        """R8."""
        place = killed(fork, tmp_path, Hook(f"{STEP}.validation_step", call=call))
        control = again(place, tmp_path / "control") if call == 5 else None
        code, said = fork.run(place.folder, place.again, place.env)
        assert code == 0, said
        assert differences(place, whole) == []
        assert [r["step"] for r in place.metrics() if "val_loss" in r] == [3 * n for n in range(1, EPOCHS + 1)]
        if control is not None:  # without the validation that is made up for, one record is missing
            assert resumed(fork, control, without="ftlab.callbacks.checkpoints:Checkpoints._validate")[0] == 0
            assert [r["step"] for r in control.metrics() if "val_loss" in r] == [3 * n for n in range(1, EPOCHS + 1) if n != 4]

    def test_before_the_last_validation_of_a_run_that_ends_by_steps(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        """R8: no step is left, so that Lightning does not even begin to train."""
        end = ("--trainer.max_steps", str(STEPS))
        place = killed(fork, tmp_path, Hook(f"{STEP}.validation_step", call=EPOCHS + 1), *end)  # the first is the check before the fit
        control = again(place, tmp_path / "control")
        assert place.metrics()[-1]["step"] == STEPS
        assert "val_loss" not in place.metrics()[-1]
        assert resumed(fork, place)[0] == 0
        assert differences(place, whole) == []
        assert resumed(fork, control, without="ftlab.callbacks.checkpoints:Checkpoints.catch_up")[0] == 0
        assert "val_loss" not in control.metrics()[-1]

    def test_before_the_first_checkpoint(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        """R9."""
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=4))
        assert [r["step"] for r in place.metrics()] == [1]
        control = again(place, tmp_path / "control")
        code, said = resumed(fork, place)
        assert code == 0
        assert f"{place.run} has no checkpoint yet; the run starts over" in said
        assert differences(place, whole) == []
        assert resumed(fork, control, without="ftlab.callbacks.jsonl:JsonLinesLogger.rewind")[0] == 0
        assert differences(control, whole) == ["metrics differs"]  # the first step stands there twice

    @pytest.mark.parametrize("target", ["ftlab.lock:fcntl.flock", "ftlab.callbacks.record:Record.setup"])
    def test_before_there_is_a_run(self, fork: Forker, tmp_path: Path, whole: Reference, target: str) -> None:
        """R9."""
        place = killed(fork, tmp_path, Hook(target))
        code, said = fork.run(place.folder, place.again, place.env)
        assert code == 0, said
        assert differences(place, whole) == []
