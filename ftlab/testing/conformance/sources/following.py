"""Whether a source's fingerprint follows its rows, and what it says of files that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ftlab.errors import DataError, FtlabError
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import BrokenError, NotApplicableError, require, source_check
from ftlab.testing.conformance.sources.subject import SourceSubject

_LETTERS = 8
"""At most so many letters of a file are changed until one gives other rows."""


@source_check("repeats")
def fingerprint(subject: SourceSubject) -> None:
    """The fingerprint of a split is the same every time and in every process, and another for a split with other rows.

    One that changes makes every start tokenise anew, and resuming impossible; one that splits share gives one the other's tokens.
    """
    found: dict[str, list[int]] = {}
    for name in subject.source.splits():
        first = subject.source.fingerprint(name)
        require(isinstance(first, str) and bool(first), f"fingerprint('{name}') is {first!r:.60}; text is wanted")
        require(first == subject.source.fingerprint(name), f"asked again, the fingerprint of the split '{name}' is another")
        rows = subject.hashes(name)
        require(found.setdefault(first, rows) == rows, f"the split '{name}' has the fingerprint of one with other rows")
        server.call("same_fingerprint", subject, {"split": name, "fingerprint": first})


@source_check("fingerprint")
def fingerprint_follows(subject: SourceSubject) -> None:
    """Where a file is changed so that the rows are others, the fingerprint is another.

    Otherwise a run trains on the old tokens.
    """
    tried = False
    for path in subject.files:
        content = path.read_bytes()
        try:
            tried |= any(_follows(subject, path, changed) for changed in _variants(content))
        finally:
            path.write_bytes(content)
    if not tried:
        raise NotApplicableError("no file could be changed so that other rows are read; override fingerprint with care")


def _variants(content: bytes) -> Iterator[bytes]:
    """The contents with one letter changed, the last one first; without their last line, and with that line twice."""
    letters = [i for i in range(len(content) - 1, -1, -1) if content[i : i + 1].isalpha()]
    for place in letters[:: max(1, len(letters) // _LETTERS)]:
        yield content[:place] + (b"x" if content[place : place + 1] != b"x" else b"y") + content[place + 1 :]
    lines = content.splitlines(keepends=True)
    if len(lines) > 1:
        yield b"".join(lines[:-1])
        yield b"".join([*lines, lines[-1]])


def _follows(subject: SourceSubject, path: Path, changed: bytes) -> bool:
    """Whether the changed file gives other rows, whose fingerprint must be another."""
    names, followed = subject.source.splits(), False
    before = {name: (subject.hashes(name), subject.source.fingerprint(name)) for name in names}
    content = path.read_bytes()
    path.write_bytes(changed)
    try:
        for name in names:
            if name in subject.source.splits() and subject.hashes(name) != before[name][0]:
                followed = True
                other = subject.source.fingerprint(name)
                require(other != before[name][1], f"{path.name} has changed, and the split '{name}' has other rows and its old fingerprint")
    except FtlabError:
        return followed  # the changed file is none that can be read
    finally:
        path.write_bytes(content)
    return followed


@source_check("repeats")
def missing_file(subject: SourceSubject) -> None:
    """A file that is not there is a `DataError` of one sentence that names it.

    A traceback out of a library says what could not be opened, and not which key named it.
    """
    if not subject.files:
        raise NotApplicableError("the source reads no file that was written for it")
    for path in subject.files:
        moved = path.rename(path.with_name(f"{path.name}.away"))
        try:
            _named(subject, path)
        finally:
            moved.rename(path)


def _named(subject: SourceSubject, path: Path) -> None:
    try:
        for name in subject.source.splits():
            subject.rows(name)
    except DataError as error:
        said = str(error)
        named = path.name in said or str(path.parent) in said
        require(named and "\n" not in said, f"without {path.name}, the error does not name it in one sentence: {said}")
    except Exception as error:  # whatever a plugin raises is a finding
        raise BrokenError(f"without {path.name}, {type(error).__name__} is raised ({error}) instead of a DataError") from error
    else:
        raise BrokenError(f"without {path.name}, nothing is said")
