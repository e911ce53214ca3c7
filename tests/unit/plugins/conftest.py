"""Packages and files as strangers write them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftlab import registry
from tests.unit.plugins.strangers import Install, WriteFile


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts packages on the path as pip would: modules, and metadata with entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(registry, "_given", {})
    before = set(sys.modules)

    def write(points: dict[str, str], modules: dict[str, str], package: str = "stranger", requires: str = "") -> None:
        for name, code in modules.items():
            (site / f"{name}.py").write_text(textwrap.dedent(code))
        info = site / f"{package}-3.4.dist-info"
        info.mkdir()
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 3.4\n{needs}")
        (info / "entry_points.txt").write_text("[ftlab.plugins]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))
        registry._installed.cache_clear()

    yield write
    registry._installed.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def file(install: Install, tmp_path: Path) -> WriteFile:
    """Writes a file for `--plugin`."""

    def write(name: str, code: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(code))
        return str(path)

    return write
