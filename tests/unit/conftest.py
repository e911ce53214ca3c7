"""What several of these folders need."""

from __future__ import annotations

import pytest

from tests.unit.backbones import Models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))
