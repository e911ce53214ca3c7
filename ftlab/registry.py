"""Where plugins come from: installed entry points, and the modules named by `--plugin`.

An installed package lists its classes under the entry-point group `ftlab.plugins`, each named `<kind>.<ClassName>`, as
ftlab's own `pyproject.toml` does. Listing them reads metadata only; a plugin's module is imported when a run names it.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ftlab
from ftlab.errors import ConfigError, suggest
from ftlab.plugin_contract import check_class
from ftlab.plugin_modules import PluginError as PluginError
from ftlab.plugin_modules import import_given, import_installed

log = logging.getLogger(__name__)

GROUP = "ftlab.plugins"
KINDS = {
    "strategies": "ftlab.strategies.base.TuningStrategy",
    "tasks": "ftlab.tasks.base.Task",
    "data": "ftlab.data.sources.base.DataSource",
}
"""Kind → the abstract class that its plugins implement."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One class that a configuration may name.

    Args:
        kind: A key of `KINDS`.
        name: The class's name.
        class_path: Module and name of the class.
        package: The distribution that provides it, or what `--plugin` named.
        version: Of the distribution; `-` for `--plugin`.
        fault: Why no run can use it, as its package's metadata tells; empty where nothing is wrong.
    """

    kind: str
    name: str
    class_path: str
    package: str
    version: str
    fault: str = ""

    @property
    def module(self) -> str:
        """The module that defines the class."""
        return self.class_path.rpartition(".")[0]

    @property
    def built_in(self) -> bool:
        """Whether ftlab itself provides it."""
        return self.package == "ftlab" and self.version != "-"

    def __str__(self) -> str:
        return f"plugin {self.name} of {self.package} {self.version}".removesuffix(" -")


_given: dict[str, Plugin] = {}
"""Plugins from `--plugin`, by class path."""


def plugins(kind: str | None = None) -> list[Plugin]:
    """Every plugin that can be named, sorted by kind and name; nothing is imported."""
    return [p for p in (*_installed(), *_given.values()) if kind in (None, p.kind) and not p.fault]


def faulty(kind: str | None = None) -> list[Plugin]:
    """Installed plugins that cannot be used, each with its `fault`; one of an unknown kind may be meant for any."""
    return [p for p in _installed() if p.fault and (kind in (None, p.kind) or p.kind not in KINDS)]


def find(name: str, kind: str | None = None) -> Plugin:
    """The plugin called `name`, which is a class name or a full class path.

    An installed package cannot take a built-in's name; `--plugin` can make it ambiguous, because this run asked for both.

    Raises:
        ConfigError: No plugin has that name, several have it, or the one that has it cannot be used.
    """
    matches = [p for p in plugins(kind) if name in (p.name, p.class_path)]
    if any(p.built_in for p in matches) and not any(p.version == "-" for p in matches):
        _warn_of_shadows(matches)
        matches = [p for p in matches if p.built_in]
    if len(matches) == 1:
        return matches[0]
    if matches:
        owners = " and ".join(f"{p.package} {p.version}".removesuffix(" -") for p in matches)
        raise ConfigError(f"'{name}' is registered by {owners}; name one of {', '.join(p.class_path for p in matches)}.")
    for plugin in faulty(kind):
        if name in (plugin.name, plugin.class_path):
            raise PluginError(f"{plugin} cannot be used: {plugin.fault}")
    raise ConfigError(f"{kind or 'plugin'} has no {name!a}; {suggest(name, [p.name for p in plugins(kind)])}")


def load(plugin: Plugin) -> type:
    """Import a plugin's class and check that it implements its kind's contract.

    Raises:
        PluginError: The module does not import, the class is missing or incomplete.
    """
    if plugin.fault:
        raise PluginError(f"{plugin} cannot be used: {plugin.fault}")
    base = _contract(plugin.kind)
    module = import_installed(plugin.module, f"{plugin.package} {plugin.version}")
    return check_class(getattr(module, plugin.class_path.rpartition(".")[2], None), base, str(plugin))


def use(target: str) -> list[Plugin]:
    """Make the plugin classes of a module or a Python file available: what `--plugin` does.

    Args:
        target: `package.module`, or the path of a `.py` file.

    Returns:
        Its plugins; they are checked when a run names them.

    Raises:
        PluginError: The module does not import or defines no plugin class.
    """
    module = import_given(target)
    found = [
        Plugin(kind=kind, name=cls.__name__, class_path=f"{cls.__module__}.{cls.__name__}", package=target, version="-")
        for kind in KINDS
        for cls in _classes(module, _contract(kind))
    ]
    if not found:
        bases = ", ".join(path.rpartition(".")[2] for path in KINDS.values())
        raise PluginError(f"--plugin {target} defines no plugin; derive a class from one of {bases}.")
    installed = {p.class_path for p in plugins()}
    _given.update({p.class_path: p for p in found if p.class_path not in installed})
    return found


@cache
def _installed() -> tuple[Plugin, ...]:
    # An editable install can be listed twice; the set keeps one.
    found = {_from_metadata(point, point.dist) for point in metadata.entry_points(group=GROUP) if point.dist is not None}
    return tuple(sorted(found, key=lambda p: (p.kind, p.name, p.package)))


def _from_metadata(point: metadata.EntryPoint, distribution: metadata.Distribution) -> Plugin:
    kind, _, name = point.name.partition(".")
    class_path = point.value.partition("[")[0].strip().replace(":", ".")
    fault = _misnamed(kind, name, class_path) or _unmet(distribution)
    return Plugin(kind=kind, name=name, class_path=class_path, package=distribution.name, version=distribution.version, fault=fault)


def _misnamed(kind: str, name: str, class_path: str) -> str:
    if kind not in KINDS:
        return f"its entry point {kind + '.' + name!a} is of no known kind; {suggest(kind, KINDS)}"
    if not (name.isascii() and name.isidentifier()):
        return f"its entry point {kind + '.' + name!a} is no name that a class can be called by; use ASCII letters, digits and '_'."
    cls = class_path.rpartition(".")[2]
    if cls != name:
        return f"its entry point {kind}.{name} points at {class_path}; the name must be the class's own, {kind}.{cls}."
    return ""


def _unmet(distribution: metadata.Distribution) -> str:
    for requirement in map(Requirement, distribution.requires or ()):
        if canonicalize_name(requirement.name) != "ftlab" or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        if not requirement.specifier.contains(ftlab.__version__, prereleases=True):
            return f"it needs ftlab {requirement.specifier}, and this is {ftlab.__version__}; install versions that go together."
    return ""


def _warn_of_shadows(matches: list[Plugin]) -> None:
    for plugin in matches:
        if not plugin.built_in:
            log.warning("%s is ftlab's own; the one of %s %s is named %s", plugin.name, plugin.package, plugin.version, plugin.class_path)


def _contract(kind: str) -> type:
    module, _, name = KINDS[kind].rpartition(".")
    base: type = getattr(importlib.import_module(module), name)
    return base


def _classes(module: ModuleType, base: type) -> Iterator[type]:
    """The public classes under `base` that the module, or the package that it is, defines.

    An abstract class is one of them unless another builds on it: it is then incomplete, which `load` says.
    """
    classes = dict.fromkeys(c for c in vars(module).values() if isinstance(c, type) and issubclass(c, base))
    here = [c for c in classes if f"{c.__module__}.".startswith(f"{module.__name__}.")]
    for cls in here:
        built_upon = any(c is not cls and issubclass(c, cls) for c in here)
        if not cls.__name__.startswith("_") and cls is not base and not (inspect.isabstract(cls) and built_upon):
            yield cls
