"""The one call that reads pretrained weights, in a form that can be compared and repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What `from_pretrained` is asked for.

    Args:
        auto_class: Name of a `transformers` auto class.
        location: Folder or hub id.
        config: With what the task has set in it.
        arguments: Further arguments.
    """

    auto_class: str
    location: str
    config: PretrainedConfig
    arguments: Mapping[str, object]


Read = tuple["PreTrainedModel", Mapping[str, Any]]
"""A model, and which keys were missing or mismatched."""


def from_files(reading: Reading) -> Read:
    """Read the weights; what no file fills is drawn from torch's generator."""
    import transformers

    auto = getattr(transformers, reading.auto_class)
    read: Read = auto.from_pretrained(
        reading.location, config=reading.config, trust_remote_code=False, output_loading_info=True, **reading.arguments
    )  # fmt: skip
    return read


reader: ContextVar[Callable[[Reading], Read]] = ContextVar("reader", default=from_files)
"""Who is asked for weights; a process that holds some already puts itself here."""
