"""Runs that go on: after kills in unlucky places, with other settings, and not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.kill_matrix import chain
from tests.faults.processes import Forker, Hook, forker
from tests.faults.small_run import CONFIG, EPOCHS, INTERVAL, TEXTS, Place, Reference, differences, reference

STEP = "ftlab.module:FinetuneModule"


@pytest.fixture(scope="module")
def fork() -> Iterator[Forker]:
    with forker() as started:
        yield started


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {"FTLAB_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def whole(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The run that was left alone."""
    return reference(fork, tmp_path_factory.mktemp("whole") / "run")


def killed(fork: Forker, folder: Path, hook: Hook, *extra: str) -> Place:
    place = Place(folder / "run", extra)
    code, said = fork.run(place.folder, place.first, place.env, [hook])
    assert code == -9, said
    return place


def resumed(fork: Forker, place: Place, *more: str) -> tuple[int, str]:
    return fork.run(place.folder, ["fit", "--resume", str(place.run), *more], place.env)


@pytest.fixture(scope="module")
def stopped(fork: Forker, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run that was killed in step 8, for what is refused before anything is written."""
    return killed(fork, tmp_path_factory.mktemp("stopped"), Hook(f"{STEP}.training_step", call=12))


class TestKilled:
    """R3, R5, R6, R8, R9."""

    def test_before_the_short_last_window_of_an_epoch(self, fork: Forker, tmp_path: Path) -> None:
        extra = ["--trainer.accumulate_grad_batches", "3"]
        expected = reference(fork, tmp_path / "whole", extra, steps=2 * EPOCHS)
        assert expected.result["global_step"] == 2 * EPOCHS  # windows of three and of two
        assert expected.result["lr_schedulers"][0]["last_epoch"] == 2 * EPOCHS
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=15), *extra)
        assert resumed(fork, place)[0] == 0
        assert differences(place, expected) == []

    @pytest.mark.parametrize("epochs", [2, 4])
    def test_at_the_checkpoint_of_an_epochs_end(self, fork: Forker, tmp_path: Path, whole: Reference, epochs: int) -> None:
        saves = epochs * 3 // INTERVAL
        place = killed(fork, tmp_path, Hook("ftlab.callbacks.checkpoints:Checkpoints.save", call=saves, after=True))
        assert place.trace()[-1]["step"] == 3 * epochs
        assert resumed(fork, place)[0] == 0
        assert differences(place, whole) == []

    @pytest.mark.slow
    def test_after_each_single_step(self, fork: Forker, tmp_path: Path) -> None:
        each = ["--save.every_n_steps", "1"]
        died, faults = chain(fork, Place(tmp_path / "chain", each), reference(fork, tmp_path / "each", each))
        assert (died, faults) == (24, [])

    @pytest.mark.parametrize("call", [1, 2, 5])
    def test_in_validation_and_in_the_check_before_the_fit(self, fork: Forker, tmp_path: Path, whole: Reference, call: int) -> None:
        place = killed(fork, tmp_path, Hook(f"{STEP}.validation_step", call=call))
        code, said = fork.run(place.folder, place.again, place.env)
        assert code == 0, said
        assert differences(place, whole) == []
        validations = [r["step"] for r in place.metrics() if "val_loss" in r]
        assert validations == [3 * n for n in range(1, EPOCHS + 1)]

    def test_before_the_first_checkpoint(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=2))
        code, said = resumed(fork, place)
        assert code == 0
        assert f"{place.run} has no checkpoint yet; the run starts over" in said
        assert differences(place, whole) == []

    @pytest.mark.parametrize("target", ["ftlab.lock:fcntl.flock", "ftlab.callbacks.record:Record.setup"])
    def test_before_there_is_a_run(self, fork: Forker, tmp_path: Path, whole: Reference, target: str) -> None:
        place = killed(fork, tmp_path, Hook(target))
        code, said = fork.run(place.folder, place.again, place.env)
        assert code == 0, said
        assert differences(place, whole) == []


class TestDiffering:
    """R12, R13, D1–D5, D9, D10."""

    def test_workers_may_differ(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=14))
        code, said = resumed(fork, place, "--data.num_workers", "2")
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
        code, said = resumed(fork, stopped, f"--{key}", value)
        assert code == 4, said
        assert f"ftlab: error: {says}" in said
        held = key.startswith(("model.optimizer", "model.schedule"))
        advice = "leave it out, or start a new run." if held else f"leave it out, start a new run, or add --override-resume {key}."
        assert said.rstrip().endswith(advice)

    def test_an_override_lets_a_key_differ(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=12))
        words = ["--trainer.gradient_clip_val", "0.01"]
        assert resumed(fork, place, *words)[0] == 4
        code, said = resumed(fork, place, *words, "--override-resume", "trainer.gradient_clip_val")
        assert code == 0, said
        assert differences(place, whole) != []

    def test_the_learning_rate_cannot_be_overridden(self, fork: Forker, tmp_path: Path) -> None:
        optimizer = ["--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr"]
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=12), *optimizer, "1e-3")
        code, said = resumed(fork, place, *optimizer, "2e-3")
        assert code == 4, said
        assert "model.optimizer.lr is '2e-3', the run has 0.001" in said
        code, said = resumed(fork, place, *optimizer, "2e-3", "--override-resume", "model.optimizer.lr")
        assert code == 2, said
        assert "--override-resume model.optimizer.lr has no effect" in said

    def test_the_whole_first_command_may_be_repeated(self, fork: Forker, tmp_path: Path) -> None:
        optimizer = ["--model.optimizer", "{class_path: torch.optim.AdamW, init_args: {lr: 1e-3}}"]
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=12), *optimizer)
        code, said = fork.run(place.folder, place.again, place.env)
        assert code == 0, said

    def test_rows_that_changed_are_refused(self, fork: Forker, tmp_path: Path) -> None:
        place = Place(tmp_path / "run")
        config: dict[str, Any] = json.loads(json.dumps(CONFIG))
        config["data"] |= {"source": {"class_path": "JsonLines", "init_args": {"path": "rows.jsonl"}}, "val_split": None}
        (place.folder / "config.yaml").write_text(yaml.safe_dump(config))
        rows = place.folder / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        assert fork.run(place.folder, place.first, place.env, [Hook(f"{STEP}.training_step", call=12)])[0] == -9
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("another row", *TEXTS[1:])))
        code, said = resumed(fork, place)
        assert code == 4, said


class TestTargets:
    """R14, R15, R17, and what is no run."""

    def test_a_folder_that_is_no_run(self, fork: Forker, tmp_path: Path) -> None:
        code, said = fork.run(tmp_path, ["fit", "--resume", "."])
        assert code == 2
        assert "ftlab: error: --resume . is not the folder of a run: it has no config.yaml; name runs/NAME/ID." in said

    def test_automatic_without_names(self, fork: Forker, tmp_path: Path) -> None:
        place = Place(tmp_path / "run")
        code, said = fork.run(place.folder, ["fit", "--config", "config.yaml", "--resume", "auto"])
        assert code == 2
        assert "--resume auto needs run.name and run.id" in said

    def test_automatic_begins_then_finds_the_run_complete(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        place = Place(tmp_path / "run")
        assert fork.run(place.folder, place.again, place.env)[0] == 0
        assert differences(place, whole) == []
        files = {p: p.stat().st_mtime_ns for p in place.run.rglob("*")}
        code, said = fork.run(place.folder, place.again, place.env)
        assert code == 0
        assert f"{place.run} is already complete" in said
        assert {p: p.stat().st_mtime_ns for p in place.run.rglob("*")} == files

    def test_a_damaged_newest_checkpoint_is_passed_over(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=14))
        newest = max((place.run / "checkpoints").glob("step-*.ckpt"))
        newest.write_bytes(newest.read_bytes()[:-1])
        code, said = resumed(fork, place)
        assert code == 0
        assert f"{newest.name} has" in said
        assert differences(place, whole) == []

    def test_only_damaged_checkpoints(self, fork: Forker, tmp_path: Path) -> None:
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=14))
        for path in (place.run / "checkpoints").glob("step-*.ckpt"):
            path.write_bytes(b"")
        code, said = resumed(fork, place)
        assert code == 4
        assert "no checkpoint in" in said

    def test_the_clock_has_no_say(self, fork: Forker, tmp_path: Path, whole: Reference) -> None:
        place = killed(fork, tmp_path, Hook(f"{STEP}.training_step", call=14))
        newest = max((place.run / "checkpoints").glob("step-*.ckpt"))
        os.utime(newest, (0, 0))
        before = len(place.trace())
        assert resumed(fork, place)[0] == 0
        assert place.trace()[before]["step"] == 6  # the first micro-batch of a window of two, after six steps
        assert differences(place, whole) == []
