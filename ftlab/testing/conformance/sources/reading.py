"""What a source reads: named splits of rows, the same every time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import zip_longest

from ftlab.data.loader import Plan
from ftlab.errors import DataError
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import BrokenError, require, source_check
from ftlab.testing.conformance.sources.subject import SourceSubject, batches, number_of, seen
from ftlab.testing.conformance.subject import seed_all

UNKNOWN = "no_such_split"


@source_check("contract")
def splits(subject: SourceSubject) -> None:
    """The splits have names, and each has rows: mappings from the names of columns to values.

    A split without rows is found when everything else has been loaded.
    """
    names = subject.source.splits()
    require(isinstance(names, tuple) and bool(names), f"splits() gives {names!r}; a tuple of at least one name is wanted")
    require(all(isinstance(n, str) and n for n in names) and len(set(names)) == len(names), f"splits() gives {names!r}; name each once")
    require(names == subject.source.splits(), "splits() gives other names the second time")
    for name in names:
        rows = subject.rows(name)
        require(bool(rows), f"the split '{name}' has no rows")
        for number, row in enumerate(rows):
            plain = isinstance(row, Mapping) and bool(row) and all(isinstance(column, str) for column in row)
            require(plain, f"row {number} of the split '{name}' is {row!r:.60}; a mapping from columns to values is wanted")


@source_check("splits")
def repeats(subject: SourceSubject) -> None:
    """A split has the same rows in the same order every time, also while it is being read elsewhere, whatever was drawn before.

    The labels are found in one pass, the tokens in another: shuffled in between, rows get each other's numbers.
    """
    for name in subject.source.splits():
        expected = subject.hashes(name)
        require(bool(expected), f"read a second time, the split '{name}' has no rows")
        for seed in (1, 2):
            seed_all(seed)
            random.random()
            require(subject.hashes(name) == expected, f"read again, the split '{name}' has other rows or another order")
        for one, other in zip_longest(*(subject.source.rows(name) for _ in range(2))):
            same = one is not None and other is not None and number_of(one) == number_of(other)
            require(same, f"two passes over the split '{name}' at the same time give different rows")


@source_check("repeats")
def resumes(subject: SourceSubject) -> None:
    """A fresh process that goes on from a loader's state sees the rows that this one would have seen.

    What follows from a set's order, a clock or an iterator's place is another row when a run goes on.
    """
    name = subject.source.splits()[0]
    plan = Plan(batch_size=2, seed=1, shuffle=True)
    store = subject.store(name)
    loader = batches(store, plan)
    expected = [*seen(loader), *seen(loader)]
    broken = batches(store, plan)
    begun = [next(seen(broken))]
    server.call("resume_rows", subject, {"split": name, "state": broken.state_dict(), "begun": begun, "expected": expected})


@source_check("resumes")
def ranks(subject: SourceSubject) -> None:
    """Every process reads all rows; ftlab gives each rank its own, so that two see all of them, none twice.

    A source that deals rows out by rank itself leaves half of them to nobody.
    """
    for name in subject.source.splits():
        server.call("share_rows", subject, {"split": name, "rows": subject.hashes(name)}, ranks=2)


@source_check("splits")
def unknown_split(subject: SourceSubject) -> None:
    """A split that there is not is a `DataError` of one sentence that names those that there are.

    A KeyError says neither what was looked for nor what there is; no rows at all say nothing.
    """
    names = subject.source.splits()
    try:
        rows = list(subject.source.rows(UNKNOWN))
    except DataError as error:
        said = str(error)
        require("\n" not in said and UNKNOWN in said, f"the error for an unknown split does not name it in one sentence: {said}")
        require(all(name in said for name in names), f"the error for an unknown split does not name {', '.join(names)}: {said}")
    except Exception as error:  # whatever a plugin raises is a finding
        raise BrokenError(f"for an unknown split rows() raises {type(error).__name__} ({error}) instead of a DataError") from error
    else:
        require(False, f"rows('{UNKNOWN}') gives {len(rows)} rows, though there is no such split")
