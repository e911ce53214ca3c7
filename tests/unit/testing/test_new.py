"""`ftlab new`: names, places and texts; that the packages pass their tests is shown in tests/plugin."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from ftlab.main import main


@pytest.mark.parametrize(
    ("kind", "name", "module", "point"),
    [
        ("strategy", "MyMethod", "my_method", "strategies.MyMethod"),
        ("task", "NERTask", "ner_task", "tasks.NERTask"),
        ("source", "Parquet2Rows", "parquet2_rows", "data.Parquet2Rows"),
    ],
)
def test_a_package(kind: str, name: str, module: str, point: str, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    assert main(["new", kind, name, "--to", str(folder)]) == 0
    assert {p.name for p in folder.iterdir()} == {"pyproject.toml", "README.md", f"{module}.py", f"test_{module}.py"}
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["ftlab.plugins"] == {point: f"{module}:{name}"}
    classes = [n.name for n in ast.parse((folder / f"{module}.py").read_text()).body if isinstance(n, ast.ClassDef)]
    assert classes == [name]
    assert "$" not in "".join(p.read_text() for p in folder.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["strategy", "myMethod"], "begin with a capital"),
        (["strategy", "My-Method"], "begin with a capital"),
        (["strategy", "LoRA"], "`ftlab list strategies` has already"),
        (["source", "Json"], "its module json would hide one that is installed"),
        (["method", "MyMethod"], "invalid choice"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", *words, "--to", str(tmp_path / "made")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["new", "task", "MyTask", "--to", str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
