"""Importing a plugin's module, installed or from a file, so that whatever it does becomes one sentence that names it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from ftlab.errors import ConfigError

log = logging.getLogger(__name__)

_SLOW = 10.0
"""Seconds after which an import is worth a line."""
_OWN_FRAMES = (__file__, importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


class PluginError(ConfigError):
    """A plugin that could not be imported or does not keep its contract.

    Args:
        message: The sentence.
        details: Where in the plugin's own code it happened, shown above the sentence.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def import_installed(name: str, owner: str) -> ModuleType:
    """The module of an installed plugin.

    Args:
        name: The module.
        owner: Package and version, for the error message.

    Raises:
        PluginError: It does not import.
    """
    return _guarded(f"plugin module {name} of {owner}", lambda: importlib.import_module(name))


def import_given(target: str) -> ModuleType:
    """The module that `--plugin` names.

    Args:
        target: `package.module`, or the path of a `.py` file, whose folder is not put on the search path.

    Raises:
        PluginError: There is no such module or file, or it does not import.
    """
    if target.endswith(".py"):
        return _import_file(Path(target).expanduser())
    if not all(part.isidentifier() for part in target.split(".")):
        raise PluginError(f"--plugin {target!a} is neither a module nor a file that ends in .py; write package.module or file.py.")
    try:
        return _guarded(f"--plugin {target}", lambda: importlib.import_module(target))
    except PluginError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is None or not f"{target}.".startswith(f"{missing}."):
            raise
        raise PluginError(f"--plugin {target}: no module '{missing}' is installed; install it, or name a file that ends in .py.") from error


def _guarded(what: str, load: Callable[[], ModuleType]) -> ModuleType:
    start = time.perf_counter()
    try:
        # What a plugin prints must not end up in output that a program reads.
        with contextlib.redirect_stdout(sys.stderr):
            module = load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even call sys.exit() while it is imported
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise PluginError(f"{what} does not import ({said}); mend it, or do not name it.", _where(error)) from error
    if (seconds := time.perf_counter() - start) > _SLOW:
        log.warning("%s took %.0f s to import", what, seconds)
    return module


def _where(error: BaseException) -> str:
    """The last steps inside the plugin; `--debug` shows them all."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename not in _OWN_FRAMES]
    return "".join(f"  {f.filename}:{f.lineno}: {f.line}\n" for f in frames[-3:])


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"--plugin {path}: there is no such file; check the path and the folder you are in.")
    name, place = path.stem, path.resolve()
    if not name.isidentifier():
        raise PluginError(f"--plugin {path}: '{name}' cannot be a module's name; rename the file, with letters, digits and '_' only.")
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(place):
        return sys.modules[name]
    if name in sys.modules or _installed_elsewhere(name, place):
        # Under that name other code would get the plugin in place of the module that it means.
        raise PluginError(f"--plugin {path}: there is already a module called '{name}'; rename the file.")
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None, "a path that ends in .py has a loader"
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    assert loader is not None, "as above"

    def run() -> ModuleType:
        sys.modules[name] = module  # dataclasses look their module up
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    return _guarded(f"--plugin {path}", run)


def _installed_elsewhere(name: str, place: Path) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and (spec.origin is None or Path(spec.origin).resolve() != place)
