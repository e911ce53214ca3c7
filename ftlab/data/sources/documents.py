"""Documents whose sentences are marked: BERT's own format, and the articles of WikiText."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Literal

from ftlab.data.sources.base import Sample
from ftlab.data.sources.file_source import FileSource
from ftlab.data.sources.lines import check_encoding, lines, texts
from ftlab.rows import Row

_TITLE = re.compile(r"= [^=].* =")
_END = re.compile(r"(?<= [.?!]) ")


@dataclass(frozen=True, kw_only=True)
class Documents(FileSource):
    """One document a row, in the column `text`, with one sentence a line, as tasks on pairs of sentences read it.

    Args:
        path: The file, which becomes the split `train`, or a file for every split.
        layout: How documents are marked; sentences for one sentence a line and a blank line between documents, as BERT has it, or
            wikitext for articles that begin with ` = Title = ` and whose sentences end with ` . `, ` ? ` or ` ! `.
        encoding: Text encoding of the files.
    """

    sample = Sample(
        files={"train.txt": "One.\nTwo.\n\nThree.\nFour.\n\nFive.\nSix.\n", "held.txt": "Seven.\nEight.\n"},
        arguments={"path": {"train": "train.txt", "validation": "held.txt"}},
    )

    path: str | dict[str, str]
    layout: Literal["sentences", "wikitext"] = "sentences"
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding(self.encoding)

    def read(self, path: str) -> Iterator[Row]:
        """The documents of one file."""
        found = texts(path, self.encoding, "paragraph") if self.layout == "sentences" else _articles(path, self.encoding)
        for text in found:
            yield {"text": text}


def _articles(path: str, encoding: str) -> Iterator[str]:
    held: list[str] = []
    before = ""
    for text, after in pairwise(chain((line.strip() for line in lines(path, encoding)), ("",))):
        if held and not before and not after and _TITLE.fullmatch(text):  # a formula may look like a title, but inside a paragraph
            yield "\n".join(held)
            held = []
        held += _END.split(text) if text else []
        before = text
    if held:
        yield "\n".join(held)
