"""The types of a constructor's arguments, as Python reads them."""

from __future__ import annotations

import inspect
import typing
from typing import Any


def constructor_hints(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Argument → type, and the names that stand in the modules of the class and its bases: a dataclass inherits fields and their words."""
    words: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        module = inspect.getmodule(base)
        words |= vars(module) if module is not None else {}
    return typing.get_type_hints(cls.__init__, globalns=words), words  # type: ignore[misc]  # only read
