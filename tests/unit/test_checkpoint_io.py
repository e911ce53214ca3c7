"""Writing whole files, the manifest, and the way back to a good checkpoint (S7, S10, X20)."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from ftlab import checkpoint_io as files
from ftlab.callbacks.checkpoints import Checkpoints, SaveOptions, _name
from ftlab.errors import CheckpointError, ConfigError, StorageError

IO_CLASS = files.VerifiedCheckpointIO


def save(folder: Path, step: int) -> Path:
    path = folder / f"step-{step:08d}.ckpt"
    IO_CLASS().save_checkpoint({"global_step": step, "epoch": 0, "value": torch.full((8,), float(step))}, path)
    return path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "new", 3)
    entry = files.Manifest.read(path.parent).files[path.name]
    assert (entry.step, entry.bytes) == (3, path.stat().st_size)
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(IO_CLASS().load_checkpoint(path)["value"], torch.full((8,), 3.0))


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    save(tmp_path, 1)
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in tmp_path.iterdir()} == {"step-00000001.ckpt": "0o600", "manifest.json": "0o600"}


@pytest.mark.parametrize("failures", [1, 3])
def test_an_io_error_now_and_then_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    left, real = [failures], os.fsync

    def fsync(descriptor: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = save(tmp_path, 1)
    assert files.problem(path) is None
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(("number", "tries"), [(errno.EIO, 4), (errno.ENOSPC, 1), (errno.EROFS, 1), (errno.EDQUOT, 1)])
def test_a_lasting_error_is_a_storage_error_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, tries: int
) -> None:
    path = save(tmp_path, 1)
    before, seen = path.read_bytes(), []

    def fsync(descriptor: int) -> None:
        seen.append(descriptor)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError, match=rf"cannot be written \({os.strerror(number)}; it needs [\d,]+ bytes, [\d,]+ are free\)"):
            save(tmp_path, 2)
    assert len(seen) == tries
    assert path.read_bytes() == before
    assert files.newest(tmp_path) == path
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "step-00000001.ckpt"]


def test_torch_does_not_hide_that_the_disk_is_full(tmp_path: Path) -> None:
    class Full:
        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def flush(self) -> None:
            self.file.flush()

    def write(file: IO[bytes]) -> None:
        torch.save({"x": torch.zeros(10)}, Full(file))  # type: ignore[arg-type]

    with pytest.raises(StorageError, match="No space left on device"):
        files.write_whole(tmp_path / "x", write)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writers_own_is_not_called_a_full_disk(tmp_path: Path) -> None:
    def write(file: IO[bytes]) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        files.write_whole(tmp_path / "x", write)
    assert list(tmp_path.iterdir()) == []


def test_file_and_folder_are_synced_before_and_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        events.append("sync " + ("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"))
        real_sync(descriptor)

    def replace(source: Any, target: Any) -> None:
        events.append(f"rename {Path(target).name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    save(tmp_path, 1)
    events.clear()
    save(tmp_path, 2)
    whole = ["sync file", "rename {}", "sync folder"]
    assert events == [e.format(n) for n in ("step-00000002.ckpt", "manifest.json") for e in whole]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda count: "guessed")
    (tmp_path / ".x.guessed.tmp").symlink_to(precious)
    with pytest.raises(StorageError, match="File exists"):
        files.write_whole(tmp_path / "x", lambda file: file.write(b"other"))
    assert precious.read_text() == "mine"


def test_a_link_under_the_final_name_is_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "step-00000001.ckpt").symlink_to(precious)
    path = save(tmp_path, 1)
    assert not path.is_symlink()
    assert precious.read_text() == "mine"


def test_temporary_names_cannot_be_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    real = os.open

    def opened(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & os.O_CREAT:
            names.append(Path(path).name)
            assert flags & os.O_EXCL
            assert flags & os.O_NOFOLLOW
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", opened)
    for _ in range(8):
        files.write_whole(tmp_path / "x", lambda file: file.write(b"y"))
    assert len(set(names)) == 8
    assert all(len(n) >= len(".x..tmp") + 16 for n in names)


def test_newest_goes_by_step_and_not_by_time(tmp_path: Path) -> None:
    for step in (2, 10, 1):
        save(tmp_path, step)
    for place, step in enumerate((10, 2, 1)):
        os.utime(tmp_path / _name(step), (place, place))
    assert files.newest(tmp_path) == tmp_path / _name(10)


def test_newest_of_an_empty_folder_is_none(tmp_path: Path) -> None:
    assert files.newest(tmp_path) is None
    assert files.newest(tmp_path / "absent") is None


def test_a_first_save_that_was_cut_off_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.Manifest.write

    def write(self: files.Manifest, folder: Path) -> None:
        if self.files:
            raise KeyboardInterrupt
        real(self, folder)

    monkeypatch.setattr(files.Manifest, "write", write)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1)
    assert (tmp_path / _name(1)).is_file()
    assert files.newest(tmp_path) is None


def test_clean_removes_what_is_half_written_and_nothing_else(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (tmp_path / "last.ckpt").symlink_to(path.name)
    for name in (".step-00000002.ckpt.0123456789abcdef.tmp", ".manifest.json.0123456789abcdef.tmp", _name(2)):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    files.clean(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "manifest.json", "notes.txt", _name(1)]


def test_the_manifest_forgets_a_file_before_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    callback = Checkpoints(tmp_path, SaveOptions(keep=1))
    at_delete: list[list[str]] = []
    real = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.name.startswith("step-"):
            at_delete.append(sorted(files.Manifest.read(tmp_path).files))
            assert files.newest(tmp_path) == tmp_path / _name(3)
        real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    callback._prune()
    assert at_delete == [[_name(3)], [_name(3)]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", _name(3)]


def test_the_best_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    manifest = files.Manifest.read(tmp_path)
    manifest.best = _name(1)
    manifest.write(tmp_path)
    Checkpoints(tmp_path, SaveOptions(keep=2))._prune()
    assert sorted(files.Manifest.read(tmp_path).files) == [_name(1), _name(3), _name(4)]


def test_a_file_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    save(tmp_path, 1).unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used: step-00000001\.ckpt is gone"):
        files.newest(tmp_path)


@pytest.mark.parametrize("key", ["every_n_steps", "every_minutes", "keep"])
@pytest.mark.parametrize("value", [0, -1])
def test_options_are_above_zero(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"save\.{key} is {value}; it must be above 0"):
        SaveOptions(**{key: value})  # type: ignore[arg-type]
