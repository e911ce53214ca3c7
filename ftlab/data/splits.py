"""Which rows of a source make a split: a named one, or a share of another cut off with a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from ftlab.data.sources.base import DataSource
from ftlab.errors import ConfigError, DataError, suggest
from ftlab.rows import Row

_USUAL_VALIDATION = ("validation", "valid", "val", "dev")


@dataclass(frozen=True, kw_only=True)
class View:
    """A split of the source, or a part of it.

    Args:
        split: Name of the split in the source.
        first: Where the part starts in the shuffled rows, as a share of them.
        last: Where it ends; 0 to 1 is the whole split.
        seed: Seed of that shuffle.
    """

    split: str
    first: float = 0.0
    last: float = 1.0
    seed: int = 0

    def key(self) -> dict[str, object]:
        """What the cached tokens depend on."""
        return asdict(self)

    def rows(self, source: DataSource) -> Iterator[tuple[int, Row]]:
        """(number in the source's split, row) of this part, in the source's order."""
        if (self.first, self.last) == (0.0, 1.0):
            yield from enumerate(source.rows(self.split))
            return
        count = sum(1 for _ in source.rows(self.split))
        order = np.random.default_rng(self.seed).permutation(count)
        chosen = set(order[round(self.first * count) : round(self.last * count)].tolist())
        if not chosen:
            raise DataError(f"split '{self.split}' has {count} rows, of which a share of {self.last - self.first:g} is none; raise the share.")
        yield from ((i, row) for i, row in enumerate(source.rows(self.split)) if i in chosen)


def resolve(source: DataSource, wanted: dict[str, float | str | None], seed: int) -> dict[str, View]:
    """The views that a configuration asks for.

    Args:
        source: Where the rows are.
        wanted: `train`, `val`, `test`, `predict` → name of a split, share of the training split, `auto`, or None.
        seed: Seed of the cut.

    Raises:
        ConfigError: A split does not exist or the shares leave nothing to train on.
    """
    names = source.splits()
    train = wanted["train"]
    chosen = dict(wanted)
    if chosen["val"] == "auto":
        chosen["val"] = next((n for n in _USUAL_VALIDATION if n in names), 0.1)
    shares = {key: v for key, v in chosen.items() if isinstance(v, float | int)}
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ConfigError(f"data.val_split and data.test_split are shares of {shares}; each must be above 0 and together below 1.")
    views = {key: View(split=_existing(name, names, key)) for key, name in chosen.items() if isinstance(name, str)}
    end = 1.0
    for key, share in shares.items():
        views[key] = View(split=str(train), first=end - share, last=end, seed=seed)
        end -= share
    if shares and isinstance(train, str):
        views["train"] = View(split=train, first=0.0, last=end, seed=seed)
    return views


def _existing(name: str, names: tuple[str, ...], key: str) -> str:
    if name not in names:
        raise ConfigError(f"data.{key}_split is '{name}', but the source has {', '.join(names) or 'no splits'}; {suggest(name, names)}")
    return name
