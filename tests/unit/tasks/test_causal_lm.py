from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ftlab.batch import Batch
from ftlab.data.datamodule import FinetuneData
from ftlab.data.sources.in_memory import Rows
from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Stored
from ftlab.tasks.base import batched
from ftlab.tasks.causal_lm import CausalLM
from ftlab.testing.tokenizer import byte_tokenizer
from tests.unit.training import model_folder, texts, tiny_module, trainer

TOKENIZER = byte_tokenizer(pairs=False)
BOS, PAD, EOS = 0, 1, 2


def encode(task: CausalLM, rows: Sequence[str], limit: int = 64, tokenizer: PreTrainedTokenizerFast = TOKENIZER) -> list[Example]:
    return list(task.encode([(10 + i, {"text": t}) for i, t in enumerate(rows)], tokenizer, limit, True))


def ids(example: Example) -> list[int]:
    found = example["input_ids"]
    assert isinstance(found, list)
    return found  # type: ignore[return-value]


def documents(rows: Sequence[str]) -> list[list[int]]:
    """What the tokenizer makes of each row, with an end; by hand."""
    return [[BOS, *TOKENIZER(t, add_special_tokens=False)["input_ids"], EOS] for t in rows]


def collated(examples: Sequence[Example]) -> Batch:
    stored: list[Stored] = [{name: np.atleast_1d(np.asarray(v, dtype=np.int32)) for name, v in e.items()} for e in examples]
    return CausalLM().collate(stored, TOKENIZER)


def predicted(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """Every scored (previous token, token), in order."""
    pairs: list[tuple[int, int]] = []
    for example in examples:
        labels = collated([example]).labels["lm"][0].tolist()
        pairs += [(previous, label) for previous, label in zip(ids(example), labels[1:], strict=False) if label != -100]
    return pairs


@pytest.mark.parametrize("size", [2, 3, 7, 64])
def test_across_documents_every_token_but_the_first_is_predicted_once(size: int) -> None:
    rows = texts(9)
    stream = [token for document in documents(rows) for token in document]
    examples = encode(CausalLM(block_size=size), rows)
    assert predicted(examples) == list(pairwise(stream))
    assert {len(e) for e in map(ids, examples[:-1])} == {size}


@pytest.mark.parametrize("size", [2, 3, 7, 64])
def test_within_documents_blocks_never_cross(size: int) -> None:
    rows = texts(9)
    examples = encode(CausalLM(block_size=size, cross_documents=False), rows)
    for number, document in enumerate(documents(rows)):
        own = [e for e in examples if e["row"] == 10 + number]
        assert predicted(own) == list(pairwise(document))
        assert all(2 <= len(ids(e)) <= size for e in own)


def test_a_block_belongs_to_the_row_of_its_first_token() -> None:
    examples = encode(CausalLM(block_size=4), ["a", "bcdefg"])  # <s> a </s> <s> | <s> b c d | ...
    assert [e["row"] for e in examples] == [10, 11, 11, 11][: len(examples)]


def test_a_padded_position_and_the_first_one_are_not_scored() -> None:
    batch = collated([{"input_ids": [BOS, 9, EOS], "row": 3}, {"input_ids": [BOS, 8, 7, 6, EOS], "row": 4}])
    assert batch.labels["lm"].tolist() == [[-100, 9, EOS, -100, -100], [-100, 8, 7, 6, EOS]]
    assert batch.counts() == {"lm": 6}
    assert batch.rows.tolist() == [3, 4]


def test_a_token_that_is_also_the_padding_is_scored() -> None:
    assert collated([{"input_ids": [BOS, PAD, 9], "row": 0}]).labels["lm"].tolist() == [[-100, PAD, 9]]


@pytest.mark.parametrize("text", ["one", "<s>one", "one</s>", "<s>one</s>"])
def test_begin_and_end_stand_once(text: str) -> None:
    ((example,)) = encode(CausalLM(cross_documents=False), [text])
    assert Counter(ids(example))[BOS] == Counter(ids(example))[EOS] == 1
    assert (ids(example)[0], ids(example)[-1]) == (BOS, EOS)


def test_a_tokenizer_that_sets_the_end_itself() -> None:
    for text in ("one", "one</s>"):
        ((example,)) = encode(CausalLM(cross_documents=False), [text], tokenizer=byte_tokenizer(pairs=True))
        assert ids(example)[-2:] == [ids(example)[-2], EOS]
        assert ids(example)[-2] != EOS


def test_no_end_where_none_is_wanted() -> None:
    ((example,)) = encode(CausalLM(cross_documents=False, add_eos=False), ["one"])
    assert EOS not in ids(example)


def test_a_block_longer_than_the_model_allows() -> None:
    with pytest.raises(ConfigError, match=r"model\.task\.block_size is 65, above the 64 "):
        encode(CausalLM(block_size=65), ["one"])
    with pytest.raises(ConfigError, match=r"block_size is 1; it must be at least 2"):
        CausalLM(block_size=1)


def silent_tokenizer() -> PreTrainedTokenizerFast:
    """Makes no token of a tilde."""
    from tokenizers import normalizers

    tokenizer = byte_tokenizer(pairs=False)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    return tokenizer


@pytest.mark.parametrize(
    ("text", "said"), [("", "has no text"), (" \n", "has no text"), ("~", "has text of which the tokenizer makes no token")]
)
def test_a_row_of_no_tokens(text: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["one", text, "two", text]
    with pytest.raises(DataError, match=f"row 11, column 'text' {said}.*empty to skip"):
        encode(CausalLM(), rows, tokenizer=silent_tokenizer())
    with caplog.at_level(logging.WARNING):
        kept = encode(CausalLM(cross_documents=False, empty="skip"), rows, tokenizer=silent_tokenizer())
    assert [e["row"] for e in kept] == [10, 12]
    assert "2 rows " in caplog.text
    assert "skip" in caplog.text


def test_a_row_of_one_token_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer(pairs=False)
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    with caplog.at_level(logging.WARNING):
        kept = encode(CausalLM(cross_documents=False, add_eos=False), ["ab", "c"], tokenizer=tokenizer)
    assert [e["row"] for e in kept] == [10]
    assert "1 rows of a single token were skipped" in caplog.text


def test_half_of_a_surrogate_pair_is_a_sentence() -> None:
    with pytest.raises(DataError, match="row 11, column 'text' holds half of a surrogate pair"):
        encode(CausalLM(), ["one", "tw\ud800o"])


def test_long_rows_are_tokenised_in_short_lists() -> None:
    rows = [(i, {"text": "x" * length, "other": 5}) for i, length in enumerate([10, 2**22, 10, 10])]
    assert [[n for n, _ in chunk] for chunk in batched(rows)] == [[0, 1], [2, 3]]
    assert [len(chunk) for chunk in batched([(i, {"text": "x"}) for i in range(2500)])] == [1000, 1000, 500]


@pytest.mark.parametrize("cross", [True, False])
def test_loss_and_predictions_are_those_of_a_plain_loop(tmp_path: Path, cross: bool) -> None:
    rows = texts(14)
    task = CausalLM(block_size=24, cross_documents=cross)
    data = FinetuneData(Rows(items={"val": [{"text": t} for t in rows]}), val_split="val", predict_split="val", eval_batch_size=3)
    module = tiny_module(tmp_path, task)
    (figures,) = trainer(tmp_path).validate(module, datamodule=data, verbose=False)
    records = [r for batch in trainer(tmp_path).predict(module, datamodule=data) or [] for r in batch]

    model = AutoModelForCausalLM.from_pretrained(model_folder(tmp_path)).eval()
    blocks = [ids(e) for e in encode(task, rows)]
    losses = []
    for block in blocks:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([block])).logits[0, :-1].double()
        losses.append(F.cross_entropy(logits, torch.tensor(block[1:]), reduction="none"))
    mean = float(torch.cat(losses).mean())
    assert figures["val_loss"] == pytest.approx(mean, rel=1e-5)
    assert figures["val_perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    found = sorted((r["tokens"], round(float(r["loss"]), 4), round(math.log(r["perplexity"]), 4)) for r in records)
    theirs = sorted((len(part), round(float(part.mean()), 4), round(float(part.mean()), 4)) for part in losses)
    for ours, expected in zip(found, theirs, strict=True):
        assert ours == pytest.approx(expected, abs=2e-4)
