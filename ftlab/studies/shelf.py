"""What one trial shows the process that forks the next: modules that were missing, and the base that will be asked for again."""

from __future__ import annotations

import importlib
import logging
import pickle
import sys
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from jsonargparse import _typehints

from ftlab import preflight
from ftlab.errors import ConfigError
from ftlab.given import given, take
from ftlab.resumed import DATA_FLAG
from ftlab.studies.held import Held, NotHeldError, hold, identity
from ftlab.weights import Read, Reading, from_files, reader

log = logging.getLogger(__name__)

_DECIDING = ("model.backbone", "model.task", "trainer.precision", "trainer.accelerator")
"""Keys on which it depends what is read; of `model.tuning` the class alone counts, because a study varies the rest."""
_LEARNT = ("ftlab", "lightning", "peft", "torchmetrics", "transformers")
"""Packages of which whatever a trial has imported is imported for the next ones; others may start threads."""
_COMMANDS = ("fit", "validate", "test", "predict")
_NO_KEYS = ("--plugin", "--resume", "--override-resume")
_TUNING = ("model.tuning", "model.tuning.class_path")
_LOST = object()
"""What cannot be unpickled."""


@dataclass(frozen=True)
class Lesson:
    """What a trial found missing.

    Args:
        modules: Names of what it imported.
        reading: The first weights that it read from files, or None, pickled by itself: it may have classes that only the trial knows, and
            is empty where one of them cannot be pickled.
    """

    modules: list[str]
    reading: bytes


class Shelf:
    """Holds one base at a time, for as long as trials of one kind come.

    Args:
        early: The modules that a fit has imported when it reads its configuration.
    """

    def __init__(self, early: frozenset[str]) -> None:
        self._early = early
        self._modules = set(sys.modules)
        self._readings: dict[str, Reading | None] = {}  # None: trials of this kind read it themselves
        self._held: Held | None = None
        self._reason = ""
        self._unsaid: dict[str, str] = {}  # why trials of a kind read their base themselves, until the next of them says so
        self._read: Reading | None = None

    def prepare(self, words: Sequence[str]) -> None:
        """Before the fork: hold what the trial is expected to read."""
        which = kind(words)
        self._reason = self._unsaid.pop(which, "")
        reading = self._readings.get(which)
        if reading is None or _answers(self._held, reading):
            return
        self._held = None  # two of them would need the memory of two
        try:
            self._held = hold(reading)
        except NotHeldError as error:
            self._reason = str(error)
        except Exception as error:  # whatever a damaged file may raise; the trial reads it itself and says what it means
            self._reason = f"{type(error).__name__}: {error}"
        if self._reason:
            self._readings[which] = None

    def serve(self) -> None:
        """In the fork: answer whoever asks for weights, and let a configuration's short names mean what they mean to a fit alone."""
        reader.set(self._answer)
        hide(self._modules - self._early)

    def _answer(self, reading: Reading) -> Read:
        held, self._held = self._held, None  # once: the trial changes it
        if self._read is None and self._reason:
            log.info("the base is read anew for each trial: %s", self._reason)
        if held is not None and _answers(held, reading):
            try:
                read = held.take()
                log.info("the base was read for an earlier trial")
                return read
            except NotHeldError as error:
                log.warning("the base is read from its files: %s", error)
        self._read = self._read or reading
        return from_files(reading)

    def report(self, file: IO[bytes]) -> None:
        """In the fork, at its end: say what was missing."""
        new = [name for name in sys.modules if name not in self._modules and name.partition(".")[0] in _LEARNT]
        reading = b""
        with suppress(Exception):  # whatever a class of a plugin may raise; who learns this says so
            reading = pickle.dumps(self._read)
        pickle.dump(Lesson(new, reading), file)
        file.flush()

    def learn(self, words: Sequence[str], file: IO[bytes]) -> None:
        """After the trial: import what it had to import itself, and remember what it read; it may have said nothing."""
        file.seek(0)
        lesson = _unpickled(file.read())
        if isinstance(lesson, Lesson):
            self._import(lesson.modules)
            which, reading = kind(words), _unpickled(lesson.reading)
            if which and isinstance(reading, Reading):
                self._remember(which, reading)
            elif which and which not in self._readings and reading is _LOST:
                self._readings[which] = None
                self._unsaid[which] = "its configuration has a class that only the trial knows"

    def _import(self, names: Sequence[str]) -> None:
        for name in names:
            with suppress(Exception):  # names that no import leads to; a trial that needs one will say what is wrong with it
                importlib.import_module(name)
        self._modules |= {*sys.modules, *names}

    def _remember(self, which: str, reading: Reading) -> None:
        known = self._readings.setdefault(which, reading)
        if known is not None and _identity(known) != _identity(reading):
            self._readings[which] = None


def _unpickled(text: bytes) -> object:
    """What a trial has said; `_LOST` where it was cut, or has a class of a module that is not there."""
    with suppress(Exception):  # half a pickle may raise anything, and so may a class of a plugin
        return pickle.loads(text)
    return _LOST


def _identity(reading: Reading) -> str:
    """Its identity; empty where it has none."""
    try:
        return identity(reading)
    except Exception:  # NotHeldError, OSError, and whatever the configuration of a plugin raises
        return ""


def _answers(held: Held | None, reading: Reading) -> bool:
    return held is not None and held.identity == _identity(reading)


def hide(modules: Set[str]) -> None:
    """Have jsonargparse 4.53 find no class of `modules` by its short name.

    It looks through all subclasses that are loaded: beside those of bitsandbytes, which PEFT imports, `AdamW` would be two classes.
    """
    found = _typehints.get_all_subclass_paths

    def visible(cls: type, include_abstract: bool = False, closed_types: bool = True) -> list[str]:
        paths = found(cls, include_abstract, closed_types)
        return [p for p in paths if p.startswith("ftlab.") or p.rpartition(".")[0] not in modules]

    _typehints.get_all_subclass_paths = visible


def kind(words: Sequence[str]) -> str:
    """What trials have in common that read the same weights, empty where nobody can tell; what is found out is there for the trial."""
    if not words or words[0] not in _COMMANDS:
        return ""
    rest = [word for word in words[1:] if word != DATA_FLAG]
    try:
        for option in _NO_KEYS:
            rest, _ = take(rest, option)
        values = given(rest)
    except ConfigError:  # the trial will say so
        return ""
    with suppress(Exception):  # the same; or a class that only the trial knows
        preflight.check(values, words[0])  # reads the source text of classes, once for all trials
    chosen = {v.key: v.value for v in values if v.key in _TUNING or v.key.startswith(_DECIDING)}
    return repr(sorted(chosen.items()))
