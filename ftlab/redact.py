"""Secrets are taken out of whatever is written down."""

from __future__ import annotations

import re
from typing import Any

_SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|wandb_v1_\w{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b")
_SECRET_KEY = re.compile(r"(^|[._-])(api_?key|token|password|secret)$", re.IGNORECASE)
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
