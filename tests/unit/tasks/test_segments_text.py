"""Where the sentences of a document begin and end."""

from __future__ import annotations

import logging
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from ftlab.errors import EnvironmentFault
from ftlab.tasks import segments_text
from ftlab.tasks.next_sentence import NextSentencePrediction
from ftlab.testing.tokenizer import byte_tokenizer

KNOWN = byte_tokenizer(pairs=True, segments=True)


def test_paragraphs_are_what_blank_lines_separate() -> None:
    found = segments_text.sentences_of("one\ntwo\n \n\nthree\r\nfour\n", "paragraphs", None)
    assert found == ["one\ntwo", "three\nfour"]
    assert segments_text.sentences_of(" one \n\ntwo\n", "lines", None) == ["one", "two"]


def test_sentences_are_split_by_sentencex() -> None:
    pytest.importorskip("sentencex", reason="the extra ftlab[sentences] is not installed")
    rows = [(0, {"text": "Mr. Smith came. He left at 5 p.m. yesterday!\n\nWhy?"}), (1, {"text": "One. Two."})]
    examples = list(NextSentencePrediction(sentences="split").encode(rows, KNOWN, 64, labelled=True))
    whole = [str(KNOWN.decode(e["input_ids"])) for e in examples]  # type: ignore[arg-type]  # a list of ids
    ends = [[0, *e["ends"]] for e in examples]  # type: ignore[misc]  # a list of numbers
    pieces = [[text[a:b] for a, b in pairwise(places)] for text, places in zip(whole, ends, strict=True)]
    assert pieces == [["Mr. Smith came.", "He left at 5 p.m. yesterday!", "Why?"], ["One.", "Two."]]


def test_a_language_that_sentencex_has_no_rules_for_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(segments_text, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "sentencex", SimpleNamespace(segment=lambda language, text: [f"{language} {text}"]))
    segments_text._warn_of.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [segments_text.splitter(code)("a. b.") for code in ("de", "qq", "qq")] == [["de a. b."], ["qq a. b."], ["qq a. b."]]
    (said,) = caplog.messages
    assert said.startswith(
        "model.task.language is qq, for which sentencex has no rules of its own, so it takes those of a related language"
    )
    assert said.endswith("it has rules for " + ", ".join(segments_text._LANGUAGES))


def test_without_sentencex_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_text, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"needs the package sentencex; run `pip install 'ftlab\[sentences\]'`.*set it to lines"):
        list(NextSentencePrediction(sentences="split").encode([(0, {"text": "One. Two."})], KNOWN, 64, labelled=True))
