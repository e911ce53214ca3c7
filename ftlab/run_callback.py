"""What the callbacks of every run have in common."""

from __future__ import annotations

from lightning.pytorch import Callback


class RunCallback(Callback):
    """A callback that has those of a step's hooks alone which its class defines.

    Lightning calls every hook of every callback; in a short step, calls to nothing are a noticeable part.
    """


_STEP = ("train_batch_start", "train_batch_end", "before_zero_grad", "before_backward", "after_backward", "before_optimizer_step")
for _hook in _STEP:
    setattr(RunCallback, f"on_{_hook}", None)  # Lightning leaves out what cannot be called
