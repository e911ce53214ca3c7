"""A run that goes on with other rows, or with other versions of what it stands on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ftlab import checkpoint_io
from tests.faults.conftest import Run
from tests.faults.drift_run import RESUME, accepted, resumed, rows, steps
from tests.unit.test_checkpoint import vouched


class TestData:
    """R13."""

    def changed(self, folder: Path) -> None:
        path = folder / "rows.jsonl"
        path.write_text(path.read_text().replace("number 3", "number 33"))

    def fingerprint(self, drifting: Path) -> str:
        stamp = checkpoint_io.load(drifting / "checkpoints" / "last.ckpt")["ftlab"]
        return str(stamp["fingerprints"]["data"])[:12]

    @pytest.mark.parametrize("order", [False, True])
    def test_other_rows_are_refused_with_both_fingerprints(self, drifting: Path, warm: Run, folder: Path, order: bool) -> None:
        path = folder / "rows.jsonl"
        if order:
            path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
        else:
            self.changed(folder)
        old, said = self.fingerprint(drifting), resumed(warm)
        assert said.startswith(f"the checkpoint rests on the data {old}, this run has ")
        assert said.endswith("; give data the rows that the run began with, start a new run, or add --allow-data-change.")
        accepted(warm, "ftlab.module:check")
        assert self.fingerprint(drifting) == said.split("this run has ")[1][:12]

    def test_the_flag_lets_them_differ_and_withdraws_the_claim_once(self, drifting: Path, warm: Run, folder: Path) -> None:
        self.changed(folder)
        said = accepted(warm, more=("--allow-data-change",))
        assert said.count("withdrawn") == 1
        assert "the rows changed: this run is not the one that was stopped, and the claim that it is exact is withdrawn" in said
        result = warm(*RESUME, "--trainer.max_steps", "5")  # from the next checkpoint on they are the run's rows
        assert result.code == 0, result.err
        assert "withdrawn" not in result.err

    def test_another_batch_size(self, drifting: Path, warm: Run) -> None:
        said = resumed(warm, "--data.batch_size", "3")
        assert said == "data.batch_size is 3, the run has 2; leave it out, start a new run, or add --allow-data-change."
        said = accepted(warm, more=("--data.batch_size", "3", "--allow-data-change"))
        assert said.count("data.batch_size changed: this run is not the one that was stopped") == 1

    @pytest.mark.parametrize("epoch_over", [False, True])
    @pytest.mark.parametrize("number", [2, pytest.param(10, marks=pytest.mark.slow)])
    def test_the_epoch_begins_anew_with_the_new_rows(self, drifting: Path, warm: Run, folder: Path, number: int, epoch_over: bool) -> None:
        """With two steps of the first epoch's three done, or all, and no limit but two epochs."""
        if epoch_over:
            assert warm(*RESUME, "--trainer.max_steps", "3").code == 0
        (folder / "rows.jsonl").write_text(rows(number) if number > 2 else rows(3))
        words = ("--trainer.max_steps", "-1", "--trainer.log_every_n_steps", "1", "--save.every_n_steps", "100")
        result = warm(*RESUME, *words, "--allow-data-change")
        assert result.code == 0, result.err
        epoch = (max(number, 3) + 1) // 2
        assert steps(drifting) == (3 + epoch if epoch_over else 2 + 2 * epoch)
        last = checkpoint_io.load(drifting / "checkpoints" / "last.ckpt")
        assert last["epoch"] == 1
        # The decay ends where the run does, no step sooner; the first step still has the rate that the checkpoint holds.
        assert last["lr_schedulers"][0]["_last_lr"] == [0.0]
        logged = [json.loads(line) for line in (drifting / "metrics.jsonl").read_text().splitlines()]
        assert 0 not in [record["lr"] for record in logged if record["step"] > (4 if epoch_over else 3)]

    def test_the_flag_needs_a_run(self, warm: Run) -> None:
        result = warm("fit", "--config", "good.yaml", "--allow-data-change")
        assert result.code == 2
        assert "--allow-data-change goes with --resume RUN; add it, or leave this out." in result.err

    def test_the_rows_are_not_asked_for_when_nothing_is_trained(self, drifting: Path, warm: Run, folder: Path) -> None:
        self.changed(folder)
        checkpoint = str(drifting / "checkpoints" / "last.ckpt")
        words = ("--config", str(drifting / "config.yaml"), "--ckpt_path", checkpoint, "--data.val_split", "train", "--run.id", "z")
        result = warm("validate", *words)
        assert result.code == 0, result.err


def _older(packages: dict[str, str]) -> None:
    packages["torch"] = "2.11.0"


def _gone(packages: dict[str, str]) -> None:
    packages["flash-attn"] = "2.8"


class TestVersions:
    """D11."""

    @pytest.mark.parametrize(
        ("change", "row"), [(_older, r"torch +2\.11\.0 +-> 2\.\d+"), (_gone, r"flash-attn +2\.8 +-> -")]
    )  # fmt: skip
    def test_a_table_and_the_claim_withdrawn(self, drifting: Path, warm: Run, change: Callable[[dict[str, str]], None], row: str) -> None:
        path = (drifting / "checkpoints" / "last.ckpt").resolve()
        content = checkpoint_io.load(path)
        change(content["ftlab"]["packages"])
        vouched(path, content)
        said = accepted(warm)
        assert said.count("versions changed, and the claim that the run goes on to the last bit is withdrawn:") == 1
        (line,) = [line for line in said.splitlines() if "->" in line]
        assert re.search(row, line)
