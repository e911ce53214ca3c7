from __future__ import annotations

import math
from typing import Any

import pytest

from ftlab.tasks.tags import complete, entities, entity_scores, is_tag, repaired


@pytest.mark.parametrize(
    ("scheme", "tags", "sound"),
    [
        ("bio", "B-x I-x O", "B-x I-x O"),
        ("bio", "I-x I-x O I-x", "B-x I-x O B-x"),
        ("bio", "B-x I-y I-y", "B-x B-y I-y"),
        ("bio", "B-x B-x", "B-x B-x"),
        ("bilou", "B-x I-x L-x U-y", "B-x I-x L-x U-y"),
        ("bilou", "B-x O I-x I-x O L-x", "U-x O B-x L-x O U-x"),
        ("bilou", "B-x I-x B-x L-x", "B-x L-x B-x L-x"),
        ("bilou", "U-x L-x I-y", "U-x U-x U-y"),
    ],
)
def test_a_repaired_sequence_has_the_entities_that_were_meant(scheme: Any, tags: str, sound: str) -> None:
    assert repaired(tags.split(), scheme) == sound.split()
    assert repaired(sound.split(), scheme) == sound.split()


def test_what_is_a_tag() -> None:
    assert [is_tag(tag, "bio") for tag in ("O", "B-x", "I-x-y", "B", "B-", "L-x", "BI-x", "-x", "x", "", 3, None)] == [True] * 3 + [
        False
    ] * 9
    assert is_tag("L-x", "bilou")
    assert complete({"b", "a"}, "bio") == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert complete({"a"}, "bilou") == ["O", "B-a", "I-a", "L-a", "U-a"]


def test_bilou_is_strict_and_bio_is_not() -> None:
    assert entities(["I-x", "I-x"], "bio") == [("x", 0, 2)]
    assert entities(["I-x", "L-x", "U-x"], "bilou") == [("x", 2, 3)]


def test_a_type_that_nothing_has_is_undefined() -> None:
    figures = entity_scores([([("a", 0, 1)], [("a", 0, 1), ("b", 2, 3)])], ["a", "b", "c"])
    assert (figures["f1_a"], figures["precision_b"], figures["recall"]) == (1.0, 0.0, 1.0)
    assert math.isnan(figures["f1_c"])
    assert entity_scores([], ["a"])["f1"] == 0.0
