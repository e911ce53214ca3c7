"""From a document to its sentences."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Literal

from ftlab.errors import EnvironmentFault

log = logging.getLogger(__name__)

_LANGUAGES = (
    "am", "ar", "bg", "bn", "ca", "da", "de", "el", "en", "es", "fi", "fr", "gu", "hi", "hy", "it",
    "ja", "kk", "kn", "ml", "mr", "my", "nl", "pa", "pl", "pt", "ru", "sk", "ta", "te", "uk",
)  # fmt: skip
"""Those that sentencex 1.0.32 has rules of its own for; it cannot be asked, and takes any code."""


def splitter(language: str) -> Callable[[str], list[str]]:
    """What cuts a text into sentences by the rules of a language; one without rules gets those of a related one, or English, and a warning.

    Raises:
        EnvironmentFault: The package is not installed.
    """
    if find_spec("sentencex") is None:
        raise EnvironmentFault(
            "model.task.sentences is split, which needs the package sentencex; run `pip install 'ftlab[sentences]'`, "
            "or give one sentence a line and set it to lines."
        )
    from sentencex import segment

    if language not in _LANGUAGES:
        _warn_of(language)
    return lambda text: [str(part) for part in segment(language, text)]


@cache
def _warn_of(language: str) -> None:
    """Once, however many splits are cut."""
    log.warning(
        "model.task.language is %s, for which sentencex has no rules of its own, so it takes those of a related language or of English; "
        "it has rules for %s", language, ", ".join(_LANGUAGES),
    )  # fmt: skip


def sentences_of(text: str, how: Literal["lines", "paragraphs", "split"], split: Callable[[str], list[str]] | None) -> list[str]:
    """The sentences of a document, without those that are white space."""
    lines = text.splitlines()
    if how == "paragraphs":
        found = "\n".join(line if line.strip() else "" for line in lines).split("\n\n")
    else:
        found = lines if split is None else split(text)
    return [part.strip() for part in found if part.strip()]
