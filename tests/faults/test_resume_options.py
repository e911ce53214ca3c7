"""Runs that go on with other options than they began with; more of it is in test_drift.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.processes import Forker, Hook
from tests.faults.small_run import EPOCHS, WORKERS, Place, Reference, again, differences, killed, resumed

STEP = "ftlab.module:FinetuneModule"


class TestDiffering:
    """R12, R13, D1–D5, D9, D10; more of it in test_drift.py."""

    def test_workers_may_differ(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        """R12; its negative control is R2's."""
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=14))
        code, said = resumed(fork, place, *WORKERS)
        assert code == 0, said
        assert differences(place, whole) == []

    @pytest.mark.parametrize(
        ("key", "value", "says"),
        [
            ("model.tuning.r", "8", "model.tuning.r is 8, the run has 2"),
            ("model.tuning.alpha", "64", "model.tuning.alpha is 64, the run has 16.0"),
            ("model.tuning.dropout", "0.2", "model.tuning.dropout is 0.2, the run has 0.1"),
            ("model.tuning.target_modules", "[q_proj, v_proj, k_proj]", "model.tuning.target_modules is"),
            ("model.optimizer", "SGD", "model.optimizer is 'SGD', the run has None"),
            ("model.schedule.warmup", "0.1", "model.schedule.warmup is 0.1, the run has 0.2"),
            ("model.schedule.decay", "cosine", "model.schedule.decay is 'cosine', the run has 'linear'"),
            ("model.tuning", "Full", "model.tuning is 'Full', the run has 'ftlab.strategies.lora.LoRA'"),
            (
                "model.task",
                "SequenceClassification",
                "model.task is 'SequenceClassification', the run has 'ftlab.tasks.causal_lm.CausalLM'",
            ),
            ("trainer.precision", "bf16-mixed", "trainer.precision is 'bf16-mixed', the run has None"),
            ("data.batch_size", "4", "data.batch_size is 4, the run has 2"),
            ("trainer.accumulate_grad_batches", "1", "trainer.accumulate_grad_batches is 1, the run has 2"),
            ("seed_everything", "8", "seed_everything is 8, the run has 7"),
        ],
    )
    def test_what_changes_a_step_is_refused(self, fork: Forker, stopped: Place, key: str, value: str, says: str) -> None:
        """D1–D5, D9, D10, R13."""
        code, said = resumed(fork, stopped, f"--{key}", value)
        assert code == 4, said
        assert f"ftlab: error: {says}" in said
        held = key.startswith(("model.optimizer", "model.schedule"))
        flag = "--allow-data-change" if key.startswith("data.") else f"--override-resume {key}"
        assert said.rstrip().endswith("leave it out, or start a new run." if held else f"leave it out, start a new run, or add {flag}.")

    def test_the_same_is_accepted_where_nothing_looks(self, fork: Forker, stopped: Place, tmp_path: Path) -> None:
        """The negative control of the test above: a step is changed, and nobody says so."""
        control = again(stopped, tmp_path / "control")
        words = ["--trainer.gradient_clip_val", "0.01", "--override-resume", "trainer.gradient_clip_val"]
        assert resumed(fork, control, *words[:2])[0] == 4
        assert resumed(fork, control, *words, without="ftlab.commands.resume:check_unchanged")[0] == 0

    def test_an_override_lets_a_key_differ(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=12))
        words = ["--trainer.gradient_clip_val", "0.01"]
        assert resumed(fork, place, *words)[0] == 4
        code, said = resumed(fork, place, *words, "--override-resume", "trainer.gradient_clip_val")
        assert code == 0, said
        assert differences(place, whole) != []

    @pytest.mark.slow
    def test_the_learning_rate_cannot_be_overridden(self, fork: Forker, tmp_path: Path) -> None:
        """D3."""
        optimizer = ["--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr"]
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=12), *optimizer, "1e-3")
        code, said = resumed(fork, place, *optimizer, "2e-3")
        assert code == 4, said
        assert "model.optimizer.lr is '2e-3', the run has 0.001" in said
        code, said = resumed(fork, place, *optimizer, "2e-3", "--override-resume", "model.optimizer.lr")
        assert code == 2, said
        assert "--override-resume model.optimizer.lr has no effect" in said

    def test_a_longer_run_takes_the_rates_of_its_own_schedule(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        """D10: the checkpoint holds the rate that the shorter run had come to, which is 0."""
        place, halves = Place(tmp_path / "run", ("--trainer.max_epochs", str(EPOCHS // 2))), ("--trainer.max_epochs", str(EPOCHS))
        assert fork.run(place.folder, place.first, place.env)[0] == 0
        control, before = again(place, tmp_path / "control"), len(place.trace())
        assert resumed(fork, place, *halves)[0] == 0
        expected = [record["lr"] for record in whole.trace.values() if record["epoch"] >= EPOCHS // 2]
        assert [record["lr"] for record in place.trace()[before:]] == expected
        assert resumed(fork, control, *halves, without=f"{STEP}.on_train_start")[0] == 0
        assert control.trace()[before]["lr"] != expected[0]

    def test_the_whole_first_command_may_be_repeated(self, fork: Forker, tmp_path: Path) -> None:
        optimizer = ["--model.optimizer", "{class_path: torch.optim.AdamW, init_args: {lr: 1e-3}}"]
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=12), *optimizer)
        code, said = fork.run(place.folder, place.again, place.env)
        assert code == 0, said
