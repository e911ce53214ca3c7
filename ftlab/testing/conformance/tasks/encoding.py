"""From rows to examples: a pure function, and one sentence for what cannot be used."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ftlab.errors import DataError
from ftlab.rows import Row
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import BrokenError, NotApplicableError, require, task_check
from ftlab.testing.conformance.subject import seed_all
from ftlab.testing.conformance.tasks.subject import TaskSubject, changed
from ftlab.testing.models import CONTEXT

BAD = 1
"""The row that is spoilt."""
VALUES: tuple[object, ...] = (None, "", " ", "no such value", "long " * 40, 3, -1, 2.5, True, [], ["a", 1], {}, "\ud800")


@task_check("binds_once")
def encodes(subject: TaskSubject) -> None:
    """Rows become examples that the token cache can hold: `input_ids` within the limit, the row's number, flat lists of numbers.

    What the cache rounds, cuts or refuses is found in the middle of a long preparation.
    """
    examples = subject.encoded(subject.rows)
    require(bool(examples), "the sample rows give no example")
    for example in examples:
        require({"input_ids", "row"} <= example.keys(), f"an example has the fields {sorted(example)}, without input_ids or row")
        require(example["row"] in range(len(subject.rows)), f"an example says that it is of row {example['row']}")
        ids = example["input_ids"]
        require(isinstance(ids, list) and bool(ids), f"input_ids is no list of tokens: {ids!r:.60}")
    require(len(examples) >= 4, f"the sample rows give {len(examples)} examples; the checks need 4, so add rows or make examples shorter")
    wide = subject.whole().inputs["input_ids"].shape[-1]
    require(wide <= CONTEXT, f"with a limit of {CONTEXT} tokens a batch has {wide}")


@task_check("encodes")
def encode_pure(subject: TaskSubject) -> None:
    """`encode` gives the same examples again, whatever was drawn before and in whatever process, and leaves the rows alone.

    Its result is cached: what was random stays frozen for all epochs, and is another on the next machine.
    """
    rows = copy.deepcopy(list(subject.rows))
    found = []
    for seed in (1, 2):
        seed_all(seed)
        before = _generators()
        found.append(json.dumps(subject.encoded(rows)))
        require(before == _generators(), "encode draws from a global random generator; what is random belongs in draw")
    require(found[0] == found[1], "encoded twice, the rows give other examples")
    require(rows == list(subject.rows), "encode changes the rows that it is given")
    server.call("encode", subject, {"examples": found[0]})


def _generators() -> tuple[str, ...]:
    return repr(random.getstate()), repr(np.random.get_state()), torch.get_rng_state().numpy().tobytes().hex()


@task_check("encodes")
def columns_named(subject: TaskSubject) -> None:
    """A column that is missing from a row is named, with the number of the row; what `columns` leaves out may be missing.

    A KeyError after an hour of tokenising says neither.
    """
    needed = subject.task.columns(True)
    for column in subject.rows[0]:
        rows: list[Row] = [{k: v for k, v in row.items() if k != column or i != BAD} for i, row in enumerate(subject.rows)]
        said = _refused(subject, rows, f"without the column '{column}' in row {BAD}")
        if said is None:
            require(column not in needed, f"columns() names '{column}', but a row without it is taken")
        else:
            named = column in said and re.search(rf"\brow {BAD}\b", said)
            require(bool(named), f"without the column '{column}' in row {BAD}, the error names not both: {said}")


@task_check("columns_named", "encode_pure")
def bad_values(subject: TaskSubject) -> None:
    """A value that cannot be used is a `DataError` that names a row; nothing else is raised.

    A traceback out of a tokenizer does not say which of a million rows it was.
    """
    for column in subject.rows[0]:
        for value in VALUES:
            rows = [{**row, column: value} if i == BAD else row for i, row in enumerate(subject.rows)]
            said = _refused(subject, rows, f"with {value!r:.20} in column '{column}' of row {BAD}")
            named = said is None or re.search(r"\brows? \d", said)
            require(bool(named), f"with {value!r:.20} in column '{column}' of row {BAD}, the error names no row: {said}")


def _refused(subject: TaskSubject, rows: Sequence[Row], what: str) -> str | None:
    """What is said of rows that are refused; None of those that are taken."""
    try:
        subject.stored(subject.encoded(rows))
    except DataError as error:
        return str(error)
    except Exception as error:  # whatever a plugin raises is a finding
        raise BrokenError(f"{what}, encode raises {type(error).__name__} ({error}) instead of a DataError") from error
    return None


@task_check("encodes")
def unlabelled(subject: TaskSubject) -> None:
    """Rows without labels are encoded and predicted.

    A task that needs labels to predict is of no use once it is trained.
    """
    examples = subject.encoded(list(_stripped(subject)), labelled=False)
    require(bool(examples), "rows without labels give no example")
    store, task = subject.stored(examples), subject.bound
    shown = [task.draw(store, i, (0, 0, i), subject.tokenizer) for i in range(len(store))]
    records = task.predict(subject.model, task.collate(shown, subject.tokenizer))
    require(len(records) == len(store), f"predict gives {len(records)} records for {len(store)} examples without labels")


@task_check("unlabelled", "draws")
def same_inputs(subject: TaskSubject) -> None:
    """What the model sees of a row is the same with and without its label.

    A label that reaches the inputs is a score that nobody gets again; a prompt that is built differently is one that nobody trained.
    """
    without = subject.stored(subject.encoded(list(_stripped(subject)), labelled=False))
    if set(subject.task.columns(True)) == set(subject.task.columns(False)):
        raise NotApplicableError("the task needs no column for labels")
    task, found = subject.bound, []
    for store in (subject.store, without):
        shown = [task.draw(store, i, (0, 0, i), subject.tokenizer) for i in range(len(store))]
        made = task.collate(shown, subject.tokenizer)
        found.append(type(made)(inputs=made.inputs, labels={}, rows=made.rows))
    require(not changed(*found), f"without labels, {changed(*found)} of the batch is another")


def _stripped(subject: TaskSubject) -> Iterator[Row]:
    labels = set(subject.task.columns(True)) - set(subject.task.columns(False))
    return ({k: v for k, v in row.items() if k not in labels} for row in subject.rows)
