"""The context that a backbone states is exactly as many tokens as its position table has room for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ftlab.backbone import Backbone
from ftlab.testing.models import CONTEXT, FAMILIES, tiny_model_folder

TABLE = ("bert", "distilbert", "electra", "gpt2", "opt", "roberta")
"""Families with a table of positions; the others compute them."""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_input_fits_and_the_next_longer_does_not(family: str, tmp_path: Path) -> None:
    backbone = Backbone(name=str(tiny_model_folder(family, tmp_path)))
    longest = backbone.context(backbone.load_config())
    assert longest == CONTEXT
    model, _ = backbone.load_model("AutoModelForSequenceClassification", {"num_labels": 2}, {})
    model.config.pad_token_id = 1
    for length in (longest, longest + 1):
        ids = torch.full((1, length), 7)
        if length == longest or family not in TABLE:
            model(input_ids=ids)
        else:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=ids)


def test_a_configuration_without_a_limit() -> None:
    from transformers import AutoConfig

    assert Backbone(name="any").context(AutoConfig.for_model("bloom")) is None


@pytest.mark.parametrize("family", ["camembert", "esm", "longformer", "luke", "markuplm", "mpnet", "xlm-roberta", "data2vec-text"])
def test_families_that_count_positions_after_the_padding_token(family: str) -> None:
    from transformers import AutoConfig, AutoModel

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
    config = AutoConfig.for_model(family, **shape, max_position_embeddings=40, pad_token_id=1)
    longest = Backbone(name="any").context(config)
    assert longest is not None
    model = AutoModel.from_config(config).eval()
    for length, fits in ((longest, True), (longest + 1, False)):
        ids = torch.full((1, length), 7)
        if fits:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        else:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
