"""`ftlab new`: a package around a strategy, a task or a data source of one's own. Imports neither torch nor any plugin."""

from __future__ import annotations

import importlib.util
import re
from importlib import resources
from pathlib import Path
from string import Template

import ftlab
from ftlab import registry
from ftlab.commands.arguments import Arguments
from ftlab.errors import ConfigError
from ftlab.folders import check_target

_KINDS = {"strategy": ("strategies", "tuning strategy"), "task": ("tasks", "task"), "source": ("data", "data source")}
"""What can be made → its kind in the registry, and what to call it."""
_USES = {
    "strategy": "`ftlab fit --config my.yaml --model.tuning $name` trains with it; `ftlab check $name` runs the tests without pytest.",
    "task": "`ftlab fit --config my.yaml --model.task $name` learns it; `ftlab check $name` runs the tests without pytest.",
    "source": "`ftlab fit --config my.yaml --data.source $name` reads from it; `ftlab check $name` runs the tests without pytest.",
}


def run(name: str, arguments: list[str]) -> int:
    """Write a package."""
    made = Arguments(prog=f"ftlab {name}", description="Write a package that passes its own tests.", allow_abbrev=False)
    made.add_argument("kind", choices=tuple(_KINDS), help="what to write")
    made.add_argument("name", metavar="NAME", help="the class's name, such as MyMethod")
    made.add_argument("--to", metavar="DIR", help="where to; a new or empty folder (default: ./ftlab-my-method)")
    chosen = made.parse_args(arguments)
    words = _words(chosen.name, chosen.kind)
    target = Path(chosen.to or words["package"]).expanduser()
    check_target(target)
    target.mkdir(parents=True, exist_ok=True)
    for file, text in _files(chosen.kind, words).items():
        (target / file).write_text(text, encoding="utf-8")
    print(f"wrote {target}: the class is in {words['module']}.py\nnext: pip install -e '{target}[test]' && pytest {target}")
    return 0


def _words(name: str, kind: str) -> dict[str, str]:
    """What the templates leave open.

    Raises:
        ConfigError: The name cannot be used.
    """
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise ConfigError(f"NAME is {name!a}; it must be the name of a class, letters and digits that begin with a capital: MyMethod.")
    parts = re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z][a-z0-9]*", name)
    module = "_".join(part.lower() for part in parts)
    registered, word = _KINDS[kind]
    if any(p.name == name for p in registry.plugins(registered)):
        raise ConfigError(f"NAME is {name}, which `ftlab list {registered}` has already; choose another.")
    if importlib.util.find_spec(module) is not None:
        raise ConfigError(f"NAME is {name}, and its module {module} would hide one that is installed; choose another.")
    package = f"ftlab-{module.replace('_', '-')}"
    words = {"name": name, "module": module, "package": package, "kind": registered, "word": word, "version": ftlab.__version__}
    return {**words, "use": Template(_USES[kind]).substitute(words)}


def _files(kind: str, words: dict[str, str]) -> dict[str, str]:
    """File name → text."""
    templates = resources.files("ftlab") / "templates"
    places = {
        "pyproject.toml": templates / "pyproject.toml.txt",
        "README.md": templates / "README.md.txt",
        f"{words['module']}.py": templates / kind / "module.py.txt",
        f"test_{words['module']}.py": templates / kind / "test_module.py.txt",
    }
    return {file: Template(place.read_text(encoding="utf-8")).substitute(words) for file, place in places.items()}
