"""Secrets are taken out of whatever is written down."""

from __future__ import annotations

import re
from typing import Any

_SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|wandb_v1_\w{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b")
_SECRET_KEY = re.compile(r"(^|[._-])(api_?key|token|password|secret)$", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"\b[0-9a-f]{40}\b")
"""A W&B key of the old kind."""
_HIDDEN = "<removed>"


def redacted(value: Any, key: str = "") -> Any:
    """A copy of plain values with what looks like a token, and whatever stands under a key such as `api_key`, removed."""
    if isinstance(value, dict):
        return {k: redacted(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [redacted(v) for v in value]
    if isinstance(value, str):
        return _HIDDEN if value and _SECRET_KEY.search(key) and key != "pad_token" else _SECRET.sub(_HIDDEN, value)
    return value


def secret_in(value: Any, key: str) -> str | None:
    """The dotted key below which a value looks like a token or password, or None.

    Args:
        value: Plain values as a configuration holds them.
        key: Where they stand.
    """
    if isinstance(value, dict):
        return next((found for k, v in value.items() if (found := secret_in(v, f"{key}.{k}"))), None)
    if isinstance(value, list):
        return next((found for v in value if (found := secret_in(v, key))), None)
    if not isinstance(value, str) or not value:
        return None
    named = bool(_SECRET_KEY.search(key)) and not key.startswith("data.") and key.rpartition(".")[2] != "pad_token"
    # A commit is 40 hexadecimal digits too, and stands under `revision`.
    hexadecimal = _HEXADECIMAL.search(value) is not None and key.rpartition(".")[2] != "revision"
    return key if named or hexadecimal or _SECRET.search(value) else None
