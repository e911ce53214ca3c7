"""What tests of sources share: files to read, and what reading them comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlab.data.sources.base import DataSource
from ftlab.errors import DataError


def write(name: str, content: str | bytes) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def rows(source: DataSource, split: str = "train") -> list[dict[str, object]]:
    return [dict(row) for row in source.rows(split)]


def sentence(source: DataSource, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        rows(source, split)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value)
