"""The special tokens that a tokenizer puts around a text or a pair of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ftlab.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Frame:
    """Special tokens before, between and after segments.

    Args:
        special: The ids before the first segment, after it, and so on.
        types: `token_type_ids` of those, and of one token of each segment; None where the tokenizer gives none.
    """

    special: tuple[Index, ...]
    types: tuple[tuple[Index, ...], Index] | None

    @property
    def size(self) -> int:
        """The number of special tokens."""
        return sum(map(len, self.special))

    def ids(self, *segments: Index) -> Index:
        """The segments with the special tokens."""
        return _woven(self.special, segments)

    def starts(self, *segments: Index) -> Index:
        """What is said of each token of the segments, and 1 for the special tokens."""
        return _woven([np.ones_like(part) for part in self.special], segments)

    def type_ids(self, *segments: Index) -> Index | None:
        """The `token_type_ids` of what `ids` gives, where there are any."""
        if self.types is None:
            return None
        special, kinds = self.types
        return _woven(special, [np.full(len(s), kind) for s, kind in zip(segments, kinds, strict=True)])


def _woven(special: tuple[Index, ...] | list[Index], segments: tuple[Index, ...] | list[Index]) -> Index:
    parts = [special[0]]
    for segment, after in zip(segments, special[1:], strict=True):
        parts += [segment, after]
    return np.concatenate(parts)


_frames: WeakKeyDictionary[PreTrainedTokenizerBase, dict[int, Frame]] = WeakKeyDictionary()


def frame_of(tokenizer: PreTrainedTokenizerBase, segments: int) -> Frame:
    """What a tokenizer puts around one or two segments, found once.

    Raises:
        ConfigError: It does not show.
    """
    known = _frames.setdefault(tokenizer, {})
    if segments not in known:
        known[segments] = _find(tokenizer, segments)
    return known[segments]


def _find(tokenizer: PreTrainedTokenizerBase, segments: int) -> Frame:
    word: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer(*["a"] * segments)
    ids, types = whole["input_ids"], whole.get("token_type_ids")
    places: list[int] = []
    for place in range(len(ids)):
        if word and ids[place : place + len(word)] == word and (not places or place >= places[-1] + len(word)):
            places.append(place)
    if len(places) != segments:
        raise ConfigError(f"the tokenizer of {tokenizer.name_or_path} does not show where it puts its special tokens; use another one.")
    bounds = list(zip([0, *(p + len(word) for p in places)], [*places, len(ids)], strict=True))
    special = tuple(np.array(ids[start:end], dtype=np.int64) for start, end in bounds)
    if types is None:
        return Frame(special, None)
    kinds = tuple(np.array(types[start:end], dtype=np.int64) for start, end in bounds)
    return Frame(special, (kinds, np.array([types[p] for p in places], dtype=np.int64)))
