"""Every setting of a study, put before what `ftlab fit` puts it before, without loading a model or reading data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab import preflight, registry
from ftlab.errors import ConfigError
from ftlab.given import COMMAND_LINE, SLOTS, Given, given, take
from ftlab.keys import CLASS_KEYS
from ftlab.studies.canonical import digest_of, plain
from ftlab.studies.space import chosen, space_of
from ftlab.studies.spec import DECLARED, Dimension, StudySpec, plain_of
from ftlab.studies.taking import told
from ftlab.studies.variants import Variant
from ftlab.studies.words import words

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

_NOT_THE_RUN = ("seed_everything", "run", "config")
"""Keys in which the same run may differ from itself."""


def check_names(spec: StudySpec, found: list[Variant]) -> None:
    """Check every key and class that the study names; imports no torch.

    Raises:
        FtlabError: Of the kind that `ftlab fit` would raise, with the variant's name and levels.
    """
    with told(f"base {spec.base.name}"):
        preflight.check(given(["--config", str(spec.base)]), "fit")
    for variant in found:
        with told(place(variant)):
            for tuned in _draws(_written(spec, variant)):
                values = _values(spec, variant, tuned)[1]
                preflight.check(values, "fit")
                _check_owners(values)


def _check_owners(values: list[Given]) -> None:
    """Refuse an argument of a class that nothing names."""
    named = {plain(item.key) for item in values if item.value is not None}
    for item in values:
        owner = next((key for key in CLASS_KEYS if item.key.startswith(f"{key}.")), None)
        if owner is not None and owner not in named:
            raise ConfigError(f"{item.key} is set, and nothing names {owner}; name its class in the base, or below set.")


def _written(spec: StudySpec, variant: Variant) -> dict[str, Dimension]:
    """What is searched for a variant, as far as the study file says it."""
    spaces = [spec.tune.space, *(per.space for per in spec.tune.per.values())] if spec.tune else []
    return {} if DECLARED in spaces else space_of(spec, variant)


def check_values(spec: StudySpec, found: list[Variant]) -> dict[str, Any]:
    """Parse every variant as `ftlab fit` does, with the ends of what is searched, and make its small objects.

    Returns:
        Variant → its parsed configuration.

    Raises:
        FtlabError: As `check_names`; also where two variants are the same run.
    """
    from ftlab.callbacks.features import require_same_rows
    from ftlab.settings import check_settings

    parser = _parser()
    configs: dict[str, Any] = {}
    known: dict[str, str] = {}
    for variant in found:
        with told(place(variant)):
            space = space_of(spec, variant)
            parsed: list[object] = []
            for tuned in _draws(space):
                arguments, values = _values(spec, variant, tuned)
                for plugin in preflight.check(values, "fit"):
                    registry.load(plugin)
                _check_owners(values)  # once more: what a class declares is known only now
                parser.values = values
                configs[variant.name] = config = parser.parse_args(arguments)
                check_settings("fit", config)
                model = _make(parser, config.clone())
                if spec.cache_features:
                    require_same_rows(model.task, model.tuning)
                parsed.append(repr([(k, v) for k, v in sorted(config.as_dict().items()) if k not in _NOT_THE_RUN]))
            key = digest_of([parsed, plain_of(space)])  # one that is searched is not the one that lies at an end of what is searched
            if known.setdefault(key, variant.name) != variant.name:
                raise ConfigError(f"its settings give the run that {known[key]} is; remove one of them, or change what they set.")
    return configs


def _make(parser: Any, config: Any) -> Any:
    """The model, and the other objects whose own checks are part of their contract; loggers would open their files."""
    config.trainer.logger = False
    return parser.instantiate(config).model


def _values(spec: StudySpec, variant: Variant, tuned: Mapping[str, object]) -> tuple[list[str], list[Given]]:
    arguments, _ = take(words(spec, variant, spec.seeds[0], tuned, Path(spec.name))[1:], "--plugin")
    return arguments, [_from_study(item) for item in given(arguments)]


def _from_study(item: Given) -> Given:
    slot = any(item.key == s or item.key.startswith(f"{s}.") for s in SLOTS)  # there an option may leave out init_args
    return replace(item, origin="the study") if item.origin == COMMAND_LINE and not slot else item


def _draws(space: Mapping[str, Dimension]) -> Iterator[dict[str, object]]:
    """The ends of every range and all choices, in as few settings as that takes; one without any where nothing is searched."""
    count = max((max(2, len(d.choices)) for d in space.values()), default=1)
    for number in range(count):
        yield {leaf: value for key, d in space.items() for leaf, value in _drawn(key, d, number).items()}


def _drawn(key: str, of: Dimension, number: int) -> dict[str, object]:
    if of.kind == "choice":
        return chosen(key, of.choices[number % len(of.choices)])
    return {key: of.high if number else of.low}


def _parser() -> Any:
    from ftlab.cli import FinetuneCLI
    from ftlab.quiet import quiet

    quiet()

    class Built(Exception):  # noqa: N818  # a way out, not an error
        """The parser is there; nothing is to be parsed yet."""

    class OnlyBuilt(FinetuneCLI):
        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            raise Built(self._subcommand_parsers["fit"])

    try:
        OnlyBuilt("fit", [], [])
    except Built as built:
        return built.args[0]
    raise AssertionError("a parser is built before anything is parsed")


def place(variant: Variant) -> str:
    """A variant and its levels, as an error names them."""
    levels = ", ".join(f"{name}: {label}" for name, label in variant.levels.items())
    return f"variant {variant.name} ({levels})" if levels else f"variant {variant.name}"
