"""What Lightning measures hooks with where a configuration names no profiler."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.profilers import PassThroughProfiler

_NOTHING: AbstractContextManager[None] = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Measures nothing; Lightning's own does so as well, and takes a microsecond at each of the hundred places of a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
        return _NOTHING
