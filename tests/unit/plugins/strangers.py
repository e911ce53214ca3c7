"""Source text of plugins, and the sentence with which one is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ftlab import registry
from ftlab.registry import PluginError

HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from ftlab import TuningStrategy
"""
SOUND = """
@dataclass(frozen=True, kw_only=True)
class {name}(TuningStrategy):
    def apply(self, model, heads):
        return model
"""
Install = Callable[..., None]
WriteFile = Callable[[str, str], str]


def refused(name: str) -> str:
    """The sentence with which a strategy is refused."""
    with pytest.raises(PluginError) as caught:
        registry.load(registry.find(name, "strategies"))
    assert caught.value.exit_code == 2
    return str(caught.value)
