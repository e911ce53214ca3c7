"""What kind of model it is, without importing all the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.models.auto.auto_factory import _LazyAutoMapping

from ftlab.adapters import is_kind_of
from ftlab.opening import open_folder
from ftlab.testing.models import tiny_model_folder


@pytest.fixture(autouse=True)
def no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("values", "keys", "items"):
        monkeypatch.delattr(_LazyAutoMapping, name)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_language_model_is_no_classifier(family: str, tmp_path: Path) -> None:
    model = open_folder(tiny_model_folder(family, tmp_path / family))
    assert is_kind_of(model, MODEL_FOR_CAUSAL_LM_MAPPING)
    assert not is_kind_of(model, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING)
    assert not is_kind_of(model.get_submodule("lm_head"), MODEL_FOR_CAUSAL_LM_MAPPING)
