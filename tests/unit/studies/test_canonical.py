"""Which texts are numbers: YAML reads 1e-3 as text, and commits and versions can look like numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlab.studies.canonical import canonical, digest_of, whole
from ftlab.studies.spec import parse
from ftlab.studies.variants import plan
from tests.unit.studies.files import study

RATE, COMMIT = "model.optimizer.lr", "model.backbone.revision"


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 0.001), ("1E-3", 0.001), ("3", 3.0), ("-.5", -0.5), ("1e-05", 1e-5), ("5.0e-4", 5e-4), ("1e5", 1e5)]
)
def test_text_that_a_typed_parser_takes_as_a_number_is_one(text: str, number: float) -> None:
    assert canonical(text, RATE) == number
    assert digest_of(text) == digest_of(number)


@pytest.mark.parametrize("text", ["12e4567", "34e9999", "inf", "nan", "1_000", " 1", "1.10", "007", "0x10", "1e", "٣"])
def test_text_that_may_be_meant_as_text_stays_text(text: str) -> None:
    assert canonical(text, RATE) == text


@pytest.mark.parametrize("key", [COMMIT, "model.backbone.name", "data.source.revision", "data.source.path", "run.tags"])
def test_a_key_of_texts_takes_no_number(key: str) -> None:
    assert canonical("1234e5", key) == "1234e5"
    assert canonical(["1234e5"], key) == ["1234e5"]


def test_what_is_no_number_under_its_key_is_none_in_a_hash() -> None:
    hashes = {digest_of({COMMIT: canonical(text, COMMIT)}) for text in ("1e5", "10e4", "100000")}
    assert len(hashes) == 3


def test_commits_that_look_like_numbers_are_variants_of_their_own(tmp_path: Path) -> None:
    found = plan(parse(study(tmp_path, factors={COMMIT: ["12e4567", "34e9999", "1e5", "10e4", "main"]})))
    assert [v.name for v in found.variants] == ["12e4567", "34e9999", "1e5", "10e4", "main"]
    assert found.aliases == []


@pytest.mark.parametrize(
    ("key", "value", "taken"),
    [
        ("model.tuning.r", 4.0, "4"),
        ("model.tuning.r", "4.0", "4"),
        ("model.tuning.layers", [0.0, 1], "[0, 1]"),
        ("model.tuning.r", 4.5, "4.5"),
        ("model.tuning.r", True, "True"),
        ("model.tuning.r", float("inf"), "inf"),
        ("trainer.limit_train_batches", 1.0, "1.0"),
        ("model.optimizer.lr", 1.0, "1.0"),
        ("model.tuning.alpha", 16.0, "16.0"),
        (COMMIT, "4.0", "'4.0'"),
    ],
)
def test_a_key_of_whole_numbers_is_given_one_without_a_point(key: str, value: object, taken: str) -> None:
    assert repr(whole(value, key)) == taken
