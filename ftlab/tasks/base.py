"""The contract of a task: from rows to token ids, from a batch to loss sums, from outputs to predictions."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeAlias

from torch import Tensor, nn

from ftlab.batch import Batch
from ftlab.errors import DataError, suggest
from ftlab.rows import Example, Examples, Key, Prediction, Row, Stored

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from torchmetrics import MetricCollection
    from transformers import PreTrainedTokenizerBase

NumberedRows: TypeAlias = Iterable[tuple[int, Row]]
"""(number of the row in its split, counted from 0; the row)"""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a task's forward pass leaves.

    Args:
        sums: Head → sum of the loss over its scored positions, a float32 scalar.
        counts: Head → number of scored positions, a scalar tensor.
        logits: (B, …) where the head is small enough to keep them.
    """

    sums: dict[str, Tensor]
    counts: dict[str, Tensor]
    logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What `ftlab check` and the matrix of strategies measure a task on; declared as `sample` on its class.

    Args:
        rows: Four or more labelled rows, as a source would give them: short (the tiny models read 64 bytes, a token each), of several
            lengths, and with every kind of label.
        arguments: Fields of the task that fit these rows, as YAML would hold them, where they are not the defaults.
        fails: Name of a check that cannot pass → why not; one that passes all the same is an error. See `Task.fails`.
    """

    rows: Sequence[Row] = ()
    arguments: Mapping[str, object] = field(default_factory=dict)
    fails: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One objective. A subclass is a frozen, keyword-only dataclass: its fields are its YAML.

    Args:
        empty: What to do with a row that has no text: `error` stops and names it, `skip` leaves it out and counts it.
    """

    heads: ClassVar[tuple[str, ...]]
    """The names of the losses; `Batch.labels` and `Outputs` have these keys."""
    auto_class: ClassVar[str]
    """The `transformers` auto class that loads the model, such as `AutoModelForCausalLM`."""
    paper: ClassVar[str] = ""
    merges: ClassVar[bool] = False
    """Whether the examples of one row, such as the windows of a long text, make one prediction together; see `merge`."""
    scores: ClassVar[bool] = False
    """Whether `score` finds figures in the predictions of a whole split."""
    sample: ClassVar[Sample] = Sample()
    """What the class is measured on by `ftlab check`."""
    free: ClassVar[frozenset[str]] = frozenset({"empty"})
    """Fields that say only how rows are read or what becomes of the outputs: `validate`, `test` and `predict` may set them otherwise
    than the run whose checkpoint they open."""

    empty: Literal["error", "skip"] = "error"

    @abstractmethod
    def columns(self, labelled: bool) -> tuple[str, ...]:
        """The columns that every row must have; fewer where labels are not needed."""

    def bind(self, rows: Callable[[], NumberedRows]) -> Self:
        """This task with everything that only the training rows can tell filled in, such as the set of labels."""
        return self

    def model_options(self) -> dict[str, object]:
        """Entries of the HF configuration that the task decides, such as `num_labels`."""
        return {}

    def check(self, model: nn.Module) -> None:
        """Refuse a loaded model that cannot do the task.

        Raises:
            ConfigError: It cannot; the message says why.
        """

    def fails(self, model: nn.Module) -> Mapping[str, str]:
        """Name of a check of `ftlab check` that cannot pass with these fields and this model → why not."""
        return self.sample.fails

    def weights(self) -> dict[str, float]:
        """Head → its weight in the total loss."""
        return dict.fromkeys(self.heads, 1.0)

    @abstractmethod
    def encode(self, rows: NumberedRows, tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool) -> Iterator[Example]:
        """Turn rows into examples; each has `input_ids` and `row`. A pure function of its arguments.

        Args:
            rows: The rows of a split.
            tokenizer: The backbone's.
            max_length: The most tokens an example may have.
            labelled: Whether rows must have labels; for prediction they need not.

        Raises:
            DataError: A row that cannot be used; the message has its number.
        """

    def draw(self, examples: Examples, index: int, key: Key, tokenizer: PreTrainedTokenizerBase) -> Stored:
        """One example as an epoch shows it: where masks, pairs or crops are drawn anew each time. A pure function of its arguments.

        Evaluation always draws with seed and epoch 0, so that runs are measured by the same masks.

        Args:
            examples: The split's examples as `encode` made them.
            index: Which one.
            key: What everything random is drawn from, by `numpy.random.default_rng(key)`.
            tokenizer: The backbone's.
        """
        return examples[index]

    @abstractmethod
    def collate(self, examples: Sequence[Stored], tokenizer: PreTrainedTokenizerBase) -> Batch:
        """Pad examples into one batch."""

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Run the model; return the loss sums over the scored positions, in float32."""

    def metrics(self) -> MetricCollection | None:
        """Fresh metrics for one pass over a validation or test split."""
        return None

    def update(self, metrics: MetricCollection, outputs: Outputs, batch: Batch) -> None:
        """Feed one batch to `metrics`."""

    def derived(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Figures that follow from the mean losses, such as a perplexity."""
        return {}

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """One record per example of the batch, in order, without the row's number; where `merges` is set, what `merge` needs."""

    def records(self, outputs: Outputs, batch: Batch) -> list[Prediction]:
        """What `score` needs of each example, often what `predict` gives, from outputs at hand; needed where `scores` is set."""
        raise NotImplementedError(f"{type(self).__name__} scores predictions, so it must define records")

    def merge(self, records: Sequence[Prediction]) -> Prediction:
        """The prediction of a row from the records of its examples, in their order; needed where `merges` is set."""
        (record,) = records
        return record

    def score(self, predictions: Sequence[tuple[int, Prediction]], rows: NumberedRows) -> dict[str, float]:
        """Figures over a whole split, such as an F1 over entities; independent of batches and ranks.

        Args:
            predictions: (number of the row, prediction), by number; a filler or a row that was left out is not among them.
            rows: The rows of the split.
        """
        return {}

    def prediction_files(self, predictions: Sequence[tuple[int, Prediction]]) -> dict[str, str]:
        """Name → contents of files that belong beside `predictions.jsonl`, such as those of a benchmark's own format."""
        return {}

    def complete_export(self, folder: Path) -> None:
        """Add to an exported folder what readers of the task's own kind expect in it."""


def text_of(row: Row, column: str, number: int) -> str:
    """The text in a column.

    Raises:
        DataError: The column is missing or does not hold text that can be written as UTF-8.
    """
    if column not in row:
        raise DataError(f"row {number} has no column '{column}'; {suggest(column, row)}")
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"row {number}, column '{column}' holds {type(value).__name__} {value!r:.60}, not text; name a text column.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"row {number}, column '{column}' holds half of a surrogate pair, not text; mend or remove the row.") from error
    return value


def has_text(row: Row, columns: Iterable[str], number: int) -> bool:
    """Whether every one of some columns holds more than white space.

    Raises:
        DataError: As `text_of`.
    """
    return all(text_of(row, column, number).strip() for column in columns)


def with_text(rows: NumberedRows, column: str, empty: Literal["error", "skip"]) -> Iterator[tuple[int, Row]]:
    """The rows whose text is more than white space.

    Args:
        rows: All rows.
        column: The column of the text.
        empty: What to do with the others: stop, or leave them out and log how many there were.

    Raises:
        DataError: A row without text where `empty` is `error`.
    """
    skipped = 0
    for number, row in rows:
        if has_text(row, [column], number):
            yield number, row
        elif empty == "skip":
            skipped += 1
        else:
            raise DataError(
                f"row {number}, column '{column}' has no text and so no tokens; remove the row or set model.task.empty to skip."
            )
    if skipped:
        log.warning("%d rows without text were skipped (model.task.empty: skip)", skipped)


_CHARACTERS = 2**22
"""Characters tokenised together; a tokenizer holds some 100 bytes per token until it has done them all."""


def batched(rows: NumberedRows, size: int = 1000) -> Iterator[list[tuple[int, Row]]]:
    """Cut an iterator of rows into lists, so that a tokenizer can work on many rows in parallel; long rows come in shorter lists."""
    chunk: list[tuple[int, Row]] = []
    characters = 0
    for item in rows:
        chunk.append(item)
        characters += sum(len(value) for value in item[1].values() if isinstance(value, str))
        if len(chunk) == size or characters >= _CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
