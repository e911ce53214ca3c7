"""A model that sees later tokens cannot do causal language modelling, whatever class loads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ftlab.backbone import Backbone
from ftlab.errors import ConfigError
from ftlab.strategies.full import Full
from ftlab.testing.models import DECODERS, tiny_model_folder
from tests.unit.backbones import LANGUAGE, configured


@pytest.mark.parametrize("family", ["bert", "electra", "roberta"])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_encoder_is_refused(family: str, fresh: bool, dtype: str, tmp_path: Path) -> None:
    backbone = Backbone(name=str(tiny_model_folder(family, tmp_path)), fresh=fresh, dtype=dtype)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        configured(backbone, LANGUAGE, Full())
    assert str(caught.value) == (
        f"model.backbone.name is {tmp_path}, a {family} model that sees later tokens; "
        "CausalLM needs a decoder, so name one or choose a task for encoders."
    )


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decoder_passes_and_nothing_is_left_behind(family: str, dtype: str, tmp_path: Path) -> None:
    model, _ = Backbone(name=str(tiny_model_folder(family, tmp_path)), dtype=dtype).load_model(LANGUAGE.auto_class, {}, {})  # type: ignore[arg-type]
    body = next(model.children())
    body.eval()
    modes = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    LANGUAGE.check(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
