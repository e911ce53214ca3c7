"""What a run has left: the metric on its way, its last validation, its summary, and why it did not end well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftlab.redact import redacted

_BESIDE = ("step", "time", "epoch")
"""Keys of a line that are no figures."""
_SUMMARY = {"trainable_params": "trainable_params", "tokens": "tokens", "peak_memory": "peak_memory_bytes"}
_TAIL = 20
"""Lines of the log that are kept of a run that failed."""
SILENT = "it said nothing of it"
"""Where a log holds no sentence."""
_LONGEST = 300
"""Characters of a sentence."""


@dataclass
class Metrics:
    """A run's `metrics.jsonl`, read as it grows; a run that goes on from a checkpoint cuts it back first.

    Args:
        path: The file.
    """

    path: Path
    _place: int = 0
    _file: tuple[int, int] = (0, 0)
    _rest: bytes = field(default=b"", repr=False)

    def new(self) -> list[dict[str, Any]]:
        """The whole lines that were not there before; all of them where the file has been written anew."""
        try:
            with self.path.open("rb") as file:
                status = self.path.stat()
                if (status.st_dev, status.st_ino) != self._file or status.st_size < self._place:
                    self._place, self._rest, self._file = 0, b"", (status.st_dev, status.st_ino)
                file.seek(self._place)
                text = file.read()
        except OSError:  # not there yet
            return []
        self._place += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        return _records(lines)


def _records(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        with suppress(ValueError):  # cut by a kill
            record = json.loads(line)
            if isinstance(record, dict):
                found.append(record)
    return found


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a run that ended well has logged.

    Args:
        value: The metric's last value; None where it was never logged or is not finite.
        logged: Names of everything that was logged.
        metrics: What the last validation logged.
        figures: Trained parameters, tokens, peak memory.
    """

    value: float | None
    logged: tuple[str, ...]
    metrics: Mapping[str, float]
    figures: Mapping[str, int]


def found(run: Path, metric: str) -> Found:
    """Read a finished run's folder.

    Args:
        run: The folder.
        metric: The study's metric.
    """
    records = Metrics(run / "metrics.jsonl").new()
    summary: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # absent where the run did not get so far
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    validation: dict[str, Any] = next((r for r in reversed(records) if any(k.startswith("val_") for k in r)), {})
    last = next((r[metric] for r in reversed(records) if metric in r), summary.get(metric))
    names = {k for r in (*records, {k: 0 for k in summary if k == metric}) for k in r if k not in _BESIDE}
    return Found(
        value=float(last) if isinstance(last, int | float) else None, logged=tuple(sorted(names)),
        metrics={k: float(v) for k, v in validation.items() if k not in _BESIDE and isinstance(v, int | float)},
        figures={k: int(summary[name]) for k, name in _SUMMARY.items() if isinstance(summary.get(name), int | float)},
    )  # fmt: skip


def said(log: Path, start: int) -> tuple[str, list[str]]:
    """The sentence that a run ended with, and the last lines of its log, without secrets and what would steer a terminal.

    The sentence is ftlab's own, else the error below the last traceback; no other line of a log says why a run ended.

    Args:
        log: What it printed, behind what attempts before it did.
        start: Bytes of those.
    """
    try:
        text = log.read_bytes()[start:].decode(errors="replace")
    except OSError:
        text = ""
    lines = [_printable(line) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ftlab: ")] or _raised(lines) or [SILENT]
    sentence = errors[-1].removeprefix("ftlab: ").removeprefix("error: ")
    return str(redacted(sentence))[:_LONGEST], [str(redacted(line)) for line in lines[-_TAIL:]]


def _raised(lines: Sequence[str]) -> list[str]:
    """What the last traceback ends with: the first line behind it that is not indented; nothing where there is none or it is cut."""
    begun = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    return [line for line in lines[begun[-1] + 1 :] if not line.startswith(" ")][:1] if begun else []


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text.rstrip())
