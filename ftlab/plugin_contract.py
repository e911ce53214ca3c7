"""What is asked of a plugin class before a run uses it: the methods, class attributes and constructor of its contract."""

from __future__ import annotations

import dataclasses
import inspect
import typing

from ftlab.plugin_modules import PluginError


def check_class(found: object, base: type, who: str) -> type:
    """Refuse what does not keep the contract of its kind.

    Args:
        found: What the module has under the plugin's name.
        base: The abstract class of the kind.
        who: The plugin and its package, for the error message.

    Returns:
        The class.

    Raises:
        PluginError: It is no such class, lacks something, or its constructor is not its configuration.
    """
    if not (isinstance(found, type) and issubclass(found, base)):
        raise PluginError(f"{who} is {_kind_of(found)}; it must be a class that derives from {base.__module__}.{base.__name__}.")
    lacking = sorted(_lacking(found, base))
    if lacking:
        raise PluginError(f"{who} lacks {', '.join(lacking)}, which every {base.__name__} must define.")
    for name, expected in inspect.getmembers_static(base, inspect.isfunction):
        if not name.startswith("__"):
            _check_method(found, name, expected, who)
    _check_constructor(found, who)
    return found


def _kind_of(found: object) -> str:
    if found is None:
        return "nothing that its module defines"
    return f"the class {found.__qualname__}" if isinstance(found, type) else f"of type {type(found).__name__}"


def _lacking(found: type, base: type) -> frozenset[str]:
    """Abstract methods, and class attributes that the contract annotates without giving them a value."""
    fields = {f.name for f in dataclasses.fields(base)}
    attributes = set(vars(base).get("__annotations__", {})) - fields
    methods: frozenset[str] = getattr(found, "__abstractmethods__", frozenset())
    return methods | {name for name in attributes if not hasattr(found, name)}


def _check_method(found: type, name: str, expected: object, who: str) -> None:
    own = inspect.getattr_static(found, name)
    if own is expected:
        return
    wanted = inspect.signature(typing.cast(typing.Any, expected))
    form = f"{name}({', '.join(wanted.parameters)})"
    if not inspect.isfunction(own):
        raise PluginError(f"{who} has a {name} that is not a plain method; define {form}.")
    names = list(wanted.parameters)
    signature = inspect.signature(own)
    try:
        signature.bind(*names)
        signature.bind(names[0], **dict.fromkeys(names[1:]))
    except TypeError as error:
        raise PluginError(f"{who} defines {name}({', '.join(signature.parameters)}); its contract calls {form}.") from error


def _check_constructor(found: type, who: str) -> None:
    parameters = vars(found).get("__dataclass_params__")
    fields = [f.name for f in dataclasses.fields(found) if f.init]
    given = inspect.signature(found).parameters
    keyword_only = all(p.kind is p.KEYWORD_ONLY for p in given.values())
    if parameters is None or not parameters.frozen or list(given) != fields or not keyword_only:
        wanted = "@dataclass(frozen=True, kw_only=True) above the class and no __init__ in it"
        raise PluginError(f"{who} is not a frozen, keyword-only dataclass, so its constructor is no configuration; write {wanted}.")
    try:
        typing.get_type_hints(found)
    except Exception as error:  # annotations are the plugin's own expressions
        raise PluginError(f"{who} has a field whose type cannot be read ({error}); import the type at the top of its module.") from error
