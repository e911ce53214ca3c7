"""Signals set a flag; ranks look at it together, once per optimiser step."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

from ftlab.errors import FtlabError

WATCHED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
_IMPATIENT = {signal.SIGINT: 2, signal.SIGTERM: 3}
"""How many of one signal, the last ones within `_WITHIN` seconds, end the process at once."""
_WITHIN = 5.0


class StoppedError(FtlabError):
    """The run ended by a signal, with a checkpoint of its last step.

    Args:
        number: The signal.
        step: Optimiser steps done.
        folder: The run's folder.
    """

    on_all_ranks = True

    def __init__(self, number: int, step: int, folder: str) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} after step {step}, a checkpoint is saved; continue with `ftlab fit --resume {folder}`.")
        self.exit_code = 128 + (signal.SIGTERM if number == getattr(signal, "SIGUSR1", None) else number)


class SignalFlag:
    """Remembers the first signal that came; installed for the time of a fit."""

    def __init__(self) -> None:
        self.number = 0
        self._times: dict[int, list[float]] = {}
        self._before: dict[int, object] = {}

    def install(self) -> None:
        """Take over the watched signals; only the main thread may."""
        for number in WATCHED:
            self._before[number] = signal.signal(number, self._note)

    def remove(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        now = time.monotonic()
        recent = [t for t in self._times.get(number, []) if now - t < _WITHIN] + [now]
        self._times[number] = recent
        if len(recent) >= _IMPATIENT.get(signal.Signals(number), 10):
            os._exit(128 + number)  # the user will not wait; the last checkpoint is whole
