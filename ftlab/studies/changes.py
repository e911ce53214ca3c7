"""What differs between a study and the same study as it was run before: what extends it, and what makes it another one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from ftlab.errors import ConfigError
from ftlab.studies.canonical import canonical, digest_of, flat
from ftlab.studies.levels import settled
from ftlab.studies.spec import StudySpec, Tune, plain_of
from ftlab.studies.taking import LONGEST, shown
from ftlab.studies.variants import Variant, variants

_WHAT = ("name", "metric", "direction", "stop", "knockout", "cache_features")
"""What the results depend on as a whole."""
_SCORES = ("metric", "direction")
"""What of them matters to a trial with a score only."""
_HOW = ("retries", "timeout_minutes")
"""What they do not depend on."""
_SHOWN = 3
"""Changes that a message lists."""
_ABSENT = object()
"""In place of a value that is not there."""
_BEFORE = 20
"""Characters that are shown before those in which two long texts differ."""


@dataclass(frozen=True)
class Change:
    """One difference.

    Args:
        text: A clause of a sentence.
        extends: The trials that have run stay what they are.
        scores: It changes only what they are judged by.
    """

    text: str
    extends: bool
    scores: bool = False


def check_same(old: StudySpec, new: StudySpec, extend: bool, scored: bool = True) -> list[Change]:
    """Refuse a study that is not the one that was run.

    Args:
        old: The study that a folder or storage holds.
        new: What is asked for.
        extend: Whether it may have more variants, seeds and trials of tuning.
        scored: Whether a trial has a score or is about to, so that `metric` and `direction` stay.

    Returns:
        What has changed.

    Raises:
        ConfigError: Names what changed.
    """
    found = list(changes(old, new))
    other = [c for c in found if not c.extends and (scored or not c.scores)]
    if other:
        until = ", which may change only while no trial is complete, pruned or running" if any(c.scores for c in other) else ""
        raise ConfigError(_another(old.name, other, until))
    more = [c for c in found if c.extends]
    if more and not extend:
        raise ConfigError(f"the study {old.name} has changed: {listed(more)}; add --extend to run what is new, or choose a new name.")
    return found


def edited(spec: StudySpec) -> str:
    """Why no trial of a study may begin: a plugin's file, which each trial imports anew, holds other code than the study began with.

    Args:
        spec: The study as `settle` returned it.

    Returns:
        A sentence that names the plugin; empty where the code is the same.
    """
    found = list(_code(spec, replace(spec, code=None)))
    return _another(spec.name, found) if found else ""


def _another(name: str, found: Sequence[Change], until: str = "") -> str:
    return f"the study {name} has been run with other settings: {listed(found)}{until}; undo it, or choose a new name."


def listed(found: Sequence[Change]) -> str:
    """The first changes as one clause, and how many more there are."""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(c.text for c in found[:_SHOWN]) + more


def changes(old: StudySpec, new: StudySpec) -> Iterator[Change]:
    """Every difference that matters to a trial; where files lie, spelling and order do not.

    Args:
        old: The study that was run.
        new: What is asked for.
    """
    yield from _code(old, new)
    for key in _WHAT + _HOW:
        was, now = (plain_of(getattr(spec, key)) for spec in (old, new))
        if digest_of(was) != digest_of(now):
            yield Change(_differ(key, key, was, now), key in _HOW, key in _SCORES)
    before, after = _flat(old.base_content), _flat(new.base_content)
    yield from _keys("base: ", before, after)
    yield from _keys("set: ", old.set, new.set)
    yield from _seeds(old, new)
    yield from _tuning(old.tune, new.tune)
    if digest_of([before, plain_of(old.set)]) == digest_of([after, plain_of(new.set)]):  # else every variant differs
        yield from _variants(old, new)


def code_of(plugins: Sequence[str]) -> dict[str, str]:
    """Name of each plugin → a hash of its file; a module's code is that of its package, which is not looked at.

    Args:
        plugins: What `--plugin` named.
    """
    files = [(target, Path(target).expanduser()) for target in plugins]
    return {path.name if target.endswith(".py") else target: _hash(path) for target, path in files}


def _hash(path: Path) -> str:
    if path.suffix == ".py":
        with suppress(OSError):  # what cannot be read is other code than what could
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""


def _code(old: StudySpec, new: StudySpec) -> Iterator[Change]:
    """Code is told by what the file holds, not by where it lies: machines differ in that."""
    before, after = (code_of(spec.plugins) if spec.code is None else spec.code for spec in (old, new))
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield Change(f"--plugin {name} is no longer given", False)
        elif name not in before:
            yield Change(f"--plugin {name} is new", True)
        elif before[name] != after[name]:
            yield Change(f"the code of --plugin {name} is another", False)


def _flat(content: Mapping[str, object]) -> dict[str, object]:
    return {leaf: each for key, value in content.items() for leaf, each in flat(str(key), value).items()}


def _keys(where: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    before, after = settled(old), settled(new)
    for key in sorted(before.keys() | after.keys()):
        if digest_of([key in before, before.get(key)]) != digest_of([key in after, after.get(key)]):
            yield Change(_differ(f"{where}{key}", key, old.get(key, _ABSENT), new.get(key, _ABSENT)), False)


def _differ(place: str, key: str, was: object, now: object) -> str:
    """A clause with what two values were and are; of those that are too long to be shown, the first place within them that differs.

    Args:
        place: Where they stand, as the clause calls it.
        key: The dotted key under which they stand.
        was: As it was run; `_ABSENT` for nothing.
        now: What is asked.
    """
    if max(len(repr(was)), len(repr(now))) > LONGEST:
        for name, below, *pair in _inner(key, was, now):
            if not _same(below, *pair):
                return _differ(place + name, below, *pair)
        if isinstance(was, str) and isinstance(now, str):
            was, now = _behind(was, now)
    then = "was not set" if was is _ABSENT else f"was {shown(was)}"
    return f"{place} {then} and is {'not set' if now is _ABSENT else shown(now)}"


def _behind(was: str, now: str) -> tuple[str, str]:
    """Two texts without what they begin with alike, but for some characters before they differ."""
    shorter = min(len(was), len(now))
    cut = next((i for i in range(shorter) if was[i] != now[i]), shorter) - _BEFORE
    return (f"…{was[cut:]}", f"…{now[cut:]}") if cut > 0 else (was, now)


def _same(key: str, was: object, now: object) -> bool:
    return _ABSENT not in (was, now) and digest_of(canonical(was, key)) == digest_of(canonical(now, key))


def _inner(key: str, was: object, now: object) -> Iterator[tuple[str, str, object, object]]:
    """What two values hold in the same places: name of the place, the key that says what a name there means, and both."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in sorted(was.keys() | now.keys(), key=str):
            yield f".{name}", key if name == "class_path" else "", was.get(name, _ABSENT), now.get(name, _ABSENT)
    elif isinstance(was, list) and isinstance(now, list):
        for number, (before, after) in enumerate(zip_longest(was, now, fillvalue=_ABSENT)):
            yield f"[{number}]", key, before, after


def _seeds(old: StudySpec, new: StudySpec) -> Iterator[Change]:
    added = [str(s) for s in new.seeds if s not in old.seeds]
    gone = [str(s) for s in old.seeds if s not in new.seeds]
    if gone:
        yield Change(f"seeds no longer has {', '.join(gone)}", False)
    if added:
        yield Change(f"seeds has {', '.join(added)} more", True)


def _tuning(old: Tune | None, new: Tune | None) -> Iterator[Change]:
    if old is None or new is None:
        if old is not new:
            yield Change(f"tune {'was' if new is None else 'is'} set and {'is' if new is None else 'was'} not", False)
        return
    for key in ("space", "seed"):
        was, now = (plain_of(getattr(tune, key)) for tune in (old, new))
        if digest_of(was) != digest_of(now):
            yield Change(_differ(f"tune.{key}", f"tune.{key}", was, now), False)
    if old.trials != new.trials:
        yield Change(f"tune.trials was {old.trials} and is {new.trials}", new.trials > old.trials)
    for name in sorted(old.per.keys() | new.per.keys()):
        yield from _per(name, old, new)


def _per(name: str, old: Tune, new: Tune) -> Iterator[Change]:
    was, now = old.per.get(name), new.per.get(name)
    if digest_of(plain_of(was and was.space)) != digest_of(plain_of(now and now.space)):
        yield Change(f"tune.per.{name}.space has changed", False)
    before, after = (tune.trials if per is None or per.trials is None else per.trials for tune, per in ((old, was), (new, now)))
    if before != after and (before, after) != (old.trials, new.trials):
        yield Change(f"tune.per.{name}.trials was {before} and is {after}", after > before)


def _variants(old: StudySpec, new: StudySpec) -> Iterator[Change]:
    factors = [f.name for f in old.factors], [f.name for f in new.factors]
    if set(factors[0]) != set(factors[1]):
        yield Change(f"factors were {', '.join(factors[0]) or 'none'} and are {', '.join(factors[1]) or 'none'}", False)
        return
    before, after = ({v.name: v for v in variants(spec)} for spec in (old, new))
    called = {digest_of(settled(v.settings)): name for name, v in after.items()}
    for name, one in before.items():
        if name not in after and (other := called.get(digest_of(settled(one.settings)))):
            yield Change(f"the variant {name} is now called {other}", False)
        elif name not in after:
            yield Change(f"the variant {name} is no longer there", False)
        elif _key(one) != _key(after[name]):
            yield Change(f"the variant {name} sets other values", False)
    added = [name for name in after if name not in before]
    if added:
        yield Change(f"{_few(added)} {'is' if len(added) == 1 else 'are'} new", True)


def _key(one: Variant) -> str:
    return digest_of([settled(one.settings), one.levels])


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
