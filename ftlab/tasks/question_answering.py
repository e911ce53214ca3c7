"""Extractive question answering: the span of a context that answers a question, if there is one."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ftlab.batch import IGNORE, Batch, scored
from ftlab.errors import ConfigError, DataError
from ftlab.probe import first_sees_others
from ftlab.rows import Example, Prediction, Row, Stored
from ftlab.tasks.answers import Span, answers_of, best_spans, is_a, misplaced, ranked, shares, tokens_of
from ftlab.tasks.base import NumberedRows, Outputs, Sample, Task, text_of, with_text
from ftlab.tasks.collate import pad
from ftlab.tasks.contexts import Pair, pairs
from ftlab.tasks.spans import Window, letters, spelled
from ftlab.tasks.squad_metrics import squad_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_MOST_ODDS = 1e9
"""The odds of no answer where no window has a span; JSON has no infinity."""
_SAMPLE = [
    {"id": "a", "question": "Who?", "context": "Ada met Bo.", "answers": {"text": ["Ada"], "answer_start": [0]}},
    {"id": "b", "question": "When?", "context": "It was in May.", "answers": {"text": ["in May", "May"], "answer_start": [7, 10]}},
    {"id": "c", "question": "Why so?", "context": "Nobody knows.", "answers": {"text": [], "answer_start": []}},
    {"id": "d", "question": "What?", "context": "Birds sing " * 8 + "songs.", "answers": {"text": ["songs"], "answer_start": [88]}},
    {"id": "e", "question": "Where?", "context": "In Rome.", "answers": {"text": ["Rome"], "answer_start": [3]}},
]
_NOTES = ("id", "at", "offsets", "text", "windows")


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """Find the span of a context that answers a question, as in SQuAD; exact match and F1 are the official scripts', in percent.

    A context that is too long is cut into windows. A window that does not show the whole answer is trained to point at the first token,
    [CLS], as one without an answer does. The loss is the mean of those of the first and of the last token of the answer.

    Args:
        question_column: The column of the question.
        context_column: The column of the text that holds the answer.
        answers_column: The column of the answers, {text: [...], answer_start: [...]}; the first one is trained on, all of them are right.
        id_column: The column of the question's id, which names its prediction.
        unanswerable: Whether questions may have no answer, as in SQuAD 2.0; no answers are then an empty list.
        null_threshold: How far the score of no answer must be above that of the best span for the prediction to be none.
        n_best: Spans that a prediction lists at most.
        max_answer_tokens: Tokens that a predicted span has at most.
        stride: Pieces of the context that neighbouring windows share; null is a third of what fits beside the question.
        misplaced: What to do with a row whose answer does not stand at answer_start; error names it, skip leaves it out and counts it.
        empty: What to do with a row without a question or context; error names it, skip leaves it out and counts it.
    """

    heads = ("start", "end")
    auto_class = "AutoModelForQuestionAnswering"
    paper = "Devlin et al. (2019), BERT, section 4.2; Rajpurkar et al. (2016), SQuAD; Rajpurkar et al. (2018), SQuAD 2.0"
    merges = True
    scores = True
    sample = Sample(rows=_SAMPLE, arguments={"unanswerable": True})
    free = Task.free | {
        "question_column", "context_column", "answers_column", "id_column", "misplaced", "null_threshold", "n_best", "max_answer_tokens",
    }  # fmt: skip

    question_column: str = "question"
    context_column: str = "context"
    answers_column: str = "answers"
    id_column: str = "id"
    unanswerable: bool = False
    null_threshold: float = 0.0
    n_best: int = 20
    max_answer_tokens: int = 30
    stride: int | None = None
    misplaced: Literal["error", "skip"] = "error"
    empty: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        for key, value, least in (
            ("n_best", self.n_best, 1), ("max_answer_tokens", self.max_answer_tokens, 1), ("stride", self.stride, 0),
        ):  # fmt: skip
            if value is not None and value < least:
                raise ConfigError(f"model.task.{key} is {value}; it must be at least {least}.")
        if not math.isfinite(self.null_threshold):
            raise ConfigError(f"model.task.null_threshold is {self.null_threshold}; it must be a finite number, usually near 0.")
        if self.null_threshold and not self.unanswerable:
            raise ConfigError(
                f"model.task.null_threshold is {self.null_threshold:g} while unanswerable is false, so nothing is predicted to have no "
                "answer; set unanswerable to true or leave it out."
            )

    def check(self, model: nn.Module) -> None:
        if self.unanswerable and not first_sees_others(model):
            raise ConfigError(
                f"model.task.unanswerable is true, but the first token of a {type(model).__name__}, which stands for no answer, sees no "
                "other; choose an encoder such as BERT, or set it to false."
            )

    def columns(self, labelled: bool) -> tuple[str, ...]:
        texts = (self.id_column, self.question_column, self.context_column)
        return (*texts, self.answers_column) if labelled else texts

    def weights(self) -> dict[str, float]:
        return {"start": 0.5, "end": 0.5}

    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        rows = with_text(with_text(rows, self.question_column, self.empty), self.context_column, self.empty)
        rows = self._well_placed(rows) if labelled else rows
        seen: dict[str, int] = {}
        blank = 0
        for row, pair in pairs(rows, self.question_column, self.context_column, tokenizer):
            name = letters(self._id(row, pair.number, {} if labelled else seen))
            if not pair.readable():
                self._refuse_blank(pair.number)
                blank += 1
                continue
            answer = self._answer(row, pair) if labelled else None
            for window, example in pair.windows(max_length, self.stride):
                start, end = _target(answer, window, example) if labelled else (IGNORE, IGNORE)
                yield {**example, "id": name, "start": start, "end": end}
        if blank:
            log.warning("%d rows whose context has no token were skipped (model.task.empty: skip)", blank)

    def _well_placed(self, rows: NumberedRows) -> Iterator[tuple[int, Row]]:
        """The rows whose answers stand where they say."""
        skipped = 0
        for number, row in rows:
            answers = answers_of(row, self.answers_column, number)
            if not answers and not self.unanswerable:
                raise DataError(
                    f"row {number}, column '{self.answers_column}' has no answer; set model.task.unanswerable to true, or remove the row."
                )
            odd = misplaced(answers, text_of(row, self.context_column, number))
            if odd is None:
                yield number, row
            elif self.misplaced == "skip":
                skipped += 1
            else:
                raise DataError(
                    f"row {number} has the answer {odd[0]!r:.60} at character {odd[1]} of column '{self.context_column}', where it does "
                    "not stand; mend the row, or set model.task.misplaced to skip."
                )
        if skipped:
            log.warning("%d rows whose answer is not where it should be were skipped (model.task.misplaced: skip)", skipped)

    def _id(self, row: Row, number: int, seen: dict[str, int]) -> str:
        """The question's id, which is noted; predictions of two questions must not have one name."""
        value = row.get(self.id_column)
        name = str(value) if is_a(value, int) else text_of(row, self.id_column, number)
        if not name:
            raise DataError(f"row {number}, column '{self.id_column}' is empty; give every question an id.")
        if seen.setdefault(name, number) != number:
            raise DataError(
                f"rows {seen[name]} and {number} both have the id '{name}', under which their predictions go; give each its own."
            )
        return name

    def _refuse_blank(self, number: int) -> None:
        if self.empty == "error":
            raise DataError(
                f"row {number}, column '{self.context_column}' has text of which the tokenizer makes no token; "
                "remove the row or set model.task.empty to skip."
            )

    def _answer(self, row: Row, pair: Pair) -> tuple[int, int] | None:
        """The first and last token of the answer that is trained on, within the context; None where there is no answer."""
        answers = answers_of(row, self.answers_column, pair.number)
        if not answers:
            return None
        found = tokens_of(answers[0], pair.offsets)
        if found is None:
            raise DataError(
                f"row {pair.number} has the answer {answers[0][0]!r:.60}, of which the tokenizer makes no token; remove the row."
            )
        return found

    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        labels = {head: torch.tensor([int(e[head][0]) for e in examples]) for head in self.heads}
        rows = torch.tensor([int(e["row"][0]) for e in examples])
        notes = tuple({name: e[name] for name in _NOTES} for e in examples)
        return Batch(inputs=pad(examples, tokenizer), labels=labels, rows=rows, notes=notes)

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        logits = _logits(model, batch)
        sums, counts = {}, {}
        for i, head in enumerate(self.heads):
            labels = batch.labels[head]
            sums[head] = F.cross_entropy(logits[..., i], labels, reduction="sum", ignore_index=IGNORE)
            counts[head] = scored(labels).sum().float()
        return Outputs(sums=sums, counts=counts, logits=logits)

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        return self._records(_logits(model, batch), batch)

    def records(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        assert outputs.logits is not None
        return self._records(outputs.logits, batch)

    def _records(self, logits: Tensor, batch: Batch) -> list[Prediction]:
        """The best spans of each window, and its score of no answer."""
        scores = logits.cpu().double().numpy()
        return [self._record(row, note) for row, note in zip(scores, batch.notes, strict=True)]

    def _record(self, logits: NDArray[np.float64], note: Stored) -> Prediction:
        first, null, base = (int(place) for place in note["at"])
        offsets = note["offsets"].astype(np.int64).reshape(-1, 2)
        start, end = np.where(offsets[:, 0] < offsets[:, 1], logits[first : first + len(offsets)].T, -np.inf)
        text = spelled(note, "text")
        spans: list[Span] = []
        for i, j, score in best_spans(start, end, self.n_best, self.max_answer_tokens):
            a, b = int(offsets[i, 0]), int(offsets[j, 1])
            spans.append((a, b, score, text[a - base : b - base]))
        return {"id": spelled(note, "id"), "null": float(logits[null].sum()), "spans": spans, "windows": int(note["windows"][0])}

    def merge(self, records: Sequence[Prediction]) -> Prediction:
        spans = ranked((span for record in records for span in cast("list[Span]", record["spans"])), self.n_best)
        null = min(cast("float", record["null"]) for record in records)
        odds = null - spans[0][2] if spans else _MOST_ODDS
        answered = bool(spans) and not (self.unanswerable and odds > self.null_threshold)
        start, end, _, text = spans[0] if answered else (None, None, 0.0, "")
        rates = shares([score for _, _, score, _ in spans] + [null] * self.unanswerable)
        # Where there may be no answer, the last share is that of none.
        listed = [{"text": t, "start": a, "end": b, "score": s, "probability": p} for (a, b, s, t), p in zip(spans, rates, strict=False)]
        found: Prediction = {"id": records[0]["id"], "text": text, "start": start, "end": end, "n_best": listed}
        unseen = cast("int", records[0]["windows"]) - len(records)
        return found | ({"null_odds": odds} if self.unanswerable else {}) | ({"unseen_windows": unseen} if unseen else {})

    def score(self, predictions: Sequence[tuple[int, Prediction]], rows: NumberedRows) -> dict[str, float]:
        # A context of several windows is not whole where only some batches are run.
        texts = {number: str(prediction["text"]) for number, prediction in predictions if "unseen_windows" not in prediction}
        found = [(texts[n], [text for text, _ in answers_of(row, self.answers_column, n)]) for n, row in rows if n in texts]
        return squad_scores(found, self.unanswerable)

    def prediction_files(self, predictions: Sequence[tuple[int, Prediction]]) -> dict[str, str]:
        files = {"predictions_squad.json": "text"} | ({"null_odds_squad.json": "null_odds"} if self.unanswerable else {})
        return {
            name: json.dumps({str(p["id"]): p[field] for _, p in predictions}, ensure_ascii=False, indent=1) + "\n"
            for name, field in files.items()
        }


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """(B, T, 2) scores of the first and of the last token of an answer; padding has none, or a row would depend on its neighbours."""
    outputs = model(**batch.inputs)
    logits = torch.stack([outputs.start_logits, outputs.end_logits], -1).float()
    mask = batch.inputs.get("attention_mask")
    return logits if mask is None else logits.masked_fill(mask[..., None] == 0, torch.finfo(logits.dtype).min)


def _target(answer: tuple[int, int] | None, window: Window, example: Example) -> tuple[int, int]:
    """The places of an answer's first and last token in a window, both that of no answer where the window does not show all of it."""
    first, null, _ = cast("list[int]", example["at"])
    if answer is None or answer[0] < window.start or answer[1] >= window.end:
        return null, null
    return first + answer[0] - window.start, first + answer[1] - window.start
