"""Python's own documentation as data: nothing is shared between splits and parts, and nothing depends on the process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ftlab.data.sources import python_docs
from ftlab.data.sources.python_docs import HELD_OUT, DocstringPackage, PythonDocs, documents, in_split, passages
from ftlab.errors import ConfigError, DataError

SHARED_FROM = 40

PROBE = """
import json, sys
from ftlab.data.sources.base import DataSource
from ftlab.data.sources.python_docs import DocstringPackage, PythonDocs
before = set(sys.modules)
hashes = [hash(source, split) for hash in (DataSource.fingerprint, lambda source, split: source.fingerprint(split))
          for source in (PythonDocs(), PythonDocs(part="pretraining"), DocstringPackage()) for split in source.splits()]
print(json.dumps({"hashes": hashes, "imported": sorted(set(sys.modules) - before)}))
"""


def paragraphs(texts: list[str]) -> set[str]:
    """The longer paragraphs of docstrings and topics, without signatures, quotes and line breaks."""
    bare = (re.sub(r'^(class|def) .*:\n    """|"""$', "", part) for text in texts for part in text.split("\n\n"))
    return {" ".join(part.split()) for part in bare if len(" ".join(part.split())) >= SHARED_FROM}


def texts_of(source: PythonDocs | DocstringPackage, split: str) -> list[str]:
    """The text column of a split."""
    return [str(row["text"]) for row in source.rows(split)]


def probe(hash_seed: str) -> dict[str, list[str]]:
    """What a fresh process sees."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("part", ["pretraining", "held-out"])
def test_splits_share_no_text(part: str) -> None:
    source = PythonDocs(part=part)  # type: ignore[arg-type]  # parametrize only knows str
    assert not paragraphs(texts_of(source, "train")) & paragraphs(texts_of(source, "validation"))


def test_held_out_is_never_in_pretraining() -> None:
    pretraining, held_out = PythonDocs(part="pretraining"), PythonDocs(part="held-out")
    seen = paragraphs([text for split in pretraining.splits() for text in texts_of(pretraining, split)])
    kept = [text for split in held_out.splits() for text in texts_of(held_out, split)]
    assert not seen & paragraphs(kept)
    labelled = DocstringPackage()
    assert not seen & paragraphs([text for split in labelled.splits() for text in texts_of(labelled, split)])


def test_held_out_is_whole_packages() -> None:
    assert {document.package for document in documents("held-out")} == set(HELD_OUT)
    assert not {document.package for document in documents("pretraining")} & set(HELD_OUT)


@pytest.mark.parametrize(("part", "least"), [("pretraining", 1_000_000), ("held-out", 300_000)])
def test_there_is_enough_text(part: str, least: int) -> None:
    source = PythonDocs(part=part)  # type: ignore[arg-type]  # parametrize only knows str
    train, validation = (sum(map(len, texts_of(source, split))) for split in source.splits())
    assert train >= least
    assert 0.02 < validation / train < 0.4


def test_passages_lose_nothing_and_keep_to_their_length() -> None:
    text = documents("held-out")[0].text
    cut = list(passages(text, 1000))
    assert "\n\n".join(cut) == text
    assert all(len(passage) <= 1000 or "\n\n" not in passage for passage in cut)
    assert list(passages(text, 0)) == [text]


def test_labels_are_the_declared_ones_and_no_text_names_its_own() -> None:
    source = DocstringPackage()
    for split, least in (("train", 50), ("validation", 10)):
        rows = list(source.rows(split))
        counts = Counter(str(row["label"]) for row in rows)
        assert set(counts) == set(HELD_OUT)
        assert min(counts.values()) >= least
        assert not [row for row in rows if str(row["label"]) in str(row["text"]).lower()]
    train, validation = (set(texts_of(source, split)) for split in source.splits())
    assert not train & validation


def test_labels_can_be_capped() -> None:
    source = DocstringPackage(max_per_label=5)
    counts = Counter(row["label"] for split in source.splits() for row in source.rows(split))
    assert set(counts.values()) == {5}


@pytest.mark.slow
def test_rows_do_not_depend_on_the_process_and_nothing_is_imported() -> None:
    first, second = probe("1"), probe("2")
    assert first["hashes"] == second["hashes"]
    assert len(set(first["hashes"])) == 12
    assert first["imported"] == second["imported"] == []


def test_a_split_is_chosen_by_the_letters_of_the_title() -> None:
    assert in_split("asyncio.tasks", "train", 10) != in_split("asyncio.tasks", "validation", 10)
    with pytest.raises(DataError, match="validation"):
        list(PythonDocs().rows("validaton"))


def test_a_fingerprint_holds_the_fields_the_files_and_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "http" / "client.py"
    file.parent.mkdir()
    file.write_text('"""One sentence."""', encoding="utf-8")
    monkeypatch.setattr(python_docs, "_ROOT", tmp_path)
    monkeypatch.setattr(python_docs, "_parse", None)  # nothing is parsed for it
    found = [source.fingerprint("train") for source in (PythonDocs(), PythonDocs(max_characters=9), DocstringPackage())]
    file.write_text('"""Another."""', encoding="utf-8")
    found.append(PythonDocs().fingerprint("train"))
    file.rename(file.with_name("server.py"))
    found.append(PythonDocs().fingerprint("train"))
    assert len(set(found)) == len(found)


def test_a_fingerprint_of_a_split_that_is_not_there() -> None:
    with pytest.raises(DataError, match="validation"):
        PythonDocs().fingerprint("validaton")


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_characters"):
        PythonDocs(max_characters=-1)
