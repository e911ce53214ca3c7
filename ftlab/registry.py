"""Where plugins come from: installed entry points, and the modules named by `--plugin`.

An installed package lists its classes under the entry-point group `ftlab.plugins`, each named `<kind>.<ClassName>`, as
ftlab's own `pyproject.toml` does. Listing them reads metadata only; a plugin's module is imported when a run names it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from ftlab.errors import ConfigError, suggest

GROUP = "ftlab.plugins"
KINDS = {
    "strategies": "ftlab.strategies.base.TuningStrategy",
    "tasks": "ftlab.tasks.base.Task",
    "data": "ftlab.data.sources.base.DataSource",
}
"""Kind → the abstract class that its plugins implement."""


class PluginError(ConfigError):
    """A plugin that could not be imported or does not keep its contract.

    Args:
        message: The sentence.
        details: The plugin's own traceback, shown below the sentence.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """One class that a configuration may name."""

    kind: str
    name: str
    class_path: str
    package: str
    version: str

    @property
    def module(self) -> str:
        """The module that defines the class."""
        return self.class_path.rpartition(".")[0]


_named: dict[str, Plugin] = {}
"""Plugins from `--plugin`, by name."""


@cache
def _installed() -> tuple[Plugin, ...]:
    found = []
    for point in metadata.entry_points(group=GROUP):
        kind, _, name = point.name.partition(".")
        package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        class_path = point.value.replace(":", ".")
        found.append(Plugin(kind=kind, name=name, class_path=class_path, package=package, version=version))
    # An editable install can be listed twice; the set keeps one.
    return tuple(sorted(set(found), key=lambda p: (p.kind, p.name, p.package)))


def plugins(kind: str | None = None) -> list[Plugin]:
    """Every plugin that can be named, sorted by kind and name; nothing is imported."""
    return [p for p in (*_installed(), *_named.values()) if kind in (None, p.kind)]


def find(name: str, kind: str | None = None) -> Plugin:
    """The plugin called `name`, which is a class name or a full class path.

    Raises:
        ConfigError: No plugin has that name, or plugins of two packages have it. Built-ins cannot be shadowed.
    """
    matches = [p for p in plugins(kind) if name in (p.name, p.class_path)]
    own = [p for p in matches if p.package == "ftlab"]
    if own:
        return own[0]
    if not matches:
        what = kind or "plugin"
        raise ConfigError(f"{what} has no '{name}'; {suggest(name, [p.name for p in plugins(kind)])}")
    if len(matches) > 1:
        owners = " and ".join(f"{p.package} {p.version}" for p in matches)
        raise ConfigError(f"'{name}' is registered by {owners}; name one of {', '.join(p.class_path for p in matches)}.")
    return matches[0]


def load(plugin: Plugin) -> type:
    """Import a plugin's class and check that it implements its kind's contract.

    Raises:
        PluginError: The module does not import, the class is missing or incomplete.
    """
    module = _import(plugin.module, f"{plugin.package} {plugin.version}")
    found = getattr(module, plugin.class_path.rpartition(".")[2], None)
    base = _contract(plugin.kind)
    where = f"plugin {plugin.name} of {plugin.package} {plugin.version}"
    if not (isinstance(found, type) and issubclass(found, base)):
        raise PluginError(f"{where} is not a {base.__name__}: {plugin.class_path} must be a class that derives from it.")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise PluginError(f"{where} lacks {missing}, which every {base.__name__} must define.")
    return found


def use(target: str) -> list[Plugin]:
    """Make the plugin classes of a module or a Python file available: what `--plugin` does.

    Args:
        target: `package.module`, or the path of a `.py` file.

    Raises:
        PluginError: The module does not import or defines no plugin class.
    """
    module = _import_file(Path(target)) if target.endswith(".py") else _import(target, target)
    found = []
    for kind in KINDS:
        base = _contract(kind)
        for name, value in vars(module).items():
            ours = isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value)
            if ours and value.__module__ == module.__name__:
                found.append(Plugin(kind=kind, name=name, class_path=f"{module.__name__}.{name}", package=target, version="-"))
    if not found:
        raise PluginError(f"--plugin {target} defines no strategy, task or data source; derive a class from one of the contracts.")
    _named.update({p.name: p for p in found})
    return found


def _contract(kind: str) -> type:
    if kind not in KINDS:
        raise PluginError(f"entry point kind '{kind}' is unknown; {suggest(kind, KINDS)}")
    module, _, name = KINDS[kind].rpartition(".")
    base: type = getattr(importlib.import_module(module), name)
    return base


def _import(name: str, owner: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even call sys.exit() while it is imported
        raise PluginError(f"plugin module {name} of {owner} does not import: {error!r}.", traceback.format_exc()) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"--plugin {path}: there is no such file.")
    name = path.stem
    if name in sys.modules:
        known = sys.modules[name]
        if getattr(known, "__file__", None) == str(path.resolve()):
            return known
        raise PluginError(f"--plugin {path}: a module called '{name}' is already loaded; rename the file.")
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # as in _import
        del sys.modules[name]
        raise PluginError(f"--plugin {path} does not import: {error!r}.", traceback.format_exc()) from error
    return module
