"""Signals set a flag; ranks look at it together, once per optimiser step. Before the first step they end the process at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


class StoppedEarly(BaseException):  # no error, and like KeyboardInterrupt nothing that retries may catch it
    """A signal came while there was nothing to save: the model is loaded, rows are encoded, the untuned model is scored.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} outside of training")
        self.exit_code = 128 + number


_AT_ONCE = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a process which Python would not let clean up; an interrupt has its `KeyboardInterrupt`."""


def leave_at_once() -> None:
    """From here on a signal raises `StoppedEarly`, so that what is half-written is removed; one that is ignored stays ignored."""
    for number in _AT_ONCE:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    raise StoppedEarly(number)


@contextmanager
def leaving() -> Iterator[None]:
    """`leave_at_once` for the length of the block; nothing in a thread, where Python has no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _AT_ONCE}
    leave_at_once()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was set by something that is not Python


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
