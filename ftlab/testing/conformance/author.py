"""The class that an author of a strategy derives a test from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar

from ftlab.testing.conformance.check import CHECKS
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.suite import Suite, working_folder

if TYPE_CHECKING:
    import pytest

    from ftlab.strategies.base import TuningStrategy


class StrategyConformance:
    """Every check of `ftlab check` as a test: derive a class named `Test…`, and give it a strategy.

    Example:
        class TestMyStrategy(StrategyConformance):
            strategy = MyStrategy(rank=4)

    Attributes:
        strategy: What is checked.
        family: The tiny models to check on, such as bert; None takes the first of llama, gpt2 and bert that the strategy takes.
        targets: Fields that name modules; None takes all that can hold a list of names.
        fails: Name of a check that cannot pass → why not, beside `traits.fails`; one that passes all the same fails.
    """

    strategy: ClassVar[TuningStrategy]
    family: ClassVar[str | None] = None
    targets: ClassVar[tuple[str, ...] | None] = None
    fails: ClassVar[Mapping[str, str]] = {}
    _suite: ClassVar[Suite]
    _files: ClassVar[ExitStack]

    @classmethod
    def setup_class(cls) -> None:
        """Make a folder for tiny models."""
        cls._files = ExitStack()
        root = cls._files.enter_context(working_folder())
        subject = Subject(strategy=cls.strategy, root=root, chosen=cls.family, targets=cls.targets, fails=cls.fails)
        cls._suite = Suite(subject)

    @classmethod
    def teardown_class(cls) -> None:
        """Remove it."""
        cls._files.close()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each check."""
        if "check" in metafunc.fixturenames:
            metafunc.parametrize("check", list(CHECKS))

    def test_conforms(self, check: str) -> None:
        """A check passes, fails as declared, or has nothing to look at."""
        import pytest

        verdict = self._suite.verdict(check)
        if verdict.state == "failed":
            pytest.fail(f"{check}: {verdict.reason}\n{CHECKS[check].run.__doc__}", pytrace=False)
        if verdict.state == "declared":
            pytest.xfail(verdict.reason)
        if verdict.state in ("not applicable", "not run"):
            pytest.skip(f"{verdict.state}: {verdict.reason}")
