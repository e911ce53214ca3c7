"""Data sources that each have one fault, as it has shipped somewhere or might."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from ftlab.rows import Row
from tests.planted.meant import meant_for
from tests.planted.sound_source import SoundSource


@meant_for("contract")
class NeedsASeed(SoundSource):
    """Rows that cannot be had by the name of a split alone."""

    def rows(self, split: str, seed: int) -> Iterator[Row]:  # type: ignore[override]
        return super().rows(split)


@meant_for("splits")
class NamesAnEmptySplit(SoundSource):
    """Names a split that has no rows."""

    def splits(self) -> tuple[str, ...]:
        return ("train", "validation", "test")

    def rows(self, split: str) -> Iterator[Row]:
        return iter(()) if split == "test" else super().rows(split)


@meant_for("repeats")
class ShufflesItself(SoundSource):
    """Shuffles by the global generator."""

    def lines(self) -> list[str]:
        return random.sample(super().lines(), len(super().lines()))


@meant_for("repeats")
class OpensOnce(SoundSource):
    """Keeps an iterator, which is at its end the second time."""

    opened: ClassVar[dict[str, Iterator[Row]]] = {}

    def rows(self, split: str) -> Iterator[Row]:
        yield from self.opened.setdefault(f"{self.path} {split}", super().rows(split)) if split in self.splits() else super().rows(split)


@meant_for("resumes")
class OrderOfASetOfRows(SoundSource):
    """Takes doubles out by a set, whose order is another one in every process."""

    def lines(self) -> list[str]:
        return list({*super().lines(), *(f"line {i}" for i in range(50))})


@meant_for("ranks")
class DealsByRank(SoundSource):
    """Gives each process its own rows, out of which ftlab deals again."""

    def rows(self, split: str) -> Iterator[Row]:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        yield from (row for i, row in enumerate(super().rows(split)) if i % world == rank)


@meant_for("unknown_split")
class GivesNothing(SoundSource):
    """Has no rows, and says nothing, for a split that there is not."""

    def rows(self, split: str) -> Iterator[Row]:
        return super().rows(split) if split in self.splits() else iter(())


@meant_for("unknown_split")
class SplitsAreKeys(SoundSource):
    """Looks the split up, without a word."""

    def unknown(self, split: str) -> Exception:
        return KeyError(split)


@meant_for("fingerprint")
class HashOfText(SoundSource):
    """Uses Python's hash, which is another one in every process."""

    def fingerprint(self, split: str) -> str:
        return str(hash(self.told(split)))


@meant_for("fingerprint")
class OneForAll(SoundSource):
    """Forgets the split."""

    def told(self, split: str) -> str:
        return self.text()


@meant_for("fingerprint_follows")
class SizeForContents(SoundSource):
    """Takes a file of the same name for the same rows."""

    def told(self, split: str) -> str:
        return f"{split} {Path(self.path).name}"


@meant_for("missing_file")
class BareOSError(SoundSource):
    """Lets the error of the file system through."""

    def lines(self) -> list[str]:
        return self.text().splitlines()
