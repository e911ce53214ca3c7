"""The stamp, the owned tensors and the fingerprints of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ftlab.checkpoint import STAMP, differences, keep_owned, spec_of, stamp, verify
from ftlab.checkpoint_io import MANIFEST
from ftlab.errors import CheckpointError
from ftlab.fingerprints import base_fingerprint, check, rows_fingerprint
from ftlab.folders import file_hash
from ftlab.strategies.lora import LoRA


def vouched(path: Path, content: object) -> None:
    """Put another content under a checkpoint's name, and make the manifest right for it."""
    torch.save(content, path)
    manifest = json.loads((path.parent / MANIFEST).read_text())
    manifest["files"][path.name] |= {"sha256": file_hash(path), "bytes": path.stat().st_size}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))


OWNED = {"model.a": torch.ones(2, 2), "model.mask": torch.tensor([0.0, -torch.inf])}
SPEC: dict[str, object] = {"model.tuning": spec_of(LoRA(r=2))}


def good() -> dict[str, Any]:
    rest: dict[str, Any] = {"fingerprints": {}, "rng": [], "base_figures": {}, "settings": {}}
    return {"state_dict": {n: t.clone() for n, t in OWNED.items()}, STAMP: {**stamp(SPEC, OWNED), **rest}}


def test_a_checkpoint_of_this_model_passes() -> None:
    verify(good(), SPEC, OWNED)  # with a mask whose infinities are the model's own


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    content = good()
    content["state_dict"]["model.a"][1, 1] = value
    with pytest.raises(CheckpointError, match=r"'model\.a' holds numbers that are not finite"):
        verify(content, SPEC, OWNED)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.ones(2, 3), r"torch\.float32 \(2, 3\), the model's torch\.float32 \(2, 2\)"),
        (torch.ones(2, 2, dtype=torch.float64), r"torch\.float64 \(2, 2\), the model's torch\.float32"),
        ([1.0], "is list, the model's"),
    ],
)
def test_another_shape_type_or_thing_is_refused(tensor: Tensor | list[float], said: str) -> None:
    content = good()
    content["state_dict"]["model.a"] = tensor
    with pytest.raises(CheckpointError, match=said):
        verify(content, SPEC, OWNED)


def test_missing_and_unknown_tensors_are_named() -> None:
    content = good()
    content["state_dict"]["model.aa"] = content["state_dict"].pop("model.a")
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'model\.a'; it holds model\.aa"):
        verify(content, SPEC, OWNED)
    content["state_dict"]["model.a"] = content["state_dict"]["model.aa"]
    with pytest.raises(CheckpointError, match=r"holds the tensor 'model\.aa', which this model does not own"):
        verify(content, SPEC, OWNED)


@pytest.mark.parametrize("key", ["spec", "fingerprints", "rng", "base_figures", "packages", "settings"])
def test_a_stamp_with_a_hole_is_refused(key: str) -> None:
    content = good()
    del content[STAMP][key]
    with pytest.raises(CheckpointError, match=f"holds no {key}"):
        verify(content, SPEC, OWNED)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"state_dict": {}, STAMP: 3}, {"state_dict": [], STAMP: {}}])
def test_what_ftlab_did_not_write_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="was not written by ftlab"):
        verify(content, SPEC, OWNED)


def test_the_first_difference_of_two_specs_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"has model\.tuning\.r 2, the configuration 4"):
        verify(good(), {"model.tuning": spec_of(LoRA(r=4))}, OWNED)
    assert list(differences(spec_of(LoRA()), spec_of(LoRA()))) == []


def test_a_strategy_that_owns_what_is_not_there_is_told() -> None:
    with pytest.raises(CheckpointError, match="has no tensor 'b'"):
        keep_owned({"a": torch.ones(1)}, frozenset({"a", "b"}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_any_number_changes_the_fingerprint_of_the_base(dtype: torch.dtype) -> None:
    state = {"a": torch.zeros(5000, 3).to(dtype), "b": torch.ones(3).to(dtype)}
    before = base_fingerprint(state, ())
    assert base_fingerprint({n: t.clone() for n, t in reversed(state.items())}, ()) == before
    for place in (0, 1, 7777, 14998, 14999):
        other = {n: t.clone() for n, t in state.items()}
        other["a"].view(-1)[place] = 1
        assert base_fingerprint(other, ()) != before
        assert base_fingerprint(other, {"a"}) == base_fingerprint(state, {"a"})


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.zeros(3, 2)}, {"a": torch.zeros(2, 3, dtype=torch.float64)}, {"c": torch.zeros(1)},
        {"a": torch.tensor([[0.0, 0, 0], [0, 0, 0]]), "b": torch.arange(6.0).flip(0)},
    ],
)  # fmt: skip
def test_names_shapes_types_and_places_count(change: dict[str, Tensor]) -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.arange(6.0)}
    assert base_fingerprint({**state, **change}, ()) != base_fingerprint(state, ())


def test_a_tensor_that_begins_inside_a_word_has_a_fingerprint() -> None:
    part = torch.arange(9.0)[1:]
    assert base_fingerprint({"a": part}, ()) == base_fingerprint({"a": part.clone()}, ())


def test_rows_are_the_source_and_the_part_of_it() -> None:
    prints = {rows_fingerprint(source, {"last": last}) for source in ("x", "y") for last in (0.9, 1.0)}
    assert len(prints) == 4


def test_the_fingerprint_that_differs_is_named_with_both_values() -> None:
    check({"base": "a" * 64, "data": "b" * 64}, {"base": "a" * 64})
    with pytest.raises(CheckpointError, match=r"rests on the data bbbbbbbbbbbb, this run has cccccccccccc; give data the rows"):
        check({"base": "a" * 64, "data": "b" * 64}, {"base": "a" * 64, "data": "c" * 64})
    with pytest.raises(CheckpointError, match="rests on the base None"):
        check({}, {"base": "a" * 64})
