"""What tests of question answering share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering

from ftlab.batch import Batch
from ftlab.errors import DataError
from ftlab.rows import Example, Row
from ftlab.tasks.question_answering import QuestionAnswering
from ftlab.testing.models import tiny_config
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.training import WORDS

BYTES = byte_tokenizer(pairs=True, segments=True)
LONG = " ".join(WORDS * 2)


def question(context: str, *answers: str, number: int = 0, asked: str = "Who?") -> Row:
    starts = [context.index(answer) for answer in answers]
    return {"id": f"q{number}", "question": asked, "context": context, "answers": {"text": list(answers), "answer_start": starts}}


def questions(count: int) -> list[Row]:
    """Questions about contexts of 3 to 30 words; every fourth has no answer."""
    made = []
    for i in range(count):
        words = [*(WORDS[(i * 7 + k) % len(WORDS)] for k in range(3 + i * 5 % 28)), f"w{i}"]
        answers = [" ".join(words[-2:]), words[-1]] if i % 4 else []
        made.append(question(" ".join(words), *answers, number=i))
    return made


def encode(task: QuestionAnswering, rows: Sequence[Row], limit: int = 64, tokenizer: Any = BYTES, labelled: bool = True) -> list[Any]:
    return list(task.encode(list(enumerate(rows)), tokenizer, limit, labelled))


def collate(task: QuestionAnswering, examples: Sequence[Example]) -> Batch:
    return task.collate([{n: np.atleast_1d(np.asarray(v, dtype=np.int32)) for n, v in e.items()} for e in examples], BYTES)


def model() -> Any:
    torch.manual_seed(0)
    return AutoModelForQuestionAnswering.from_config(tiny_config("bert")).eval()


def refused(task: QuestionAnswering, *rows: Row, limit: int = 64, labelled: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        encode(task, rows, limit=limit, labelled=labelled)
    return str(caught.value)
