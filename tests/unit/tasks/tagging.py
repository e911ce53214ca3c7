"""What tests of token classification share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForTokenClassification

import ftlab
from ftlab.batch import Batch
from ftlab.errors import DataError
from ftlab.rows import Example, Row
from ftlab.tasks.tags import complete
from ftlab.tasks.token_classification import TokenClassification
from ftlab.testing.models import tiny_config
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.training import WORDS

BYTES = byte_tokenizer(pairs=True, segments=True)
TINY_BERT = Path(ftlab.__file__).parent / "assets" / "tiny-bert"
LABELS = complete(["loc", "per"], "bio")
TAGS = ["B-per", "O", "B-per", "I-per"]
ROW: Row = {"tokens": ["Ada", "met", "Bo", "Li"], "tags": TAGS}


def sentences(count: int) -> list[Row]:
    """Sentences of 1 to 20 words; every third word begins an entity, of two words at times."""
    made: list[Row] = []
    for i in range(count):
        words = [WORDS[(i * 7 + k) % len(WORDS)] for k in range(1 + i * 5 % 20)]
        tags = ["O"] * len(words)
        for k in range(i % 3, len(words), 3):
            tags[k] = f"B-{'loc' if k % 2 else 'per'}"
            if k + 1 < len(words) and i % 2:
                tags[k + 1] = tags[k].replace("B", "I")
        made.append({"tokens": words, "tags": tags})
    return made


def encode(task: TokenClassification, rows: Sequence[Row], limit: int = 64, tokenizer: Any = BYTES, labelled: bool = True) -> list[Any]:
    bound = task.bind(lambda: list(enumerate(rows)))
    return list(bound.encode(list(enumerate(rows)), tokenizer, limit, labelled))


def collate(task: TokenClassification, examples: Sequence[Example]) -> Batch:
    return task.collate([{n: np.atleast_1d(np.asarray(v, dtype=np.int32)) for n, v in e.items()} for e in examples], BYTES)


def model(task: TokenClassification) -> Any:
    torch.manual_seed(0)
    return AutoModelForTokenClassification.from_config(tiny_config("bert", task.model_options())).eval()


def refused(task: TokenClassification, *rows: Row) -> str:
    with pytest.raises(DataError) as caught:
        encode(task, rows)
    return str(caught.value)
