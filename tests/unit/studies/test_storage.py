"""The storage: what cannot be opened is one sentence, and SQLite gives a trial to one process."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ftlab.errors import ConfigError, StorageError
from ftlab.studies.outcome import Metrics, found, said
from ftlab.studies.reading import read_records
from ftlab.studies.storage import Lease, connect


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", r"^--storage is no URL of a database; write postgresql://"),
        ("postgresql://u@h:port/db", r"^--storage is no URL of a database; write postgresql://"),
        ("redis://h/0", r"^--storage names redis; allowed: sqlite, postgresql, mysql\."),
        ("mysql+nodriver://h/x", r"^--storage names a driver mysql\+nodriver that"),
    ],
)
def test_a_url_that_means_nothing(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        connect(url, tmp_path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("this is no database, but long enough to be taken for one" * 100)
    with pytest.raises(StorageError, match=r"study\.db does not answer \(file is not a database\); mend it"):
        connect(None, tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open database file"):
        connect(None, tmp_path / "absent")


def test_what_is_read_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no study\.db; give --storage"):
        read_records(None, "s", tmp_path)
    assert list(tmp_path.iterdir()) == []
    connect(None, tmp_path).close()
    with pytest.raises(ConfigError, match="the storage has no study s"):
        read_records(None, "s", tmp_path)


def test_a_transaction_of_sqlite_begins_with_the_lock(tmp_path: Path) -> None:
    with closing(connect(None, tmp_path, Lease(interval=1, grace=2))) as store, store.rdb.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")  # reads alone
        with closing(sqlite3.connect(tmp_path / "study.db", timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def test_metrics_are_read_as_they_grow_and_again_when_they_were_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    assert metrics.new() == []
    path.write_text('{"step": 1}\n{"step": 2, "val')
    assert metrics.new() == [{"step": 1}]
    with path.open("a") as file:
        file.write('_loss": 1}\nnot json\n[1]\n')
    assert metrics.new() == [{"step": 2, "val_loss": 1}]
    (tmp_path / "new").write_text('{"step": 1}\n')
    os.replace(tmp_path / "new", path)
    assert (metrics.new(), metrics.new()) == ([{"step": 1}], [])


def test_a_figure_that_only_the_summary_has_is_a_metric_too(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"tokens_per_second": 3.5, "tokens": 7}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "val_loss": 2}\n{"step": 2, "val_loss": 1, "lr": 0.1, "name": "x"}\n')
    assert found(tmp_path, "tokens_per_second").value == 3.5
    left = found(tmp_path, "val_loss")
    assert (left.value, left.metrics, left.figures) == (1.0, {"val_loss": 1.0, "lr": 0.1}, {"tokens": 7})
    assert found(tmp_path / "absent", "val_loss").value is None


def test_what_a_run_said_is_its_own_and_harmless(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("ftlab: error: of the attempt before\n")
    start = log.stat().st_size
    with log.open("ab") as file:
        file.write(b"line\n" * 30 + b"\x1b[2J\xff\nftlab: error: the key api_key sk-abcdefghijklmnopqrst\x07 is wrong.\nlast\n")
    sentence, tail = said(log, start)
    assert sentence == "the key api_key <removed>� is wrong."
    assert (len(tail), tail[-1], tail[-3]) == (20, "last", "�[2J�")
    assert said(log, log.stat().st_size) == ("it said nothing of it", [])
    assert said(tmp_path / "absent", 0) == ("it said nothing of it", [])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("validation: 144 rows\n└────┴────┘\n", "it said nothing of it"),
        ("Epoch 0:  50%|█████     | 30/60\rEpoch 0:  51%|█████     | 31/60", "it said nothing of it"),
        ('x\nTraceback (most recent call last):\n  File "a.py", line 1\n    f()\nValueError: 1\n2\n└──┘\n', "ValueError: 1"),
        ('Traceback (most recent call last):\nKeyError: 1\n\nTraceback (most recent call last):\n  File "a"\nOSError: 2', "OSError: 2"),
        ("Traceback (most recent call last):\nKeyError: 1\nftlab: error: no such key.\nbye\n", "no such key."),
    ],
)
def test_the_reason_is_never_a_line_that_happens_to_be_the_last(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "log").write_text(text)
    assert said(tmp_path / "log", 0)[0] == sentence
