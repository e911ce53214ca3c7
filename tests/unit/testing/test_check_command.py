"""`ftlab check`: tables, programs, overrides, exit codes, and what cannot be checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftlab.main import main
from ftlab.testing.conformance import CHECKS, TASK_CHECKS, matrix
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.suite import Suite, Verdict
from ftlab.testing.conformance.tasks.subject import TaskSubject
from tests.planted.sound import Merging
from tests.planted.sound_task import ROWS, SoundTask

QUICK = ("--only", "documented", "--only", "starts_at_base")


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "Full", *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Full on tiny llama models"
    assert [line.split()[:2] for line in lines[1:6]] == [
        [name, "passed"] for name in ("contract", "documented", "applies", "instances_apart", "starts_at_base")
    ]
    assert lines[6].startswith("  5 passed; ")


def test_fields_a_class_by_its_module_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "ftlab.strategies.lora:LoRA", "--r", "2", "--target_modules=[query, value]", "--format", "json", *QUICK]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["family"] == "bert"  # the first with such names
    assert {c["check"]: c["state"] for c in told["checks"]}["starts_at_base"] == "passed"


def test_a_failure_has_its_reason_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "tests.planted.broken:ChangesStepZero", "--only", "starts_at_base"]) == 2
    assert "starts_at_base   failed          the model does not start at the base" in capsys.readouterr().out


def test_a_file_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "all_of_it.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom ftlab.strategies.base import TuningStrategy\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass AllOfIt(TuningStrategy):\n    def apply(self, model, heads):\n        return model\n"
    )
    assert main(["check", f"{path}:AllOfIt", "--only", "yaml"]) == 0
    assert main(["check", "--plugin", str(path), "AllOfIt", "--only", "documented"]) == 2
    assert "the class has no docstring" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs a plugin or --all"),
        (["LoRA", "--all"], "needs a plugin or --all"),
        (["Lora"], "did you mean LoRA"),
        (["LoRA", "--only", "pading"], "did you mean padding"),
        (["LoRA", "--rank", "4"], "rank"),
        (["LoRA", "--r", "0"], "model.tuning.r is 0"),
        (["LoRA", "r=4"], "'r' is no option with a value"),
        (["ftlab.strategies.lora:Lora"], "has no plugin 'Lora'"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["check", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("ftlab: error: ")


def test_a_check_of_several_kinds_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "LoRA", "--only", "zzz"]) == 2
    assert capsys.readouterr().err.count(" contract,") == 1


def test_the_matrix_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "DECODERS", ("llama", "gpt2"))
    monkeypatch.setattr(matrix, "FAMILIES", ("bert",))
    suite = Suite(Subject(strategy=Merging(targets=["q_proj"]), root=tmp_path))
    judged = {name: Verdict(check=name, state="passed") for name in CHECKS}
    suite.verdicts = {**judged, "ddp": Verdict(check="ddp", state="declared", reason="one rank is enough")}
    task = Suite(TaskSubject(task=SoundTask(), rows=ROWS, root=tmp_path))
    task.verdicts = {name: Verdict(check=name, state="passed") for name in TASK_CHECKS}
    text = matrix.page([suite, task])
    assert "| padding | yes |" in text
    assert "| ddp | no (1) |" in text
    assert "1. Merging, ddp: one rank is enough" in text
    assert "| llama | TRBMQ |" in text
    assert "| gpt2 | refused |" in text
    assert "| bert | refused |" in text
    assert "| SoundTask (bert) | refused |" in text
    assert "| SoundTask (llama) | TRBMQ |" in text
    assert "## Checks of tasks\n\n| check | SoundTask |" in text
    assert "Checks of data sources" not in text
