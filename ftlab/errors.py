"""Errors a user can cause or meet, each with the exit code that the command line returns for it.

A message is one sentence with four parts: which key or row, what it was, what is allowed, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LIKE = 0.5
"""Share of letters in common from which two names count as near."""
_ABBREVIATION = 0.75
"""The same where one name begins with the other, as `rank` with `r`."""


class FtlabError(Exception):
    """Base of every error that ftlab raises on purpose."""

    exit_code = 1
    on_all_ranks = False
    """Raised by every rank together, so that rank 0 speaks for all."""


class ConfigError(FtlabError):
    """A configuration that cannot be run."""

    exit_code = 2


class DataError(FtlabError):
    """Data that cannot be used."""

    exit_code = 3


class CheckpointError(FtlabError):
    """A checkpoint or adapter that was refused."""

    exit_code = 4


class NumericsError(FtlabError):
    """A loss or gradient that is not finite."""

    exit_code = 5
    on_all_ranks = True


class EnvironmentFault(FtlabError):  # noqa: N818  # EnvironmentError is a name of Python itself
    """Hardware, network or an installed package that does not do what the run needs."""

    exit_code = 6


class SecurityError(FtlabError):
    """Something that would run code or write where it must not."""

    exit_code = 7


class StorageError(FtlabError):
    """A folder or disk that cannot be written."""

    exit_code = 8


def nearest(name: str, allowed: Iterable[str], count: int = 3) -> list[str]:
    """The names most like `name`, best first, ignoring case; the one alone that differs in nothing else.

    Args:
        name: What was written.
        allowed: What could have been meant.
        count: How many to return at most.
    """
    folded: dict[str, str] = {}
    for candidate in allowed:
        folded.setdefault(candidate.casefold(), candidate)
    wanted = name.casefold()
    if wanted in folded:
        return [folded[wanted]]
    scores = {key: _likeness(wanted, key) for key in folded}
    best = sorted((key for key in folded if scores[key] >= _LIKE), key=lambda key: (-scores[key], len(key), key))
    return [folded[key] for key in best[:count]]


def _likeness(name: str, candidate: str) -> float:
    if candidate and name and (name.startswith(candidate) or candidate.startswith(name)):
        return max(_ABBREVIATION, difflib.SequenceMatcher(None, candidate, name).ratio())
    return difflib.SequenceMatcher(None, candidate, name).ratio()


def suggest(name: str, allowed: Iterable[str], count: int = 3) -> str:
    """The end of an error message: the nearest names, or all the allowed ones where none is near."""
    choices = list(allowed)
    close = nearest(name, choices, count)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"allowed: {', '.join(sorted(choices)) or 'none'}."
