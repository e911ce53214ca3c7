"""Which tokens are masked: by share, by whole words, by spans; never special ones; a pure function of the key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

import ftlab
from ftlab.batch import IGNORE
from ftlab.errors import ConfigError
from ftlab.rows import Stored
from ftlab.tasks.masked_lm import MaskedLM
from ftlab.tasks.masking import _spans, pool_of, tokens_of
from ftlab.testing.tokenizer import byte_tokenizer

TEXT = "Unbelievable restructurings happened yesterday, while extraordinary metamorphoses were unquestionably postponed again. " * 3


@cache
def bert() -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(Path(ftlab.__file__).parent / "assets" / "tiny-bert")
    return found


@cache
def trained(kind: str) -> PreTrainedTokenizerBase:
    """A tokenizer of some kind, trained on the text itself but for so few pieces that words have several."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    text = TEXT.lower()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        pieces = trainers.UnigramTrainer(vocab_size=45, unk_token="<unk>", special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator([text], pieces)
    elif kind == "bytes":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            [text], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
        )
    else:  # as the SentencePiece models of Llama: the whole text is one word
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        letters = trainers.BpeTrainer(vocab_size=60, initial_alphabet=["▁"], special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(text.split(" "), letters)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>"
    )


def drawn(task: MaskedLM, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, epochs: int = 1) -> list[tuple[Stored, Stored]]:
    """(example, what an epoch shows of it) for every example and epoch."""
    rows = [(i, {"text": text}) for i, text in enumerate(texts)]
    examples = [{k: np.atleast_1d(np.array(v)) for k, v in e.items()} for e in task.encode(rows, tokenizer, 64, labelled=True)]
    return [(e, task.draw(examples, i, (7, epoch, i), tokenizer)) for epoch in range(epochs) for i, e in enumerate(examples)]


def test_the_same_key_gives_the_same_masks_and_another_one_others() -> None:
    (first, again), (other, _) = (drawn(MaskedLM(), [TEXT], bert()) for _ in range(2)), drawn(MaskedLM(), [TEXT], bert(), 2)[-2:]
    for (_, a), (_, b) in zip(first, again, strict=True):
        assert {k: v.tolist() for k, v in a.items()} == {k: v.tolist() for k, v in b.items()}
    assert first[0][1]["mlm"].tolist() != other[1]["mlm"].tolist()


def test_a_draw_leaves_the_stored_example_alone() -> None:
    for example, shown in drawn(MaskedLM(mask_token_share=1.0, random_share=0.0), [TEXT], bert()):
        assert bert().mask_token_id not in example["input_ids"]
        assert bert().mask_token_id in shown["input_ids"]


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_special_tokens_are_never_masked_nor_drawn(unit: str) -> None:
    text = "one [MASK] two [SEP] three [PAD] [UNK] four ☃ five"
    known = bert()
    task = MaskedLM(mask_share=0.9, mask_token_share=0.0, random_share=1.0, unit=unit)  # type: ignore[arg-type]
    for example, shown in drawn(task, [text, TEXT], known, 50):
        special = np.isin(example["input_ids"], known.all_special_ids)
        assert (shown["mlm"][special] == IGNORE).all()
        assert np.array_equal(shown["input_ids"][special], example["input_ids"][special])
        assert not np.isin(shown["input_ids"][~special], known.all_special_ids).any()


def test_a_special_token_without_a_role_is_special_and_a_new_token_is_not() -> None:
    known = AutoTokenizer.from_pretrained(Path(ftlab.__file__).parent / "assets" / "tiny-bert")
    known.add_tokens([AddedToken("[Y]", special=True), "newtoken"])
    role, new = (known.get_vocab()[token] for token in ("[Y]", "newtoken"))
    task, fates = MaskedLM(mask_share=0.9, mask_token_share=0.0, random_share=1.0), set()
    for example, shown in drawn(task, ["one [Y] two newtoken three"], known, 50):
        place = example["input_ids"] == role
        assert place.sum() == 1
        assert (shown["mlm"][place] == IGNORE).all()
        fates.add(shown["mlm"][example["input_ids"] == new].item())
    assert fates == {IGNORE, new}
    pool = pool_of(known)
    assert new in pool.ordinary
    assert role not in pool.ordinary


@pytest.mark.parametrize(("mask", "random", "kept"), [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25)])
def test_shares_are_settable(mask: float, random: float, kept: float) -> None:
    counts: Counter[str] = Counter()
    for example, shown in drawn(MaskedLM(mask_share=0.5, mask_token_share=mask, random_share=random), [TEXT], bert(), 60):
        place = shown["mlm"] != IGNORE
        for old, new in zip(example["input_ids"][place], shown["input_ids"][place], strict=True):
            counts["mask" if new == bert().mask_token_id else "kept" if new == old else "random"] += 1
    total = sum(counts.values())
    for name, share in (("mask", mask), ("random", random), ("kept", kept)):
        assert counts[name] / total == pytest.approx(share, abs=0.0 if share in (0.0, 1.0) and not random else 0.03)


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("words", [1, 2, 4, 11, 40])
def test_a_row_gets_its_share_on_average_and_one_token_at_least(unit: str, words: int) -> None:
    text = " ".join(TEXT.split()[:words])
    task = MaskedLM(mask_share=0.3, unit=unit)  # type: ignore[arg-type]
    found = drawn(task, [text], bert(), 200 if unit == "span" else 400)
    scored = np.array([(shown["mlm"] != IGNORE).sum() for _, shown in found])
    assert scored.min() >= 1
    if words >= 11:
        share = scored.sum() / sum(len(example["input_ids"]) - 2 for example, _ in found)
        assert share == pytest.approx(0.3, abs=0.02)


def test_a_rounded_count_differs_by_less_than_one_token() -> None:
    found = drawn(MaskedLM(block_size=39), [TEXT], bert(), 40)
    counts = {int((shown["mlm"] != IGNORE).sum()) for example, shown in found if len(example["input_ids"]) == 39}
    assert counts == {5, 6}  # 15 % of 37 tokens are 5.55


@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "unigram", "joined"])
def test_words_are_masked_whole(kind: str) -> None:
    known = bert() if kind == "wordpiece" else trained(kind)
    text = TEXT.lower()
    ((ids, starts),) = tokens_of([text], known, words=True)
    tokens = known.convert_ids_to_tokens(ids)
    bounds = zip(np.flatnonzero(starts), [*np.flatnonzero(starts)[1:], len(ids)], strict=True)
    pieces = ["".join(t.removeprefix("##").strip("Ġ▁") for t in tokens[a:b]) for a, b in bounds]
    assert "".join(pieces) == text.replace(" ", "")
    words = set(pieces) - {""}
    expected = set(text.split()) if kind in ("unigram", "joined") else set(text.replace(",", " ,").replace(".", " .").split())
    assert words == expected
    word_of = np.cumsum(starts)
    assert len(ids) > 1.5 * word_of[-1]
    task = MaskedLM(unit="word", cross_documents=False, mask_token_share=1.0, random_share=0.0)
    added = len(known("a")["input_ids"]) - len(known("a", add_special_tokens=False)["input_ids"])
    for example, shown in drawn(task, [" ".join(text.split()[:12])], known, 20):
        whole = np.cumsum(example["starts"])
        masked = shown["mlm"] != IGNORE
        inside = slice(1, -1) if added else slice(None)
        for word in set(whole[inside].tolist()):
            assert len(set(masked[inside][whole[inside] == word].tolist())) == 1


def test_a_text_that_the_tokenizer_takes_for_one_word_is_cut_at_white_space() -> None:
    ((_, starts),) = tokens_of(["ab c  d"], byte_tokenizer(pairs=True), words=True)
    assert starts == [1, 0, 1, 1, 1, 1, 1]  # each space may start a word, "b" goes on from "a"


def test_spans_are_runs_of_words_of_geometric_length_and_of_one_fate() -> None:
    text = " ".join(["one two three four five six seven eight nine ten"] * 6)
    task = MaskedLM(unit="span", mask_share=0.15, cross_documents=False, block_size=62)
    lengths: list[int] = []
    fates: Counter[str] = Counter()
    known = bert()
    for example, shown in drawn(task, [text], known, 150):
        place = np.flatnonzero(shown["mlm"] != IGNORE)
        runs = np.split(place, np.flatnonzero(np.diff(place) > 1) + 1)
        for run in runs:
            lengths.append(int(example["starts"][run].sum()))
            new, old = shown["input_ids"][run], example["input_ids"][run]
            fates["mask" if (new == known.mask_token_id).all() else "kept" if (new == old).all() else "random or two spans"] += 1
    assert max(lengths) > 5
    # A span that meets the budget, the row's end or another span is shorter than its draw, whose mean is 3.8 (Joshi et al. 2020).
    assert 2.2 < np.mean(lengths) < 4.2
    assert fates["mask"] / sum(fates.values()) == pytest.approx(0.77, abs=0.08)


def test_a_span_does_not_go_on_behind_a_special_token() -> None:
    sizes, joined = np.ones(6, dtype=np.int64), np.array([False, True, True, False, True, True])
    spans = [span for seed in range(60) for span in _spans(sizes, joined, 5.5, np.random.default_rng(seed))]
    assert max(map(len, spans)) == 3
    assert not any({2, 3} <= set(span) for span in spans)


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    known = byte_tokenizer(pairs=False)
    known.mask_token = None
    with pytest.raises(ConfigError, match="has a tokenizer without a mask token.*choose CausalLM"):
        drawn(MaskedLM(), ["one"], known)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mask_share": 0.0}, "mask_share is 0; it must be above 0"),
        ({"mask_share": 1.0}, "mask_share is 1; it must be above 0 and below 1"),
        ({"mask_token_share": 0.95}, "mask_token_share is 0.95 and random_share 0.1; neither"),
        ({"random_share": -0.1}, "random_share -0.1; neither may be below 0"),
        ({"block_size": 0}, "block_size is 0; it must be at least 1"),
        ({"too_long": "error"}, "too_long is error, but blocks that cross rows split them all; set cross_documents to false"),
    ],
)
def test_settings_that_cannot_be_meant(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MaskedLM(**fields)  # type: ignore[arg-type]
