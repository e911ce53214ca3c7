"""The classes that an author of a plugin derives a test from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ftlab.testing.conformance.check import OF_KIND
from ftlab.testing.conformance.examined import Examined
from ftlab.testing.conformance.sources.subject import SourceSubject, put_files
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.suite import Suite, working_folder
from ftlab.testing.conformance.tasks.subject import TaskSubject

if TYPE_CHECKING:
    import pytest

    from ftlab.data.sources.base import DataSource
    from ftlab.rows import Row
    from ftlab.strategies.base import TuningStrategy
    from ftlab.tasks.base import Task


class _Conformance(ABC):
    """One test for each check.

    Attributes:
        fails: Name of a check that cannot pass → why not, beside what the class itself says; one that passes all the same fails.
    """

    fails: ClassVar[Mapping[str, str]] = {}
    _kind: ClassVar[str]
    _suite: ClassVar[Suite[Any]]
    _files: ClassVar[ExitStack]

    @classmethod
    @abstractmethod
    def _subject(cls, root: Path) -> Examined:
        """What is measured, with its files in a folder."""

    @classmethod
    def setup_class(cls) -> None:
        """Make a folder for tiny models."""
        cls._files = ExitStack()
        root = cls._files.enter_context(working_folder())
        cls._suite = Suite(cls._subject(root))

    @classmethod
    def teardown_class(cls) -> None:
        """Remove it."""
        cls._files.close()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each check."""
        if "check" in metafunc.fixturenames:
            metafunc.parametrize("check", list(OF_KIND[self._kind]))

    def test_conforms(self, check: str) -> None:
        """A check passes, fails as declared, or has nothing to look at."""
        import pytest

        verdict = self._suite.verdict(check)
        if verdict.state == "failed":
            pytest.fail(f"{check}: {verdict.reason}\n{OF_KIND[self._kind][check].run.__doc__}", pytrace=False)
        if verdict.state == "declared":
            pytest.xfail(verdict.reason)
        if verdict.state in ("not applicable", "not run"):
            pytest.skip(f"{verdict.state}: {verdict.reason}")


class StrategyConformance(_Conformance):
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
    _kind = "strategies"

    @classmethod
    def _subject(cls, root: Path) -> Subject:
        return Subject(strategy=cls.strategy, root=root, chosen=cls.family, targets=cls.targets, fails=cls.fails)


class TaskConformance(_Conformance):
    """Every check of a task as a test: derive a class named `Test…`, and give it a task.

    Example:
        class TestMyTask(TaskConformance):
            task = MyTask()
            rows = ({"text": "one two", "label": "a"}, {"text": "three", "label": "b"}, …)

    Attributes:
        task: What is checked.
        rows: Four or more labelled rows, short and of several lengths; none takes those of the class, `sample.rows`.
        family: The tiny models to check on, such as bert; None takes the first of bert, llama and gpt2 that the task takes.
        fails: Name of a check that cannot pass → why not, beside what `Task.fails` says; one that passes all the same fails.
    """

    task: ClassVar[Task]
    rows: ClassVar[Sequence[Row]] = ()
    family: ClassVar[str | None] = None
    _kind = "tasks"

    @classmethod
    def _subject(cls, root: Path) -> TaskSubject:
        return TaskSubject(task=cls.task, rows=cls.rows or cls.task.sample.rows, root=root, chosen=cls.family, fails=cls.fails)


class DataConformance(_Conformance):
    r"""Every check of a data source as a test: derive a class named `Test…`, and give it a source.

    Example:
        class TestMySource(DataConformance):
            source = MySource(path="rows.txt")
            files = {"rows.txt": "one\ntwo\n"}

    Attributes:
        source: What is checked.
        files: Name → contents of files to write for it; where a field of the source holds such a name, it gets the file's path.
        fails: Name of a check that cannot pass → why not, beside `sample.fails`; one that passes all the same fails.
    """

    source: ClassVar[DataSource]
    files: ClassVar[Mapping[str, str | bytes]] = {}
    _kind = "data"

    @classmethod
    def _subject(cls, root: Path) -> SourceSubject:
        places = put_files(cls.files, root)
        return SourceSubject.placed(cls.source, places, root=root, fails=cls.fails)
