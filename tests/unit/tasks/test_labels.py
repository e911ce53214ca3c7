from __future__ import annotations

import pytest

from ftlab.errors import DataError
from ftlab.tasks.labels import collect, flag_of, label_id, number_of, value_of


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([2, 0, 2], ("0", "1", "2")),
        (["10", "9", "x"], ("9", "10", "x")),
        ([True, False], ("False", "True")),
    ],
)
def test_the_set_of_labels(values: list[object], labels: tuple[str, ...]) -> None:
    assert collect(enumerate(values)) == labels


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 1, "a"], "row 2 has the label 'a' while others, from row 0, are whole numbers"),
        (["a", 3], "row 1 has the label 3 while others, from row 0, are names"),
        ([0, 1, 3000], "row 2 has the label 3000, which as an id makes 3001 labels, of which 2998 have no training row; name another"),
        ([0, -1], "row 1 has the label -1; ids are counted from 0"),
        (["a", 1.5], "row 1 has the label 1.5;"),
        (["a", "a"], "the training rows have the labels ['a']"),
        ([], "the training rows have the labels []"),
        ([0, 0], "the training rows have the labels ['0']"),
    ],
)
def test_labels_that_make_no_set(values: list[object], said: str) -> None:
    with pytest.raises(DataError) as caught:
        collect(enumerate(values))
    assert said in str(caught.value)


def test_ids_without_a_row_are_told(caplog: pytest.LogCaptureFixture) -> None:
    assert collect(enumerate([5, 1, 4])) == ("0", "1", "2", "3", "4", "5")
    assert "3 of 6 label ids have no training row, such as 0" in caplog.text
    caplog.clear()
    assert collect(enumerate([5, 1, 4]), gaps=False) == ("1", "4", "5")
    assert collect(enumerate([0, 1])) == ("0", "1")
    assert not caplog.text


@pytest.mark.parametrize(
    ("value", "labels", "found"),
    [
        ("b", ["a", "b"], 1),
        (1, ["a", "b"], 1),
        ("1", ["a", "b"], 1),  # a table without types
        (True, ["False", "True"], 1),
        (1, ["1", "2", "5"], 0),  # names that are numbers are names
        ("5", ["1", "2", "5"], 2),
        (2, ["0", "1", "2"], 2),
    ],
)
def test_a_label_by_name_or_id(value: object, labels: list[str], found: int) -> None:
    assert label_id(value, labels, 0) == found


@pytest.mark.parametrize(
    ("value", "labels"),
    [("c", ["a", "b"]), (2, ["a", "b"]), (-1, ["a", "b"]), ("-1", ["a", "b"]), (0, ["1", "2"]), (1.0, ["0", "1"]), ("²", ["a", "b", "c"])],
)
def test_a_label_outside_the_set(value: object, labels: list[str]) -> None:
    with pytest.raises(DataError, match=rf"row 17 has the label '{value}', which is not in the set of {len(labels)}; "):
        label_id(value, labels, 17)


@pytest.mark.parametrize("value", [1, "1", True, 1.0])
def test_a_flag(value: object) -> None:
    assert flag_of(value, "x", 0) == 1.0


@pytest.mark.parametrize("value", [2, 0.5, -1])
def test_what_is_no_flag(value: object) -> None:
    with pytest.raises(DataError, match=r"row 4, column 'x' holds .* each is 0 or 1"):
        flag_of(value, "x", 4)


@pytest.mark.parametrize("value", ["many", "nan", float("inf"), [1], None, True])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(DataError, match=r"row 4, column 'x' holds .*, not a finite number"):
        number_of(value, "x", 4)


@pytest.mark.parametrize("row", [{"label": None}, {"label": ""}])
def test_an_empty_label(row: dict[str, object]) -> None:
    with pytest.raises(DataError, match="row 3, column 'label' is empty"):
        value_of(row, "label", 3)


def test_a_missing_label_column() -> None:
    with pytest.raises(DataError, match=r"row 3 has no column 'label'; did you mean lable\?"):
        value_of({"lable": 1, "text": "a"}, "label", 3)
