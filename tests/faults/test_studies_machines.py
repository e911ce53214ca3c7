"""Two machines, played by two processes with folders of their own, on one PostgreSQL."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftlab.errors import StorageError
from ftlab.studies.engine import run_study
from ftlab.studies.reading import read_records
from tests.faults import study_run
from tests.faults.postgres import server
from tests.faults.study_run import begin, journal_of, table
from tests.faults.test_studies import TRIALS, journal_text, write
from tests.faults.test_studies import whole as whole
from tests.unit.studies.small_study import Fits, study

Table = dict[str, tuple[object, ...]]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture
def url(postgres: str) -> str:
    """The server without what the test before has left."""
    from sqlalchemy import create_engine, text

    engine = create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres


def test_two_machines_share_a_study(tmp_path: Path, whole: Table, url: str) -> None:
    write(tmp_path)
    machines = [begin(tmp_path, 2, url, folder) for folder in ("a", "b")]
    for machine in machines:
        code, said = machine.end()
        assert code == 0, said
    assert table(tmp_path / "a", url) == whole
    assert set(study_run.attempts(tmp_path, url).values()) == {1}
    assert all(events[0] == ("start", 0) and len(events) == 1 + study_run.STEPS for events in journal_of(tmp_path / "journal").values())
    runs = [{p.parent.relative_to(tmp_path / m / "runs") for p in (tmp_path / m / "runs").glob("*/*/summary.json")} for m in ("a", "b")]
    assert (len(runs[0] | runs[1]), runs[0] & runs[1]) == (TRIALS, set())
    assert (tmp_path / "a" / "results.csv").read_text() == (tmp_path / "b" / "results.csv").read_text()
    assert not (tmp_path / "a" / "study.db").exists()


def test_a_machine_that_dies_is_stood_in_for(tmp_path: Path, whole: Table, url: str) -> None:
    write(tmp_path)
    dying = begin(tmp_path, 2, url, "a")
    while "step" not in journal_text(tmp_path) and not dying.ended():
        time.sleep(0.002)
    other = begin(tmp_path, 1, url, "b")
    dying.send(signal.SIGKILL)
    dying.end()
    code, said = other.end()
    assert code == 0, said
    assert table(tmp_path / "b", url) == whole
    assert set(study_run.attempts(tmp_path, url).values()) == {1}


def test_a_study_of_another_machine_is_known_by_its_content(tmp_path: Path, url: str) -> None:
    assert run_study(study(tmp_path), tmp_path / "a", storage=url, start=Fits()) == 0
    assert run_study(study(tmp_path / "elsewhere"), tmp_path / "b", storage=url, start=(fits := Fits())) == 0
    assert fits.started == []
    with pytest.raises(Exception, match="add --extend"):
        run_study(study(tmp_path, seeds=3), tmp_path / "b", storage=url, start=Fits())
    kept = {r.key: dataclasses.asdict(r) for r in read_records(url, "s", tmp_path)}
    assert len(kept) == 4


def test_a_server_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    url = f"postgresql://me:secret@/db?host={tmp_path}"
    with pytest.raises(
        StorageError, match=r"^the study's storage postgresql\+psycopg://me:\*\*\*@/db\?host=\S+ does not answer \(.*\); "
    ) as caught:
        run_study(study(tmp_path), tmp_path, storage=url, start=Fits())
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
