"""What makes a step lean changes nothing but the time it takes."""

from __future__ import annotations

import inspect

from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from ftlab import FinetuneModule


def test_the_signature_of_a_step_is_put_together_once() -> None:
    step = FinetuneModule.training_step
    assert inspect.signature(step) is inspect.signature(step)
    assert list(inspect.signature(step).parameters) == ["self", "batch", "batch_idx"]
    assert is_param_in_hook_signature(step, "batch_idx", min_args=2)
