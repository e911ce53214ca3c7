"""The suite itself: sound strategies pass it, declared failures are held to their word, and verdicts wait for one another."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ftlab import registry
from ftlab.errors import EnvironmentFault
from ftlab.strategies.base import Traits, TuningStrategy
from ftlab.strategies.full import Full
from ftlab.strategies.lora import LoRA
from ftlab.testing import StrategyConformance
from ftlab.testing.conformance import server
from ftlab.testing.conformance.check import distance
from ftlab.testing.conformance.subject import Subject
from ftlab.testing.conformance.suite import Suite
from tests.planted.broken import ForgetsTheHead, MovesTheBase
from tests.planted.sound import Merging, Sound


@pytest.mark.slow
class TestLoRA(StrategyConformance):
    strategy = LoRA(r=4)


@pytest.mark.slow
class TestFull(StrategyConformance):
    strategy = Full()
    targets = ("pattern",)


@pytest.mark.slow
class TestLoRAOnBert(StrategyConformance):
    strategy = LoRA(r=4, dropout=0.1)
    family = "bert"


@dataclass(frozen=True, kw_only=True)
class Declaring(Sound):
    """Says that it cannot be documented, and is."""

    traits = Traits(fails={"documented": "nobody reads it"})


@dataclass(frozen=True, kw_only=True)
class OpenMerging(Merging):
    """Leaves open whether it can be merged, and can."""

    traits = Traits(mergeable=None)


@dataclass(frozen=True, kw_only=True)
class OpenSound(Sound):
    """Leaves open whether it can be merged, and cannot."""

    traits = Traits(mergeable=None)


@pytest.fixture
def suite(tmp_path: Path) -> object:
    def made(strategy: TuningStrategy, **options: object) -> Suite[Subject]:
        return Suite(Subject(strategy=strategy, root=tmp_path, **options))  # type: ignore[arg-type]

    return made


def test_a_declared_failure_that_passes_is_a_failure(suite) -> None:  # type: ignore[no-untyped-def]
    verdict = suite(Declaring()).verdict("documented")
    assert verdict.state == "failed"
    assert "declared to fail (nobody reads it), and passes" in verdict.reason


def test_a_declared_failure_is_told_with_its_reason_and_hinders_what_needs_it(suite) -> None:  # type: ignore[no-untyped-def]
    made = suite(MovesTheBase(), fails={"base_untouched": "it has to"})
    assert made.verdict("base_untouched").state == "declared"
    assert made.verdict("base_untouched").reason == "it has to"
    assert made.verdict("float32").state == "not run"
    assert made.verdict("float32").reason == "it needs base_untouched"


def test_an_unknown_declaration_is_refused_with_the_nearest_name(suite) -> None:  # type: ignore[no-untyped-def]
    verdict = suite(Sound(), fails={"paddding": "none"}).verdict("contract")
    assert verdict.state == "failed"
    assert "did you mean padding" in verdict.reason


def test_where_merging_depends_on_the_arguments_merge_itself_says_so(suite) -> None:  # type: ignore[no-untyped-def]
    assert suite(OpenMerging()).subject.can_merge
    assert not suite(OpenSound()).subject.can_merge


def test_a_check_leaves_nothing_behind(suite) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    given = dict(registry._given)
    assert suite(Sound()).verdict("same_seed").state == "passed"
    assert torch.equal(torch.rand(3), expected)
    assert registry._given == given


def test_the_first_family_that_is_not_refused_is_checked_on(suite) -> None:  # type: ignore[no-untyped-def]
    assert suite(Sound()).subject.family == "llama"
    assert suite(Sound(targets=["c_attn"])).subject.family == "gpt2"
    assert suite(Sound(targets=["query"])).subject.family == "bert"


def test_numbers_that_are_not_finite_are_never_alike() -> None:
    assert distance(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")])) == float("inf")
    assert distance(torch.ones(2), torch.ones(3)) == float("inf")
    assert distance(torch.tensor([2.0, 4.0]), torch.tensor([2.0, 3.0])) == 0.25


def test_a_process_that_ends_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryFile() as errors:
        words = [sys.executable, "-c", "raise SystemExit('no room left')"]
        dead = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        dead.wait()
        monkeypatch.setattr(server, "_process", lambda: (dead, errors))
        with pytest.raises(EnvironmentFault, match=r"the process that runs checks ended \(no room left\)"):
            server.call("yaml", Subject(strategy=Sound(), root=tmp_path))
        for pipe in (dead.stdin, dead.stdout):
            with suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


def test_under_pytest_a_failure_has_its_reason_and_the_bug_that_it_stands_for(tmp_path: Path) -> None:
    class Author(StrategyConformance):
        strategy = ForgetsTheHead()

    Author.setup_class()
    try:
        with pytest.raises(pytest.fail.Exception, match=r"(?s)heads: ConfigError: .*left the fresh head.*Without `modules_to_save`"):
            Author().test_conforms("heads")
        with pytest.raises(pytest.skip.Exception, match="not run: it needs heads"):
            Author().test_conforms("encoder")
        Author().test_conforms("applies")
    finally:
        Author.teardown_class()
