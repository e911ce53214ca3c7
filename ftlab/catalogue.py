"""Every plugin with what its source says, for `ftlab list` and `ftlab describe`; nothing is imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftlab import registry, source
from ftlab.registry import Plugin
from ftlab.scope import NoSourceError, UnreadableError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A plugin as the catalogue shows it.

    Args:
        plugin: What its package's metadata says.
        source: What its source says; None where there is none to read.
        state: ok, broken (no run can use it), shadowed (its name means another's class) or ambiguous (its name means none).
        problem: What is wrong; empty where nothing is.
    """

    plugin: Plugin
    source: source.ClassSource | None
    state: str = "ok"
    problem: str = ""

    @property
    def summary(self) -> str:
        """What the class is for, in one line."""
        return self.source.summary if self.source else ""

    @property
    def shortest(self) -> str:
        """What a configuration must write to get it."""
        return self.plugin.name if self.state == "ok" else self.plugin.class_path


def entries(kind: str | None = None) -> list[Entry]:
    """The catalogue, sorted by kind and name.

    Args:
        kind: Only this one.
    """
    found = [*(_entry(p) for p in registry.plugins(kind)), *(_faulty(p) for p in registry.faulty(kind))]
    order = {name: place for place, name in enumerate(registry.KINDS)}
    return sorted(found, key=lambda e: (order.get(e.plugin.kind, len(order)), e.plugin.name, e.plugin.package))


def _faulty(plugin: Plugin) -> Entry:
    return Entry(plugin=plugin, source=None, state="broken", problem=plugin.fault)


def _entry(plugin: Plugin) -> Entry:
    try:
        read = source.read(plugin.class_path)
    except NoSourceError:
        read = None
    except UnreadableError as error:
        return Entry(plugin=plugin, source=None, state="broken", problem=f"{error}.")
    rivals = [p for p in registry.plugins(plugin.kind) if p.name == plugin.name and p != plugin]
    if not rivals:
        return Entry(plugin=plugin, source=read)
    owners = " and ".join(_owners(rivals))
    if not plugin.built_in and any(p.built_in for p in rivals):
        return Entry(plugin=plugin, source=read, state="shadowed", problem=f"the name means ftlab's own; write {plugin.class_path}.")
    if plugin.built_in and not any(p.version == "-" for p in rivals):
        return Entry(plugin=plugin, source=read)
    return Entry(plugin=plugin, source=read, state="ambiguous", problem=f"{owners} has the same name; write {plugin.class_path}.")


def _owners(plugins: list[Plugin]) -> Iterator[str]:
    for plugin in plugins:
        yield f"{plugin.package} {plugin.version}".removesuffix(" -")
