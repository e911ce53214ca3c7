"""Configured objects as plain types, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ftlab import registry
from ftlab.errors import CheckpointError


def spec_of(value: Any) -> Any:
    """A dataclass as plain types: `{class_path, init_args}`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        arguments = {f.name: spec_of(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}
    if isinstance(value, list | tuple):
        return [spec_of(v) for v in value]
    if isinstance(value, dict):
        return {k: spec_of(v) for k, v in value.items()}
    return value


def built_from(spec: object, kind: str) -> Any:
    """The plugin that `spec_of` was given: only what is installed, or named by `--plugin`, is imported.

    Args:
        spec: Plain types, as `spec_of` makes them.
        kind: What it is, a key of `registry.KINDS`; also of plugins inside its arguments.

    Raises:
        CheckpointError: It names no arguments, or the class refuses them.
        ConfigError: No such plugin is installed.
    """
    if isinstance(spec, list):
        return [built_from(each, kind) for each in spec]
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        return spec
    found = registry.load(registry.find(str(spec["class_path"]), kind))
    try:
        return found(**{name: built_from(value, kind) for name, value in dict(spec["init_args"]).items()})
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{spec['class_path']} refuses its stored arguments ({error}); export the run again.") from error
