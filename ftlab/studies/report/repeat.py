"""What somebody else needs to run a study again: commands, versions, fingerprints, git state, configurations."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from ftlab import strict_yaml
from ftlab.errors import ConfigError
from ftlab.redact import redacted
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.fingerprints import Versions, fingerprint
from ftlab.studies.report.markup import Markup, block, joined, tag

STUDY = "study.yaml"
_CONFIG = "config.yaml"
_LARGEST = 1 << 20
"""Bytes of a file that is shown."""
_FROM = (
    "Commands are for the folder in which the study was begun, since relative paths of plugins and data are seen from there; what they "
    "make is kept in a new folder, again."
)
_NOT_RECORDED = "not written down by these runs"


@dataclass(frozen=True)
class Commands:
    """What a person types to run a study or one of its trials again, beside the old one.

    Args:
        place: The study's folder, as seen from the folder where the study was begun.
        plugins: The options by which it was given its plugins.
    """

    place: PurePath
    plugins: str

    @property
    def study(self) -> str:
        """The whole study."""
        return f"ftlab ablate --config {shlex.quote(str(self.place / STUDY))} --root again{self.plugins}"

    def trial(self, folder: str) -> str:
        """One trial.

        Args:
            folder: Of the run, within the study's.
        """
        return f"ftlab fit --config {shlex.quote(str(self.place / folder / _CONFIG))} --run.root again{self.plugins}"


def commands(digest: Digest) -> Commands:
    """Those of a study: its file says with which plugins it was run, and its runs where they were kept."""
    begun = "# ftlab ablate --config study.yaml"
    first = ""
    with suppress(OSError), (digest.folder / STUDY).open(encoding="utf-8") as file:
        first = file.readline().rstrip()
    place = next(filter(None, (_place(digest.folder / r.folder / _CONFIG) for r in digest.records if r.folder)), None)
    return Commands(place or PurePath(*digest.folder.resolve().parts[-2:]), first.removeprefix(begun) if first.startswith(begun) else "")


def _place(config: Path) -> PurePath | None:
    """The study's folder, by what a run of it was told of its own."""
    if not config.is_file():
        return None
    with suppress(ConfigError):
        run = strict_yaml.read(config).get("run")
        root = run.get("root") if isinstance(run, dict) else None
        return PurePath(root).parent if isinstance(root, str) else None
    return None


def section(digest: Digest) -> Markup:
    """The content of the section."""
    versions = digest.versions
    facts = [("Versions", _alike(_packages(v) for v in versions)), ("Data", _alike(fingerprint(v, "data") for v in versions))]
    facts += [("Base model", _alike(fingerprint(v, "base") for v in versions)), ("Git", _alike(_git(v) for v in versions))]
    parts = [
        tag("h3", None, "The study"),
        tag("p", {"class": "soft"}, f"{_FROM} That of a single trial stands in its row above."),
        block(commands(digest).study),
        tag("dl", {"class": "facts"}, *(part for name, fact in facts for part in (tag("dt", None, name), tag("dd", None, fact)))),
        *_file(digest.folder / STUDY, "The study file, as run"),
    ]
    for best in digest.best.values():
        first = next(r.folder for r in digest.records if r.variant == best.variant and r.phase == "seeds")
        parts += _file(digest.folder / first / _CONFIG, f"The whole configuration of {best.variant}, first seed") if first else []
    return joined(*parts)


def _file(path: Path, title: str) -> Iterator[Markup]:
    if path.is_file() and path.stat().st_size <= _LARGEST:
        content = str(redacted(path.read_text(encoding="utf-8", errors="replace")))
        yield tag("details", None, tag("summary", None, title), block(content))


def _packages(versions: Versions) -> str:
    found = versions.get("packages")
    return ", ".join(f"{name} {version}" for name, version in found.items()) if isinstance(found, dict) else ""


def _git(versions: Versions) -> str:
    found = versions.get("git")
    if not isinstance(found, dict) or not found.get("commit"):
        return ""
    return f"commit {found['commit']}{', with changes that are not committed' if found.get('changed') else ', nothing changed'}"


def _alike(facts: Iterator[str]) -> Markup:
    """One fact where all runs agree, else each with the number of its runs."""
    counts = Counter(fact for fact in facts if fact)
    if not counts:
        return joined(_NOT_RECORDED)
    if len(counts) == 1:
        return joined(next(iter(counts)))
    return tag("ul", None, *(tag("li", None, f"{runs} runs: {fact}") for fact, runs in counts.most_common()))
