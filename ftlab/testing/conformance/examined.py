"""What every suite knows of the plugin that it measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from ftlab.testing.conformance.check import OF_KIND, Check


@dataclass(frozen=True, kw_only=True)
class Examined(ABC):
    """A plugin under test.

    Args:
        root: A folder for models and other files.
        fails: Name of a check → why it cannot pass, beside what the class itself says.
    """

    kind: ClassVar[str]
    """Its kind in the registry."""

    root: Path
    fails: Mapping[str, str] = field(default_factory=dict)

    @property
    @abstractmethod
    def plugin(self) -> Any:
        """The instance that is measured."""

    @property
    @abstractmethod
    def admitted(self) -> Mapping[str, str]:
        """What the class itself says of checks that it cannot pass."""

    @property
    def declared(self) -> Mapping[str, str]:
        """Check → why it cannot pass, as the class and the author of the test say."""
        return {**self.admitted, **self.fails}

    @property
    def checks(self) -> Mapping[str, Check]:
        """The checks of its kind."""
        return OF_KIND[self.kind]

    def measured_on(self) -> str:
        """The family of tiny models that it is measured on; empty where it needs none."""
        return ""

    def sent(self) -> Self:
        """What another process needs to know of it."""
        return self
