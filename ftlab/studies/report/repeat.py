"""What somebody else needs to run a study again: commands, versions, fingerprints, git state, configurations."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftlab.redact import redacted
from ftlab.studies.report.digest import Digest
from ftlab.studies.report.markup import Markup, block, joined, tag

VERSIONS = "versions.json"
STUDY = "study.yaml"
_CONFIG = "config.yaml"
_LARGEST = 1 << 20
"""Bytes of a file that is shown."""
_NOT_RECORDED = "not written down by these runs"


def command(folder: Path) -> str:
    """Runs the whole study again: what the study's file says it was run by.

    Args:
        folder: The study's.
    """
    plain = f"ftlab ablate --config {STUDY}"
    try:
        with (folder / STUDY).open(encoding="utf-8") as file:
            first = file.readline().removeprefix("# ").strip()
    except OSError:
        return plain
    return first if first.startswith(plain) else plain


def trial_command(study: str, folder: str) -> str:
    """Runs one trial again, beside the old one.

    Args:
        study: What `command` returned; a trial needs the same plugins.
        folder: Of the run.
    """
    plugins = study.removeprefix(f"ftlab ablate --config {STUDY}")
    return f"ftlab fit --config {shlex.quote(f'{folder}/{_CONFIG}')} --run.root again{plugins}"


def section(digest: Digest) -> Markup:
    """The content of the section."""
    versions = [_versions(digest.folder / r.folder) for r in digest.records if r.folder]
    facts = [("Versions", _alike(_packages(v) for v in versions)), ("Data", _alike(_named(v, "data") for v in versions))]
    facts += [("Base model", _alike(_named(v, "base") for v in versions)), ("Git", _alike(_git(v) for v in versions))]
    parts = [
        tag("h3", None, "The study"),
        tag("p", {"class": "soft"}, "Commands are for the study's folder; that of a single trial stands in its row above."),
        block(command(digest.folder)),
        tag("dl", {"class": "facts"}, *(part for name, fact in facts for part in (tag("dt", None, name), tag("dd", None, fact)))),
        *_file(digest.folder / STUDY, "The study file, as run"),
    ]
    best = digest.best
    first = next((r.folder for r in digest.records if best and r.variant == best.variant and r.phase == "seeds" and r.folder), None)
    if best and first:
        parts += _file(digest.folder / first / _CONFIG, f"The whole configuration of {best.variant}, first seed")
    return joined(*parts)


def _file(path: Path, title: str) -> Iterator[Markup]:
    if path.is_file() and path.stat().st_size <= _LARGEST:
        content = str(redacted(path.read_text(encoding="utf-8", errors="replace")))
        yield tag("details", None, tag("summary", None, title), block(content))


def _versions(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / VERSIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a trial that failed early has none; the page says how many runs each fact is from
        return {}
    return found if isinstance(found, dict) else {}


def _packages(versions: Mapping[str, Any]) -> str:
    found = versions.get("packages")
    return ", ".join(f"{name} {version}" for name, version in found.items()) if isinstance(found, dict) else ""


def _named(versions: Mapping[str, Any], name: str) -> str:
    found = versions.get("fingerprints")
    return str(found[name]) if isinstance(found, dict) and found.get(name) else ""


def _git(versions: Mapping[str, Any]) -> str:
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
