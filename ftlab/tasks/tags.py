"""Tags of words and the entities that they spell, by seqeval's rules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

Scheme: TypeAlias = Literal["bio", "bilou"]
Entity: TypeAlias = tuple[str, int, int]
"""(type, first word, word after the last)"""

OUTSIDE = "O"
_PREFIXES: dict[Scheme, str] = {"bio": "BI", "bilou": "BILU"}


def is_tag(tag: object, scheme: Scheme) -> bool:
    """Whether a value is `O` or a prefix of the scheme, a hyphen and a type."""
    if not isinstance(tag, str):
        return False
    prefix, _, kind = tag.partition("-")
    return tag == OUTSIDE or (len(prefix) == 1 and prefix in _PREFIXES[scheme] and bool(kind))


def complete(types: Iterable[str], scheme: Scheme) -> list[str]:
    """`O`, and every tag of every type in sorted order."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(types) for prefix in _PREFIXES[scheme])]


def type_of(tag: str) -> str:
    """What stands after the prefix; nothing for `O`."""
    return tag.partition("-")[2]


def chunks(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags of either scheme mean, also where a beginning or an end is missing: a change of type is one."""
    found: list[Entity] = []
    start, before = 0, OUTSIDE
    for i, tag in enumerate([*tags, OUTSIDE]):
        goes_on = tag[0] in "IL" and before[0] in "BI" and type_of(tag) == type_of(before)
        if before != OUTSIDE and not goes_on:
            found.append((type_of(before), start, i))
        if not goes_on:
            start = i
        before = tag
    return found


def written(entities: Iterable[Entity], length: int, scheme: Scheme) -> list[str]:
    """The tags of a sentence that has these entities."""
    tags = [OUTSIDE] * length
    for kind, start, end in entities:
        prefixes = ["B", *"I" * (end - start - 1)]
        if scheme == "bilou":
            prefixes[-1] = "U" if len(prefixes) == 1 else "L"
        tags[start:end] = [f"{prefix}-{kind}" for prefix in prefixes]
    return tags


def repaired(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Tags without a broken sequence: an `I-x` that nothing begins becomes `B-x`, and so on; sound tags stay as they are."""
    return written(chunks(tags), len(tags), scheme)


def entities(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """The entities as seqeval finds them.

    BIO is read in its default mode, that of conlleval: an `I-x` that nothing begins is a beginning. BILOU, which that mode does not
    know, is read in its strict mode: an entity without a beginning or an end is none.
    """
    found = chunks(tags)
    if scheme == "bio":
        return found
    sound = written(found, len(tags), scheme)
    return [(kind, start, end) for kind, start, end in found if sound[start:end] == list(tags[start:end])]


def entity_scores(sentences: Iterable[tuple[list[Entity], list[Entity]]], types: Iterable[str]) -> dict[str, float]:
    """Precision, recall and F1 over all entities (micro), and for each type, whose name stands behind an underscore.

    What is divided by zero is 0, as in seqeval; a type that is neither there nor found has NaN.

    Args:
        sentences: (entities that are there, entities that were found)
        types: Every type to report.
    """
    there, found, right = Counter[str](), Counter[str](), Counter[str]()
    for gold, predicted in sentences:
        there.update(kind for kind, *_ in gold)
        found.update(kind for kind, *_ in predicted)
        right.update(kind for kind, *_ in set(gold) & set(predicted))
    figures = _rates(right.total(), found.total(), there.total())
    for kind in types:
        rates = _rates(right[kind], found[kind], there[kind])
        figures |= {f"{name}_{kind}": rate if there[kind] or found[kind] else math.nan for name, rate in rates.items()}
    return figures


def _rates(right: int, found: int, there: int) -> dict[str, float]:
    return {
        "precision": right / found if found else 0.0,
        "recall": right / there if there else 0.0,
        "f1": 2 * right / (found + there) if found + there else 0.0,
    }
