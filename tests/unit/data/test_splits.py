from __future__ import annotations

import logging

import pytest

from ftlab.data.sources.in_memory import Rows
from ftlab.data.splits import resolve
from ftlab.errors import ConfigError, DataError


def source(*splits: str, count: int = 40) -> Rows:
    return Rows(items={split: [{"text": f"{split} {i}"} for i in range(count)] for split in splits})


def wanted(train: str = "train", val: float | str | None = "auto", test: float | str | None = None) -> dict[str, float | str | None]:
    return {"train": train, "val": val, "test": test, "predict": None}


def numbers(rows: Rows, settings: dict[str, float | str | None], seed: int = 0) -> dict[str, list[int]]:
    return {key: [n for n, _ in view.rows(rows)] for key, view in resolve(rows, settings, seed).items()}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_auto_takes_the_validation_split_of_the_source(name: str) -> None:
    views = resolve(source("train", "test", name), wanted(), 0)
    assert (views["val"].split, views["train"].split) == (name, "train")
    assert numbers(source("train", "test", name), wanted()) == {"val": [*range(40)], "train": [*range(40)]}


def test_auto_cuts_a_tenth_where_the_source_has_none() -> None:
    found = numbers(source("train", "test"), wanted())
    assert (len(found["train"]), len(found["val"])) == (36, 4)


def test_auto_never_validates_on_the_training_split() -> None:
    views = resolve(source("dev"), wanted(train="dev"), 0)
    assert views["val"].first > 0
    assert views["train"].last == views["val"].first


def test_a_split_that_is_both_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        resolve(source("train"), wanted(val="train"), 0)
    assert "both 'train'" in caplog.text


@pytest.mark.parametrize("count", [3, 10, 37, 40, 101])
@pytest.mark.parametrize(("val", "test"), [(0.1, None), (None, 0.3), (0.25, 0.25), (1 / 3, 1 / 3), (0.05, 0.9)])
def test_shares_are_disjoint_and_complete(count: int, val: float | None, test: float | None) -> None:
    rows = source("train", count=count)
    views = resolve(rows, wanted(val=val, test=test), 7)
    parts: list[int] = []
    for view in views.values():
        try:
            numbered = list(view.rows(rows))
        except DataError:  # so few rows that the share holds none
            continue
        assert [row["text"] for _, row in numbered] == [f"train {n}" for n, _ in numbered]
        assert [n for n, _ in numbered] == sorted(n for n, _ in numbered)
        parts += [n for n, _ in numbered]
    assert sorted(parts) == list(range(count))


def test_the_cut_is_random_and_depends_on_its_seed_alone() -> None:
    first, again, other = (numbers(source("train"), wanted(val=0.5), seed) for seed in (1, 1, 2))
    assert first == again
    assert first["val"] != other["val"]
    assert first["val"] != list(range(20, 40))


@pytest.mark.parametrize(("val", "test"), [(0.0, None), (1.0, None), (-0.1, None), (0.5, 0.5), (1, None), (0.2, 1.5)])
def test_wrong_shares(val: float, test: float | None) -> None:
    with pytest.raises(ConfigError, match=r"data\.val_split is .* above 0 and together below 1"):
        resolve(source("train"), wanted(val=val, test=test), 0)


def test_a_share_of_too_few_rows() -> None:
    rows = source("train", count=4)
    with pytest.raises(DataError, match=r"split 'train' has 4 rows, of which a share of 0\.1 is none"):
        list(resolve(rows, wanted(val=0.1), 0)["val"].rows(rows))


def test_a_split_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"data\.val_split is 'vaild', but the source has train, valid; did you mean valid\?"):
        resolve(source("train", "valid"), wanted(val="vaild"), 0)


def test_without_a_training_split_the_others_are_still_there() -> None:
    assert resolve(source("test"), wanted(test="test"), 0).keys() == {"test"}
