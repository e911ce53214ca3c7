from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ftlab.data.store import TokenStore, default_folder, write
from ftlab.errors import DataError, StorageError
from ftlab.rows import Example

EXAMPLES: list[Example] = [
    {"input_ids": [5, 6, 7], "row": 0, "label": 1, "score": 0.25, "tags": [], "soft": [0.5, 1.5]},
    {"input_ids": [], "row": 3, "label": -100, "score": -1e-3, "tags": [2**31 - 1, -(2**31)], "soft": []},
    {"input_ids": [9], "row": 4, "label": 0, "score": 3.0, "tags": [], "soft": [2.0]},
]


def as_lists(store: TokenStore) -> list[dict[str, list[float]]]:
    return [{name: values.tolist() for name, values in store[i].items()} for i in range(len(store))]


def wrapped(examples: list[Example]) -> list[dict[str, object]]:
    return [{name: value if isinstance(value, list) else [value] for name, value in e.items()} for e in examples]


@pytest.mark.parametrize("every", [1, 4, 2**20])
def test_what_went_in_comes_out(tmp_path: Path, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlab.data.store._WRITE_EVERY", every)
    write(tmp_path / "s", iter(EXAMPLES), {"rows": 5})
    store = TokenStore(tmp_path / "s")
    floats = ("score", "soft")
    rounded: list[Example] = [{n: np.asarray(v, np.float32).tolist() if n in floats else v for n, v in e.items()} for e in EXAMPLES]
    assert as_lists(store) == wrapped(rounded)
    assert store.meta["rows"] == 5
    assert store.lengths.tolist() == [3, 0, 1]
    assert {n: v.dtype.name for n, v in store[0].items()} == {
        "input_ids": "int32", "row": "int32", "label": "int32", "score": "float32", "tags": "int32", "soft": "float32",
    }  # fmt: skip


def test_no_examples_make_an_empty_store(tmp_path: Path) -> None:
    write(tmp_path / "s", iter([]), {"rows": 2})
    store = TokenStore(tmp_path / "s")
    assert len(store) == 0
    assert store.lengths.tolist() == []


def test_tokens_are_mapped_and_not_read(tmp_path: Path) -> None:
    big: Iterator[Example] = ({"input_ids": [7] * 1000, "row": i} for i in range(20_000))
    write(tmp_path / "s", big, {})
    code = (
        "import sys; from pathlib import Path; from ftlab.data.store import TokenStore\n"
        "def held(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])\n"
        "before = held(); store = TokenStore(Path(sys.argv[1])); assert len(store) == 20000; assert store[19999]['input_ids'][999] == 7\n"
        "print(held() - before)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    grown = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 10_000  # KiB; the tokens are 80,000


def test_a_worker_gets_the_folder_and_not_the_tokens(tmp_path: Path) -> None:
    many: list[Example] = [{"input_ids": [1] * 1000, "row": i} for i in range(1000)]
    write(tmp_path / "s", many, {})
    packed = pickle.dumps(TokenStore(tmp_path / "s"))
    assert len(packed) < 1000
    assert len(pickle.loads(packed)) == 1000


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([{"row": 0, "x": 1}, {"row": 1}], "example 1 has the fields ['row'], the first one ['row', 'x']"),
        ([{"row": 0, "x": 1}, {"row": 1, "x": 2, "y": 3}], "example 1 has the fields ['row', 'x', 'y']"),
        ([{"row": 0, "x": 2**31}], "field 'x' of the task's examples holds 2147483648; whole numbers are kept in 32 bits"),
        ([{"row": 0, "x": [3, -(2**40)]}], "holds -1099511627776;"),
        ([{"row": 0, "x": 2**70}], "holds 1180591620717411303424;"),
        ([{"row": 0, "x": "12"}], "holds '12';"),
        ([{"row": 0, "x": [[1], [2, 3]]}], "holds [1];"),
        ([{"row": 0, "x": None}], "holds None;"),
    ],
)
def test_what_no_field_can_hold_is_refused(tmp_path: Path, examples: list[Example], said: str) -> None:
    with pytest.raises(DataError) as caught:
        write(tmp_path / "s", iter(examples), {})
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_field_of_whole_numbers_takes_no_float_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlab.data.store._WRITE_EVERY", 2)
    examples: list[Example] = [{"row": 0, "x": 1}, {"row": 1, "x": 1}, {"row": 2, "x": 0.5}]
    with pytest.raises(DataError, match=r"field 'x' of the task's examples holds 0\.5"):
        write(tmp_path / "s", examples, {})


def test_a_failing_source_leaves_nothing_and_keeps_its_own_error(tmp_path: Path) -> None:
    def failing() -> Iterator[Example]:
        yield EXAMPLES[0]
        raise ConnectionResetError("the hub went away")

    with pytest.raises(ConnectionResetError):
        write(tmp_path / "s", failing(), {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written .*set FTLAB_CACHE") as caught:
        write(tmp_path / "file" / "tokens" / "s", iter(EXAMPLES), {})
    assert caught.value.exit_code == 8


@pytest.mark.parametrize("every", [50, 2**20], ids=["on the way", "at the end"])
def test_a_full_disk_is_a_storage_error(tmp_path: Path, every: int) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from ftlab.data import store; from ftlab.errors import StorageError\n"
        f"store._WRITE_EVERY = {every}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: store.write(Path(sys.argv[1]) / 's', ({'input_ids': [1] * 100, 'row': i} for i in range(1000)), {})\n"
        "except StorageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert "FTLAB_CACHE" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_nothing_appears_before_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: object, target: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(StorageError, match="cannot be written"):
        write(tmp_path / "s", iter(EXAMPLES), {})
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_store_and_its_remains_go_later(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from ftlab.data import store\n"
        "store._WRITE_EVERY = 10\n"
        "def examples():\n"
        "    for i in range(1000):\n"
        "        if i == 500: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield {'input_ids': [1, 2, 3], 'row': i}\n"
        "store.write(Path(sys.argv[1]) / 's', examples(), {})"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (remains,) = tmp_path.iterdir()
    assert remains.name.startswith(".s.")
    write(tmp_path / "s", iter(EXAMPLES), {})
    assert as_lists(TokenStore(tmp_path / "s"))[0]["input_ids"] == [5, 6, 7]
    assert remains.is_dir()  # it may belong to a process that is at work
    for path in (*remains.iterdir(), remains):
        os.utime(path, (0, 0))
    write(tmp_path / "t", iter(EXAMPLES), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s", "t"]


def _write_when_all_are_there(folder: Path, barrier: object) -> None:
    write(folder, _waiting(barrier), {"rows": 3})


def _waiting(barrier: object) -> Iterator[Example]:
    yield EXAMPLES[0]
    barrier.wait(60)  # type: ignore[attr-defined]  # both have begun, neither has ended
    yield from EXAMPLES[1:]


def test_two_processes_may_write_the_same_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_write_when_all_are_there, args=(tmp_path / "s", barrier)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert len(TokenStore(tmp_path / "s")) == 3


@pytest.mark.parametrize("file", ["input_ids.bin", "meta.json", "row.offsets.npy"])
def test_a_damaged_store_is_refused(tmp_path: Path, file: str) -> None:
    write(tmp_path / "s", iter(EXAMPLES), {})
    path = tmp_path / "s" / file
    path.write_bytes(path.read_bytes()[:-4])  # a whole token of 32 bits
    with pytest.raises(StorageError, match=r"cannot be read .*delete that folder"):
        TokenStore(tmp_path / "s")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLAB_CACHE", "/elsewhere")
    assert default_folder() == Path("/elsewhere")
    monkeypatch.delenv("FTLAB_CACHE")
    assert default_folder() == Path.home() / ".cache" / "ftlab"
