"""Long texts in overlapping windows, and text kept beside tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ftlab.errors import ConfigError
from ftlab.rows import Stored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a text, in pieces.

    Args:
        start: The first piece that it shows.
        end: The piece after the last.
        first: The first piece that it answers for: no other window shows more of what stands around that piece.
        last: The piece after the last of these; every piece of the text is one window's.
    """

    start: int
    end: int
    first: int
    last: int


def windows(length: int, room: int, stride: int | None) -> list[Window]:
    """A text in windows, all of them full where there are several.

    Args:
        length: Pieces of the text.
        room: Pieces that fit into one window.
        stride: Pieces that neighbours share, the last two perhaps more; null is a third of the room.

    Raises:
        ConfigError: The windows would not get on.
    """
    if length <= room:
        return [Window(start=0, end=length, first=0, last=length)]
    shared = room // 3 if stride is None else stride
    if shared >= room:
        raise ConfigError(f"model.task.stride is {shared}, but a window has room for {room} pieces of the text; set it lower.")
    starts = [*range(0, length - room, room - shared), length - room]
    middles = [(later + earlier + room) // 2 for earlier, later in pairwise(starts)]
    cuts = [0, *middles, length]
    return [Window(start=s, end=s + room, first=cuts[i], last=cuts[i + 1]) for i, s in enumerate(starts)]


def shown(fields: Mapping[str, list[int]], block: tuple[int, int], window: Window) -> dict[str, list[int]]:
    """One window of encoded text: what stands before the text and after it stays.

    Args:
        fields: Name → a value for every token of the whole.
        block: The text's first token and the one after its last.
        window: Which part of the block.
    """
    first, last = block
    return {name: v[:first] + v[first + window.start : first + window.end] + v[last:] for name, v in fields.items()}


def block_of(sequence_ids: Sequence[int | None], sequence: int) -> tuple[int, int]:
    """The first token of a text and the one after its last; the same place twice where it has no token.

    Args:
        sequence_ids: For every token which text it is of; None for special ones.
        sequence: Which text.
    """
    places = [i for i, s in enumerate(sequence_ids) if s == sequence]
    return (places[0], places[-1] + 1) if places else (0, 0)


def need_offsets(tokenizer: PreTrainedTokenizerBase, task: str) -> None:
    """Refuse a tokenizer that does not know where in the text its tokens stand.

    Raises:
        ConfigError: It is one of those written in Python.
    """
    if not tokenizer.is_fast:
        raise ConfigError(
            f"the tokenizer of model.backbone is a {type(tokenizer).__name__}, which does not say where in a text its tokens stand; "
            f"{task} needs one of the tokenizers library (a tokenizer.json), so choose a backbone that has it."
        )


def letters(text: str) -> list[int]:
    """A text as the code points of its characters, which the token cache can hold."""
    codes: list[int] = np.frombuffer(text.encode("utf-32-le"), dtype="<u4").tolist()
    return codes


def spelled(note: Stored, name: str) -> str:
    """The text that `letters` made the numbers of a field from."""
    return note[name].astype("<u4").tobytes().decode("utf-32-le")
