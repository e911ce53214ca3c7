"""From a document to its sentences."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from ftlab.errors import EnvironmentFault


def splitter(language: str) -> Callable[[str], list[str]]:
    """What cuts a text into sentences by the rules of a language; those without rules get the rules of a related one, or English.

    Raises:
        EnvironmentFault: The package is not installed.
    """
    if find_spec("sentencex") is None:
        raise EnvironmentFault(
            "model.task.sentences is split, which needs the package sentencex; run `pip install 'ftlab[sentences]'`, "
            "or give one sentence a line and set it to lines."
        )
    from sentencex import segment

    return lambda text: [str(part) for part in segment(language, text)]


def sentences_of(text: str, how: Literal["lines", "paragraphs", "split"], split: Callable[[str], list[str]] | None) -> list[str]:
    """The sentences of a document, without those that are white space."""
    lines = text.splitlines()
    if how == "paragraphs":
        found = "\n".join(line if line.strip() else "" for line in lines).split("\n\n")
    else:
        found = lines if split is None else split(text)
    return [part.strip() for part in found if part.strip()]
