"""The suites of tasks and data sources: all built-ins pass, from the class that an author writes and from the shell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from torch import nn
from transformers import PreTrainedTokenizerBase

from ftlab import registry
from ftlab.errors import ConfigError
from ftlab.main import main
from ftlab.rows import Examples, Key, Stored
from ftlab.tasks.bert_pretraining import BertPretraining
from ftlab.testing import DataConformance, TaskConformance
from ftlab.testing.conformance import OF_KIND
from ftlab.testing.conformance.making import find
from ftlab.testing.conformance.opening import Wanted, opened
from ftlab.testing.conformance.suite import Suite
from ftlab.testing.conformance.tasks.subject import TaskSubject
from tests.planted.broken_sources import BareOSError
from tests.planted.broken_tasks import AttendsToPadding, LossInBits
from tests.planted.sound_source import SoundSource
from tests.planted.sound_task import ROWS, SoundTask

BUILT_IN = [p for p in registry.plugins() if p.built_in and p.kind != "strategies"]
QUICK = {"SequenceClassification", "LabelledFiles"}


class TestSoundTask(TaskConformance):
    task = AttendsToPadding()
    fails: ClassVar[Mapping[str, str]] = {"padding": "it leaves out the mask, on purpose"}


class TestSoundSource(DataConformance):
    source = SoundSource(path="lines.txt")
    files = SoundSource.sample.files


@dataclass(frozen=True, kw_only=True)
class Silent(SoundTask):
    """Cannot say what it fails."""

    def fails(self, model: nn.Module) -> Mapping[str, str]:
        raise KeyError("pooler")


@dataclass(frozen=True, kw_only=True)
class MasksTheEnd(BertPretraining):
    """Masks the token that ends a row, and asks for it."""

    def draw(self, examples: Examples, index: int, key: Key, tokenizer: PreTrainedTokenizerBase) -> Stored:
        shown = {name: array.copy() for name, array in super().draw(examples, index, key, tokenizer).items()}
        shown["mlm"][-1], shown["input_ids"][-1] = shown["input_ids"][-1], tokenizer.mask_token_id
        return shown


@pytest.mark.parametrize("plugin", [pytest.param(p, id=p.name, marks=[] if p.name in QUICK else pytest.mark.slow) for p in BUILT_IN])
def test_every_task_and_source_of_ftlab_passes(plugin: registry.Plugin, tmp_path: Path) -> None:
    verdicts = Suite(opened(*find(plugin.class_path), Wanted(root=tmp_path, fields={}))).run()
    assert [f"{v.check}: {v.reason}" for v in verdicts if v.state in ("failed", "not run")] == []


@pytest.mark.parametrize("kind", list(OF_KIND))
def test_every_check_says_what_must_hold_and_which_bug_it_stands_for(kind: str) -> None:
    for check in OF_KIND[kind].values():
        first, _, rest = (check.run.__doc__ or "").strip().partition("\n\n")
        assert first.endswith(".")
        assert rest.strip().endswith(".")
        assert set(check.needs) | set(check.beside) <= set(OF_KIND[kind])


@pytest.mark.parametrize(
    ("words", "declared"),
    [
        ("SentenceEmbedding --pooling last --family llama", []),
        ("SentenceEmbedding --loss contrastive", ["split_batches", "heads"]),
        ("SequenceClassification --class_weights balanced", ["hf_loss"]),
        ("SequenceClassification --kind ordinal", ["hf_loss"]),
        ("SequenceClassification --label_smoothing 0.1", ["hf_loss"]),
        ("SequenceClassification --class_weights [1,1,1]", []),
        ("BertPretraining --family albert", []),
        ("MaskedLM --family albert", []),
    ],
)
def test_what_a_task_cannot_pass_depends_on_its_fields_and_the_model(
    words: str, declared: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *words.split(), "--format", "json"]) == 0
    states = {c["check"]: c["state"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert [name for name, state in states.items() if state == "declared"] == declared


def test_a_family_that_the_task_refuses_is_told_by_the_check_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "NextSentencePrediction", "--family", "albert"]) == 2
    told = capsys.readouterr().out
    assert "binds_once      failed          no tiny albert model does for the task: " in told
    assert "1 failed" in told


def test_a_task_that_cannot_say_what_it_fails_breaks_its_contract(tmp_path: Path) -> None:
    verdicts = Suite(TaskSubject(task=Silent(), rows=ROWS, root=tmp_path)).run()
    assert {v.state for v in verdicts[1:]} == {"not run"}
    assert verdicts[0].reason == "KeyError: 'pooler'"


def test_a_special_token_is_not_to_be_guessed_where_a_draw_makes_the_rows(tmp_path: Path) -> None:
    suite = Suite(TaskSubject(task=MasksTheEnd(), rows=BertPretraining.sample.rows, root=tmp_path))
    assert suite.verdict("special_tokens").reason == "of example 0, 'mlm' asks for the special tokens [2] behind mask tokens"


def test_too_few_rows_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"SoundTask has 3 sample rows, and the checks need 4; write sample = Sample\(rows=\[…\]\)"):
        TaskSubject(task=SoundTask(), rows=ROWS[:3], root=tmp_path)


def test_under_pytest_a_task_fails_with_the_bug_that_it_stands_for() -> None:
    class Author(TaskConformance):
        task = LossInBits()

    Author.setup_class()
    try:
        with pytest.raises(pytest.fail.Exception, match=r"(?s)hf_loss: the loss of example 0 is .* by BertForSequence.*a plausible number"):
            Author().test_conforms("hf_loss")
        Author().test_conforms("padding")
    finally:
        Author.teardown_class()


def test_under_pytest_a_source_gets_its_files() -> None:
    class Author(DataConformance):
        source = BareOSError(path="lines.txt")
        files = SoundSource.sample.files

    Author.setup_class()
    try:
        with pytest.raises(pytest.fail.Exception, match=r"without lines\.txt, FileNotFoundError is raised"):
            Author().test_conforms("missing_file")
    finally:
        Author.teardown_class()


def test_a_task_from_the_shell_with_rows_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**row, "label": f"kind {i % 2}"}) + "\n" for i, row in enumerate(ROWS)))
    words = ["check", "tests.planted.sound_task:SoundTask", "--labels", "[kind 0, kind 1]", "--rows", str(path), "--only", "counts"]
    assert main([*words, "--family", "llama", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["task"] == "tests.planted.sound_task:SoundTask"
    assert told["family"] == "llama"
    assert told["checks"][-1] == {**told["checks"][-1], "check": "counts", "state": "passed"}


def test_a_source_from_the_shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", "tests.planted.broken_sources:SplitsAreKeys", "--only", "unknown_split", "--only", "missing_file"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "SplitsAreKeys"
    assert "  unknown_split  failed          for an unknown split rows() raises KeyError ('no_such_split') instead of a DataError" in lines
    assert "  missing_file   passed" in lines
    path = tmp_path / "own.txt"
    path.write_text("a\nb\nc\nd\n")  # a file of the user's is neither moved nor changed
    words = ["check", "tests.planted.sound_source:SoundSource", "--path", str(path), "--only", "missing_file"]
    assert main(words) == 0
    assert "not applicable  the source reads no file that was written for it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["SequenceClassification", "--only", "merges"], "--only merges is no check of tasks"),
        (["CausalLM", "--only", "pading"], "did you mean padding"),
        (["CausalLM", "--rows", "nothing.jsonl"], "nothing.jsonl does not exist"),
        (["CausalLM", "--block_size", "1"], "model.task.block_size is 1"),
        (["Csv", "--delimiter", "ab"], "delimiter is 'ab'"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["check", *words]) != 0
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("ftlab: error: ")
