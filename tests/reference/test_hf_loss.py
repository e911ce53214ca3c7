"""The language-model loss beside the one that transformers computes itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ftlab.backbone import Backbone
from ftlab.strategies.full import Full
from ftlab.tasks import cross_entropy
from ftlab.testing.models import DECODERS, tiny_model_folder
from tests.unit.backbones import LANGUAGE, batch_of, configured, gradients

SAME_LENGTH = ("twelve bytes", "TWELVE BYTES", "a dozen more")


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("rows", [128, 5])
def test_loss_and_gradients_are_those_of_transformers(family: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without padding, the mean over the scored positions is the loss that a HF model returns when it is given labels."""
    monkeypatch.setattr(cross_entropy, "chunk_rows", lambda vocabulary: rows)
    module = configured(Backbone(name=str(tiny_model_folder(family, tmp_path))), LANGUAGE, Full())
    module.adapted.eval()
    batch = batch_of(module, SAME_LENGTH)
    assert batch.inputs.keys() == {"input_ids"}  # nothing is padded
    outputs = module.task.forward(module.adapted, batch)
    ours = gradients(module, batch)
    module.adapted.zero_grad()
    theirs = module.adapted(**batch.inputs, labels=batch.inputs["input_ids"]).loss
    theirs.backward()
    count = float(outputs.counts["lm"])
    assert count == 3 * 12
    assert outputs.sums["lm"].item() / count == pytest.approx(theirs.item(), rel=1e-6)
    for name, parameter in module.adapted.named_parameters():
        assert parameter.grad is not None
        found = ours[name]
        assert found is not None
        torch.testing.assert_close(found / count, parameter.grad, rtol=1e-4, atol=1e-6)
