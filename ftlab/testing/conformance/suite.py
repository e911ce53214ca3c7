"""Running checks on a plugin, each once, and judging what was declared."""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar
from unittest.mock import patch

from ftlab import registry, rng
from ftlab.errors import suggest
from ftlab.quiet import quiet
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import BrokenError, Check, NotApplicableError
from ftlab.testing.conformance.examined import Examined

State = Literal["passed", "failed", "declared", "not applicable", "not run"]
S = TypeVar("S", bound=Examined)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came out of a check.

    Args:
        check: Its name.
        state: passed; failed; declared, where it fails as the class says; not applicable; not run, where a check that it needs failed.
        reason: Why, but for passed.
        seconds: CPU time of this process and the ones that it waited for.
    """

    check: str
    state: State
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Suite(Generic[S]):
    """All checks of one plugin; each is run when its verdict is first asked for.

    Args:
        subject: The plugin.
    """

    subject: S
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def verdict(self, name: str) -> Verdict:
        """The verdict of a check, and before it of those that it needs."""
        if name not in self.verdicts:
            self.verdicts[name] = self._judged(name)
        return self.verdicts[name]

    def run(self) -> list[Verdict]:
        """Every verdict."""
        return [self.verdict(name) for name in self.subject.checks]

    def _judged(self, name: str) -> Verdict:
        wanted = self.subject.checks[name]
        for need in (*wanted.needs, *wanted.beside):
            state = self.verdict(need).state
            if state in ("failed", "not run") or (state == "declared" and need in wanted.needs):
                return Verdict(check=name, state="not run", reason=f"it needs {need}")
        start = _cpu()
        state, reason = self._outcome(name)
        return Verdict(check=name, state=state, reason=reason, seconds=_cpu() - start)

    def _outcome(self, name: str) -> tuple[State, str]:
        why = None
        try:
            with apart(self.subject):
                why = self.subject.declared.get(name)
                self.subject.checks[name].run(self.subject)
        except NotApplicableError as reason:
            return "not applicable", str(reason)
        except Exception as error:  # whatever a plugin raises is a finding
            said = str(error) if isinstance(error, BrokenError) else f"{type(error).__name__}: {error}"
            said = " ".join(said.split())[:500]
            return ("declared", why) if why else ("failed", said)
        return ("failed", f"it is declared to fail ({why}), and passes; remove the declaration") if why else ("passed", "")


@contextmanager
def apart(subject: Examined) -> Iterator[None]:
    """A check leaves neither random state, nor warnings, nor names of plugins behind."""
    kind = type(subject.plugin)
    given, before, logger = dict(registry._given), rng.states(), logging.getLogger("ftlab")
    level = logger.level
    with patch.object(registry, "_given", given), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet()
        logger.setLevel(logging.ERROR)
        try:
            if f"{kind.__module__}.{kind.__qualname__}" not in {p.class_path for p in registry.plugins(subject.kind)}:
                registry.use(kind.__module__)
            yield
        finally:
            logger.setLevel(level)
            rng.restore(before, 0)


def misdeclared(declared: Mapping[str, str], checks: Mapping[str, Check]) -> str:
    """What is wrong with the names of declared failures; empty where nothing is."""
    unknown = [name for name in declared if name not in checks]
    return f"'{unknown[0]}' is declared to fail and is no check; {suggest(unknown[0], checks)}" if unknown else ""


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder for tiny models that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ftlab-check-") as folder:
        yield Path(folder)


def _cpu() -> float:
    return time.process_time() + server.spent
