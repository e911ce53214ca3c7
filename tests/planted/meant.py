"""Which check must find which planted bug."""

from __future__ import annotations

from dataclasses import dataclass

MEANT: dict[type, str] = {}


def meant_for(check: str) -> type:
    """Decorator: the class is a frozen dataclass, and its fault is found by `check`."""

    def register(cls: type) -> type:
        made: type = dataclass(frozen=True, kw_only=True)(cls)
        MEANT[made] = check
        return made

    return register  # type: ignore[return-value]
