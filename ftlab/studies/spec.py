"""What a study asks for: `study.yaml` as one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ftlab.studies.canonical import digest_of

DECLARED = "declared"
"""`space: declared` takes the space that the strategy's class declares."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One value of a factor.

    Args:
        label: What a person calls it, such as `LoRA`, `16` or `small`.
        word: The same within the name of a variant, where a bare number would say nothing: `r16`.
        settings: Dotted key → value.
    """

    label: str
    word: str
    settings: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What is varied.

    Args:
        name: A dotted key, a free name, or `knockout`.
        levels: At least two.
    """

    name: str
    levels: tuple[Level, ...]


@dataclass(frozen=True, kw_only=True)
class Skip:
    """Combinations that are left out.

    Args:
        levels: Factor → label of its level; factors that are not named may have any.
        why: The reason.
    """

    levels: Mapping[str, str]
    why: str


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One key of a search space.

    Args:
        kind: log_uniform and uniform draw numbers, int whole ones, choice one of `choices`.
        low: The smallest number.
        high: The largest, which can be drawn.
        choices: What choice draws from.
    """

    kind: Literal["log_uniform", "uniform", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[object, ...] = ()


Space = Mapping[str, Dimension] | Literal["declared"]
"""Dotted key → what is drawn for it, or that the strategy's class says so."""


@dataclass(frozen=True, kw_only=True)
class PerVariant:
    """Where a variant or a level is tuned otherwise.

    Args:
        trials: None for as many as the others.
        space: None for that of the others; keys of a mapping replace or join theirs.
    """

    trials: int | None = None
    space: Space | None = None


@dataclass(frozen=True, kw_only=True)
class Tune:
    """The search for each variant's hyper-parameters, before its seeds run.

    Args:
        trials: For each variant.
        space: What is searched.
        per: Name of a variant or label of a level → what differs there.
        seed: Of the sampler and of the runs; none of the study's seeds, so that nothing is tuned on what is compared.
    """

    trials: int
    space: Space
    per: Mapping[str, PerVariant] = field(default_factory=dict)
    seed: int


@dataclass(frozen=True, kw_only=True)
class Stop:
    """What ends a hopeless trial early.

    Args:
        pruner: asha is Optuna's `SuccessiveHalvingPruner`, median its `MedianPruner`.
        options: That class's arguments.
    """

    pruner: Literal["asha", "median"]
    options: Mapping[str, int | str]


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A study.

    Args:
        name: Of the study and its folder.
        base: The configuration that all runs start from; an absolute path.
        base_content: What stands in it.
        document: What stands in the study file.
        factors: What is varied, the parts of `knockout` among it.
        seeds: `seed_everything` of the runs that are compared.
        metric: Name of a logged figure.
        direction: Which of its values are better.
        plugins: What `--plugin` named; never from the file.
        code: Name of each plugin → hash of its file, as a storage kept it; None for what the files hold now.
        skip: Combinations that are left out.
        zip: Groups of factors that advance together.
        tune: The search before the comparison.
        stop: The pruner.
        knockout: The key whose parts are left out in turn; its variants are levels of the factor `knockout`.
        cache_features: Hidden states below what is trained are computed once per row.
        retries: How often a trial that crashed is started again.
        timeout_minutes: How long a trial may take.
        set: Dotted key → value, for all runs.
    """

    name: str
    base: Path
    base_content: dict[str, Any]
    document: dict[str, Any]
    factors: tuple[Factor, ...]
    seeds: tuple[int, ...]
    metric: str = "val_loss"
    direction: Literal["minimize", "maximize"] = "minimize"
    plugins: tuple[str, ...] = ()
    code: Mapping[str, str] | None = None
    skip: tuple[Skip, ...] = ()
    zip: tuple[tuple[str, ...], ...] = ()
    tune: Tune | None = None
    stop: Stop | None = None
    knockout: str | None = None
    cache_features: bool = False
    retries: int = 1
    timeout_minutes: float | None = None
    set: Mapping[str, object] = field(default_factory=dict)

    def digest(self) -> str:
        """A hash of what is asked; where files lie and the order of keys are no part of it."""
        asked = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("base", "document")}
        return digest_of(plain_of(asked))


def plain_of(value: object) -> object:
    """Dataclasses as mappings, whatever holds them."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain_of(asdict(value))
    if isinstance(value, Mapping):
        return {k: plain_of(v) for k, v in value.items()}
    return [plain_of(v) for v in value] if isinstance(value, list | tuple) else value


def parse(path: Path, plugins: tuple[str, ...] = ()) -> StudySpec:
    """Read a study file.

    Args:
        path: The YAML.
        plugins: What `--plugin` named on the command line.

    Raises:
        ConfigError: Names the key, what it was, what is allowed.
    """
    from ftlab.studies.parsing import parsed  # it needs the classes above

    return parsed(path, plugins)


def restored(document: dict[str, Any], base_content: dict[str, Any], code: Mapping[str, str] | None = None) -> StudySpec:
    """A study from what `document`, `base_content` and the code of a former one were, such as a storage keeps; its base lies nowhere."""
    from ftlab.studies.parsing import understood

    return replace(understood(document, Path("base.yaml"), base_content), code=code)
