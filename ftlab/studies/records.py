"""What is kept of a trial: the one table that statistics and reports are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["waiting", "running", "complete", "failed", "timeout", "invalid", "pruned"]
"""`invalid` is a trial that ended well and never logged the metric."""
Phase = Literal["tune", "seeds"]
"""`tune` looks for a variant's hyper-parameters with a seed of its own; `seeds` are the trials that are compared."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of a study.

    Args:
        key: Hash of the variant, the settings, the seed and the phase, the same however a number is spelled.
        variant: The name of what is compared, made of its factors' levels.
        levels: Factor → level, as a person reads them.
        phase: What the trial is for.
        seed: `seed_everything` of the run.
        state: How far it is or how it ended.
        value: The study's metric.
        settings: Dotted key → value, everything in which the run differs from the base; the seed is not among them.
        tuned: The part of `settings` that tuning chose.
        metrics: Everything that the run's last validation logged.
        cpu_seconds: Processor time of the run, what it shared with others left out.
        wall_seconds: Time from its start to its end.
        peak_memory: Bytes.
        trainable_params: Parameters that were trained.
        tokens: Tokens that were trained on.
        folder: The run's folder, relative to the study's.
        error: One sentence where it did not end well.
    """

    key: str
    variant: str
    levels: Mapping[str, str]
    phase: Phase
    seed: int
    state: State
    value: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    tuned: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    peak_memory: int | None = None
    trainable_params: int | None = None
    tokens: int | None = None
    folder: str = ""
    error: str = ""
