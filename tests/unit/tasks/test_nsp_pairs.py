"""Pairs of segments: their labels are true, their lengths say nothing, and they are a pure function of the key."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from ftlab.errors import ConfigError, DataError
from ftlab.rows import Example, Stored
from ftlab.tasks.bert_pretraining import BertPretraining
from ftlab.tasks.next_sentence import NextSentencePrediction
from ftlab.testing.tokenizer import byte_tokenizer

KNOWN = byte_tokenizer(pairs=True, segments=True)
CLS, SEP = 0, 2
PLAIN = NextSentencePrediction(short_share=0.0)


def encode(
    task: NextSentencePrediction | BertPretraining, documents: Sequence[Sequence[str]], limit: int = 43
) -> tuple[list[Example], list[Stored]]:
    rows = [(10 + i, {"text": "\n".join(sentences)}) for i, sentences in enumerate(documents)]
    examples = list(task.encode(rows, KNOWN, limit, labelled=True))
    return examples, [{k: np.atleast_1d(np.array(v)) for k, v in e.items()} for e in examples]


def corpus(documents: int = 12, sentences: int = 30, seed: int = 0) -> list[list[str]]:
    """Sentences that occur once: each letter of a document's is its own, and lengths vary."""
    random = np.random.default_rng(seed)
    return [
        ["".join(chr(0x4E00 + d * 1000 + s * 20 + k) for k in range(int(random.integers(2, 6)))) for s in range(sentences)]
        for d in range(documents)
    ]


def drawn(task: NextSentencePrediction, stored: list[Stored], epoch: int = 0, seed: int = 3) -> list[tuple[list[int], list[int], int]]:
    """(A, B, label) of every example, without special tokens."""
    found = []
    for i in range(len(stored)):
        shown = task.draw(stored, i, (seed, epoch, i), KNOWN)
        ids, types = shown["input_ids"].tolist(), shown["token_type_ids"].tolist()
        between = ids.index(SEP)
        assert (ids[0], ids[-1], ids.count(SEP)) == (CLS, SEP, 2)
        assert types == [0] * (between + 1) + [1] * (len(ids) - between - 1)
        found.append((ids[1:between], ids[between + 1 : -1], int(shown["nsp"][0])))
    return found


def contains(whole: list[int], part: list[int]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def ids_of(sentences: Sequence[str]) -> list[int]:
    found: list[int] = KNOWN("".join(sentences), add_special_tokens=False)["input_ids"]
    return found


def test_spans_hold_every_sentence_once_and_two_at_least() -> None:
    documents = corpus()
    examples, stored = encode(PLAIN, documents)
    for number, sentences in enumerate(documents):
        own = [e for e in examples if e["row"] == 10 + number]
        assert [i for e in own for i in e["input_ids"]] == ids_of(sentences)  # type: ignore[union-attr]
        firsts = {e["first"] for e in own}
        assert firsts == {examples.index(own[0])}
        assert {e["count"] for e in own} == {len(own)}
    assert all(len(e["ends"]) >= 2 for e in stored)
    room = 40
    for e in stored:
        assert e["room"].tolist() == [room]
        assert e["ends"][-1] <= room or e["ends"][-2] <= room or len(e["ends"]) == 2


def test_true_pairs_go_on_and_wrong_ones_are_of_another_document() -> None:
    documents = corpus()
    examples, stored = encode(PLAIN, documents)
    texts = {10 + i: ids_of(sentences) for i, sentences in enumerate(documents)}
    for (first, second, label), example in zip(drawn(PLAIN, stored), examples, strict=True):
        own = texts[int(example["row"])]  # type: ignore[arg-type]
        assert contains(own, first)
        if label == 0:
            assert contains(own, second)
            assert len(example["input_ids"]) > 40 or contains(own, first + second)  # type: ignore[arg-type]
        else:
            assert not contains(own, second)
            assert any(contains(text, second) for row, text in texts.items() if row != example["row"])


def test_swapped_pairs_are_the_true_ones_the_other_way_round() -> None:
    task = NextSentencePrediction(negatives="order", short_share=0.0)
    documents = corpus()
    examples, stored = encode(task, documents)
    labels = []
    for (first, second, label), example in zip(drawn(task, stored), examples, strict=True):
        own, ids = ids_of(documents[int(example["row"]) - 10]), example["input_ids"]  # type: ignore[arg-type]
        assert isinstance(ids, list)
        if len(ids) <= 40:
            assert (second + first if label else first + second) == ids
        assert contains(own, first)
        assert contains(own, second)
        labels.append(label)
    assert 0.3 < np.mean(labels) < 0.7


def test_neither_length_nor_end_nor_start_tells_the_label() -> None:
    """Over many draws the lengths of either label have the same mean, and B starts a sentence and seldom ends one."""
    documents = corpus(30, 30)
    _, stored = encode(PLAIN, documents, limit=63)
    starts = {ids_of([s])[0:3].__str__() for sentences in documents for s in sentences}
    ends = {ids_of([s])[-3:].__str__() for sentences in documents for s in sentences}
    seen: dict[int, list[tuple[int, int, bool, bool]]] = {0: [], 1: []}
    for epoch in range(12):
        for first, second, label in drawn(PLAIN, stored, epoch):
            if len(first) + len(second) < 60 and len(second) > 2:  # not truncated, and a letter has three bytes
                seen[label].append((len(first), len(second), str(second[:3]) in starts, str(second[-3:]) in ends))
    true, wrong = (np.array(seen[label], dtype=float) for label in (0, 1))
    assert min(len(true), len(wrong)) > 800
    for column in (0, 1):
        spread = np.sqrt(true[:, column].var() / len(true) + wrong[:, column].var() / len(wrong))
        assert abs(true[:, column].mean() - wrong[:, column].mean()) < 4 * spread
    # Uncut, all true ones would end a sentence; cut inside it, E[1/length] of them do, and 1/E[length] of the wrong ones.
    assert abs(true[:, 3].mean() - wrong[:, 3].mean()) < 0.05
    assert true[:, 2].all()
    assert wrong[:, 2].all()


def test_length_says_nothing_where_other_documents_are_shorter() -> None:
    documents = corpus(1, 30) + [[f"a{d}", f"b{d}"] for d in range(10)]
    _, stored = encode(PLAIN, documents, limit=63)
    lengths: dict[int, set[int]] = {0: set(), 1: set()}
    for epoch in range(20):
        for example, (_, second, label) in zip(stored, drawn(PLAIN, stored, epoch), strict=True):
            if example["row"][0] == 10:
                lengths[label].add(len(second))
    assert max(lengths[0]) == max(lengths[1]) == 2  # the second sentence of another document


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_share_of_true_pairs(share: float) -> None:
    task = NextSentencePrediction(next_share=share)
    _, stored = encode(task, corpus())
    labels = [label for epoch in range(20) for *_, label in drawn(task, stored, epoch)]
    deviation = np.sqrt(share * (1 - share) / len(labels))
    assert abs(1 - np.mean(labels) - share) < 4 * deviation


def test_another_epoch_has_other_pairs_and_the_same_one_the_same() -> None:
    _, stored = encode(PLAIN, corpus())
    one, again, other = drawn(PLAIN, stored, 0), drawn(PLAIN, stored, 0), drawn(PLAIN, stored, 1)
    assert one == again
    wrong = [{(tuple(a), tuple(b)) for a, b, label in pairs if label} for pairs in (one, other)]
    assert not wrong[0] & wrong[1]
    assert np.mean([a == b for a, b in zip(one, other, strict=True)]) < 0.1


def test_documents_that_say_the_same_give_no_false_wrong_pair() -> None:
    same = [["ab", "cd", "ef", "gh"]] * 5
    _, stored = encode(PLAIN, same)
    labels = []
    for epoch in range(40):
        for first, second, label in drawn(PLAIN, stored, epoch):
            assert label == 1 - int(contains(ids_of(same[0]), first + second))
            labels.append(label)
    assert np.mean(labels) > 0.42  # a stretch that is how A goes on is drawn again
    _, stored = encode(PLAIN, [["ab", "cd"]] * 5)
    assert {label for epoch in range(5) for *_, label in drawn(PLAIN, stored, epoch)} == {0}  # there is no other one


@pytest.mark.parametrize(
    "document",
    [["red fox", "red fox"], ["abcdefghijklmnopqrstuvwxyz"] * 2, ["ab" * 19, "ab" * 10]],
    ids=["equal", "equal until they are cut", "equal once they are cut"],
)
def test_two_segments_that_are_equal_have_one_order(document: list[str]) -> None:
    task = NextSentencePrediction(negatives="order", short_share=0.0)
    _, stored = encode(task, [document])
    pairs = [pair for epoch in range(40) for pair in drawn(task, stored, epoch)]
    assert {label for first, second, label in pairs if first == second or document[0] == document[1]} == {0}
    assert {label for *_, label in pairs} == ({0} if document[0] == document[1] else {0, 1})


def test_short_pairs_are_of_fewer_sentences() -> None:
    _, stored = encode(NextSentencePrediction(short_share=1.0), corpus(), limit=103)
    short, full = (
        [len(a) + len(b) for epoch in range(4) for a, b, _ in drawn(NextSentencePrediction(short_share=share), stored, epoch)]
        for share in (1.0, 0.0)
    )
    assert np.mean(short) < 0.7 * np.mean(full)
    assert max(full) <= 100


@pytest.mark.parametrize(("first", "second"), [(70, 10), (10, 70), (40, 40), (70, 60), (39, 2)])
def test_truncation_is_that_of_bert(first: int, second: int) -> None:
    """Token by token from the longer segment, as Google's `truncate_seq_pair`; here in one go."""
    from ftlab.tasks.segments import _truncated

    room = 41
    a, b = first, second
    while a + b > room:
        a, b = (a - 1, b) if a > b else (a, b - 1)
    fronts = set()
    for seed in range(50):
        whole = np.arange(first)[None], 1000 + np.arange(second)[None]
        kept = _truncated(*whole, room, np.random.default_rng(seed))
        assert (kept[0].shape[1], kept[1].shape[1]) == (a, b)
        for part in kept:
            assert all(y - x == 1 for x, y in pairwise(part[0].tolist()))
        fronts.add(int(kept[0][0, 0]))
    assert (len(fronts) > 1) == (first > a + 1)


def test_long_sentences_are_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, stored = encode(PLAIN, [["x" * 100, "ab"], ["cd", "ef"]])
    assert "1 sentences of more than 40 tokens were cut into several" in caplog.text
    assert sum(len(e["input_ids"]) for e in stored[: int(stored[0]["count"][0])]) == 102
    for _, second, _ in drawn(PLAIN, stored):
        assert second


def test_a_document_of_one_sentence_is_left_out_of_pairs_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    documents = [["ab", "cd"], ["alone"], ["ef", "gh"]]
    with caplog.at_level(logging.WARNING):
        examples, _ = encode(PLAIN, documents)
    assert [e["row"] for e in examples] == [10, 12]
    assert "1 documents have a single sentence, of which no pair can be made: they were left out" in caplog.text


def test_a_document_without_a_sentence_is_named_or_counted(caplog: pytest.LogCaptureFixture) -> None:
    documents = [["ab", "cd"], [""], ["ef", "gh"]]
    with pytest.raises(DataError, match="row 11, column 'text' has no text"):
        encode(PLAIN, documents)
    with caplog.at_level(logging.WARNING):
        encode(NextSentencePrediction(empty="skip"), documents)
    assert "1 rows without text were skipped" in caplog.text


def test_a_single_document_has_no_other_one() -> None:
    with pytest.raises(
        DataError, match=r"a single document to make pairs from.*give the split more documents, or set model\.task\.negatives"
    ):
        encode(PLAIN, [["ab", "cd", "ef"]])
    with pytest.raises(DataError, match=r"a single document to make pairs from"):
        encode(PLAIN, [["ab", "cd", "ef"], ["alone"]])
    examples, stored = encode(NextSentencePrediction(negatives="order"), [["ab", "cd", "ef"]])
    assert len(examples) == 1
    assert drawn(NextSentencePrediction(negatives="order"), stored)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"next_share": 0.0}, "next_share is 0; it must be above 0 and below 1"),
        ({"next_share": 1.0}, "next_share is 1"),
        ({"short_share": 1.5}, "short_share is 1.5; it must be from 0 to 1"),
        ({"language": "de"}, "language is de while sentences is lines, which asks for no language; set sentences to split or leave"),
        ({"language": "", "sentences": "split"}, "language is empty; write the code of a language, such as en"),
    ],
)
def test_settings_that_cannot_be_meant(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        NextSentencePrediction(**fields)  # type: ignore[arg-type]


def test_rows_too_short_for_a_pair() -> None:
    with pytest.raises(ConfigError, match="max_length leaves 1 tokens for a pair"):
        encode(PLAIN, corpus(), limit=4)
