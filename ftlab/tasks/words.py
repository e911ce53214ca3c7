"""Sentences that come as lists of words, and the pieces that a tokenizer makes of them."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from ftlab.errors import ConfigError, DataError, suggest
from ftlab.rows import Row
from ftlab.tasks.base import NumberedRows, batched, text_of
from ftlab.tasks.spans import block_of, need_offsets, shown, windows

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """An encoded sentence.

    Args:
        words: Its words.
        fields: `input_ids`, and `token_type_ids` where the tokenizer makes them, special tokens included.
        block: The first token that is not special, and the one after the last.
        owners: For every token of the block the number of its word, -1 where it is of none, such as a space.
    """

    words: list[str]
    fields: dict[str, list[int]]
    block: tuple[int, int]
    owners: list[int]

    def windows(self, max_length: int, stride: int | None) -> Iterator[tuple[dict[str, list[int]], list[tuple[int, bool]]]]:
        """The fields of each window, and for its tokens (word, whether this is its first piece), (-1, False) for another window's.

        Raises:
            ConfigError: No piece fits, or the windows would not get on.
        """
        first, last = self.block
        added = len(self.fields["input_ids"]) - (last - first)
        if max_length <= added:
            raise ConfigError(f"data.max_length is {max_length}, and special tokens alone are {added}; raise it.")
        # Each word beside the one before it, so the last of those is left over.
        begins = [word != before for word, before in zip(self.owners, [-1, *_reached(self.owners)], strict=False)]
        for window in windows(last - first, max_length - added, stride):
            owned = [(-1, False)] * first
            for i in range(window.start, window.end):
                mine = window.first <= i < window.last and self.owners[i] >= 0
                owned.append((self.owners[i], begins[i]) if mine else (-1, False))
            fields = shown(self.fields, self.block, window)
            yield fields, owned + [(-1, False)] * (len(fields["input_ids"]) - len(owned))


def _reached(owners: list[int]) -> list[int]:
    """The last word that had a piece at or before each token."""
    return list(accumulate(owners, max))


def listed(row: Row, column: str, number: int) -> list[object]:
    """The list in a column.

    Raises:
        DataError: The column is missing or holds no list.
    """
    if column not in row:
        raise DataError(f"row {number} has no column '{column}'; {suggest(column, row)}")
    value = row[column]
    if not isinstance(value, list | tuple):
        raise DataError(f"row {number}, column '{column}' holds {value!r:.60}, not a list; give a list with one entry for each word.")
    return list(value)


def words_of(row: Row, column: str, number: int) -> list[str]:
    """The words in a column.

    Raises:
        DataError: They are no list of text.
    """
    words = listed(row, column, number)
    named = {f"{column}[{i}]": word for i, word in enumerate(words)}
    for name, word in named.items():
        if word is None or "\0" in text_of(named, name, number):
            raise DataError(f"row {number}, column '{name}' holds {word!r:.60}, not a word; mend or remove the row.")
    return [str(word) for word in words]


def with_words(rows: NumberedRows, column: str, empty: Literal["error", "skip"]) -> Iterator[tuple[int, Row]]:
    """The rows that have a word; the others stop it, or are left out and counted.

    Raises:
        DataError: A row without a word where `empty` is `error`.
    """
    skipped = 0
    for number, row in rows:
        if listed(row, column, number):
            yield number, row
        elif empty == "skip":
            skipped += 1
        else:
            raise DataError(f"row {number}, column '{column}' has no word; remove the row or set model.task.empty to skip.")
    if skipped:
        log.warning("%d rows without a word were skipped (model.task.empty: skip)", skipped)


def pieces_of(rows: NumberedRows, column: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, Row, Pieces]]:
    """(number, row, its words in pieces), every word with one piece or more.

    The words are joined by spaces, as a model met them in its pretraining: where tokens hold the space before a word, words given one
    by one would lose it. A word of which nothing is left, such as a control character, is shown as the unknown token, and counted.

    Args:
        rows: Rows that have words.
        column: Where they are.
        tokenizer: One that gives offsets.

    Raises:
        DataError: A word has no piece, and the tokenizer no unknown token.
    """
    need_offsets(tokenizer, "TokenClassification")
    unknown = 0
    for chunk in batched(rows):
        sentences = [words_of(row, column, number) for number, row in chunk]
        encoded = _encoded(sentences, tokenizer)
        for i, (number, row) in enumerate(chunk):
            found = _pieces(sentences[i], encoded, i)
            if lost := _lost(found):
                unknown += len(lost)
                found = _shown_as_unknown(sentences[i], lost, number, tokenizer)
            yield number, row, found
    if unknown:
        log.warning("%d words of which the tokenizer makes no piece are shown to the model as its unknown token", unknown)


def _shown_as_unknown(words: list[str], lost: set[int], number: int, tokenizer: PreTrainedTokenizerBase) -> Pieces:
    shown_words = [str(tokenizer.unk_token) if i in lost else word for i, word in enumerate(words)]
    found = _pieces(shown_words, _encoded([shown_words], tokenizer), 0)
    if tokenizer.unk_token is None or (lost := _lost(found)):
        raise DataError(
            f"row {number}, word {min(lost)} is {words[min(lost)]!r:.60}, of which the tokenizer makes no piece; remove the word."
        )
    return replace(found, words=words)


def _lost(found: Pieces) -> set[int]:
    """The words without a piece."""
    return set(range(len(found.words))) - set(found.owners)


def _encoded(sentences: Sequence[list[str]], tokenizer: PreTrainedTokenizerBase) -> BatchEncoding:
    texts = [" ".join(words) for words in sentences]
    encoded: BatchEncoding = tokenizer(texts, return_attention_mask=False, return_offsets_mapping=True, verbose=False)
    return encoded


def _pieces(words: list[str], encoded: BatchEncoding, i: int) -> Pieces:
    block = block_of(encoded.sequence_ids(i), 0)
    fields = {name: encoded[name][i] for name in ("input_ids", "token_type_ids") if name in encoded}
    starts = list(accumulate((len(word) + 1 for word in words[:-1]), initial=0))
    owners = [_owner(start, end, starts, words) for start, end in encoded["offset_mapping"][i][slice(*block)]]
    return Pieces(words=words, fields=fields, block=block, owners=owners)


def _owner(start: int, end: int, starts: list[int], words: list[str]) -> int:
    """The word in which a token begins, behind the space that it may hold; -1 for a token of nothing but that space."""
    word = bisect_right(starts, start) - 1
    if start == starts[word] + len(words[word]) and word + 1 < len(words):
        word += 1
    return word if end > max(start, starts[word]) else -1
