"""Every code block of the how-to pages that has a title is a file, and every command line in them works."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "howto"
PAGES = ("strategy.md", "task.md", "source.md")
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(language, title, text) of each block."""
    found = BLOCK.findall((FOLDER / page).read_text(encoding="utf-8"))
    assert found
    return found


def write_files(page: str, folder: Path) -> None:
    for _, title, text in blocks(page):
        if title:
            (folder / title).write_text(text, encoding="utf-8")


def commands(page: str, program: str) -> list[list[str]]:
    """The arguments of every call of a program."""
    lines = [line.removeprefix("$ ") for language, _, text in blocks(page) if language == "console" for line in text.splitlines()]
    return [words[1:] for line in lines if (words := shlex.split(line))[0] == program]


def succeeds(words: list[str], folder: Path) -> None:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", [PAGES[0], *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES[1:])])
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    found = commands(page, "ftlab")
    assert found[0][:2] == ["fit", "--plugin"]
    for arguments in found:
        succeeds(["-P", "-m", "ftlab", *arguments], tmp_path)
    assert list(tmp_path.glob("runs/*/*/summary.json"))
    if page == "task.md":
        assert len((tmp_path / "runs" / "reward" / "predicted" / "predictions.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow
def test_the_tests_of_the_pages_pass(tmp_path: Path) -> None:
    files = []
    for page in PAGES:
        write_files(page, tmp_path)
        (arguments,) = commands(page, "python")
        assert arguments[:2] == ["-m", "pytest"]
        files += arguments[2:]
    (tmp_path / "pyproject.toml").unlink()  # the pages' last one, which only names an entry point
    succeeds(["-m", "pytest", "-p", "no:cacheprovider", *files], tmp_path)


@pytest.mark.slow
def test_the_program_of_the_python_page_runs(tmp_path: Path) -> None:
    write_files("python.md", tmp_path)
    (arguments,) = commands("python.md", "python")
    succeeds(arguments, tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_entry_point_leads_to_its_class(page: str) -> None:
    files = {title: text for _, title, text in blocks(page) if title}
    points = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]["ftlab.plugins"]
    for name, target in points.items():
        module, _, cls = target.partition(":")
        classes = [node.name for node in ast.parse(files[f"{module}.py"]).body if isinstance(node, ast.ClassDef)]
        assert cls in classes
        assert name.endswith(f".{cls}")
