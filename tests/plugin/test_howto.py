"""Every code block of the how-to pages that has a title is a file, and every command line in them works."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "howto"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"ftlab": [sys.executable, "-P", "-m", "ftlab"], "python": [sys.executable]}


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(language, title, text) of each block."""
    found = BLOCK.findall((PAGES / page).read_text(encoding="utf-8"))
    assert found
    return found


@pytest.mark.parametrize("page", ["strategy.md", "task.md", "source.md"])
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    for _, title, text in blocks(page):
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
    consoles = [text for language, _, text in blocks(page) if language == "console"]
    commands = [line.removeprefix("$ ") for text in consoles for line in text.splitlines()]
    assert any(c.startswith("ftlab fit --plugin") for c in commands)
    assert any(c.startswith("python -m pytest") for c in commands)
    for command in commands:
        program, *arguments = shlex.split(command)
        done = subprocess.run(
            [*PROGRAMS[program], *arguments], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert list(tmp_path.glob("runs/*/*/summary.json"))
    if page == "task.md":
        assert len((tmp_path / "runs" / "reward" / "predicted" / "predictions.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("page", ["strategy.md", "task.md", "source.md"])
def test_a_pages_entry_point_leads_to_its_class(page: str) -> None:
    files = {title: text for _, title, text in blocks(page) if title}
    points = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]["ftlab.plugins"]
    for name, target in points.items():
        module, _, cls = target.partition(":")
        classes = [node.name for node in ast.parse(files[f"{module}.py"]).body if isinstance(node, ast.ClassDef)]
        assert cls in classes
        assert name.endswith(f".{cls}")
