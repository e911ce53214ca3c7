"""Questions with their contexts, encoded as pairs and cut into windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlab.errors import DataError
from ftlab.rows import Example, Row
from ftlab.tasks.answers import Offset, trimmed
from ftlab.tasks.base import NumberedRows, batched, text_of
from ftlab.tasks.spans import Window, block_of, letters, need_offsets, shown, windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question with its context.

    Args:
        number: The row's number.
        context: The text.
        fields: `input_ids`, and `token_type_ids` where the tokenizer makes them.
        block: The context's first token and the one after its last.
        offsets: For every token of the context the characters that it stands for.
        cls: The id of the token that stands for no answer; None where the first one does.
    """

    number: int
    context: str
    fields: dict[str, list[int]]
    block: tuple[int, int]
    offsets: list[Offset]
    cls: int | None

    def readable(self) -> bool:
        """Whether any token of the context stands for a character."""
        return any(start < end for start, end in self.offsets)

    def windows(self, max_length: int, stride: int | None) -> Iterator[tuple[Window, Example]]:
        """Each window and its example without labels.

        `at` holds the place of the context's first token, that of no answer, and the number of the context's character with which
        `text` begins; `windows` is how many the row has.

        Raises:
            DataError: The question leaves no room for the context.
            ConfigError: The windows would not get on.
        """
        length = self.block[1] - self.block[0]
        beside = len(self.fields["input_ids"]) - length
        if beside >= max_length:
            raise DataError(
                f"row {self.number} has a question of {beside} tokens with the special ones, which leaves none of the {max_length} that "
                "the model and data.max_length allow for the context; shorten the question or raise data.max_length."
            )
        found = windows(length, max_length - beside, stride)
        for window in found:
            yield window, {**self._example(window), "windows": len(found)}

    def _example(self, window: Window) -> Example:
        fields = shown(self.fields, self.block, window)
        offsets = self.offsets[window.start : window.end]
        wide = [(start, end) for start, end in offsets if start < end] or [(0, 0)]
        base = wide[0][0]
        null = fields["input_ids"].index(self.cls) if self.cls in fields["input_ids"] else 0
        return {
            **fields,
            "row": self.number,
            "at": [self.block[0], null, base],
            "offsets": [place for offset in offsets for place in offset],
            "text": letters(self.context[base : wide[-1][1]]),
        }


def pairs(rows: NumberedRows, question: str, context: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[Row, Pair]]:
    """Every row and its pair.

    Args:
        rows: Rows that have a question and a context.
        question: The question's column.
        context: The context's.
        tokenizer: One that gives offsets.
    """
    need_offsets(tokenizer, "QuestionAnswering")
    for chunk in batched(rows, 100):
        questions = [text_of(row, question, number).strip() for number, row in chunk]
        contexts = [text_of(row, context, number) for number, row in chunk]
        encoded = tokenizer(questions, contexts, return_attention_mask=False, return_offsets_mapping=True, verbose=False)
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        for i, (number, row) in enumerate(chunk):
            block = block_of(encoded.sequence_ids(i), 1)
            offsets = trimmed(encoded["offset_mapping"][i][slice(*block)], contexts[i])
            fields = {name: encoded[name][i] for name in names}
            yield row, Pair(number=number, context=contexts[i], fields=fields, block=block, offsets=offsets, cls=tokenizer.cls_token_id)
