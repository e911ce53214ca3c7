"""Pruners: what ends a hopeless trial of tuning before its last step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlab.errors import ConfigError
from ftlab.studies.spec import Stop
from ftlab.studies.taking import at_least, mapping, only, shown, typed

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

LEAST = {
    "asha": {"min_resource": 1, "reduction_factor": 2, "min_early_stopping_rate": 0, "bootstrap_count": 0},
    "median": {"n_startup_trials": 0, "n_warmup_steps": 0, "interval_steps": 1, "n_min_trials": 1},
}
"""Pruner → its options, with the smallest value of each."""


def parsed_stop(value: object) -> Stop:
    """The pruner that a study file names.

    Raises:
        ConfigError: It is none of them, or an option is wrong.
    """
    entry = {value: None} if isinstance(value, str) else mapping(value, "stop")
    only(entry, LEAST, "stop")
    if len(entry) != 1:
        raise ConfigError(f"stop names {' and '.join(entry)}; choose one of them.")
    [(name, options)] = entry.items()
    where = f"stop.{name}"
    given = typed({} if options is None else options, dict, where)
    only(given, LEAST[name], where)
    taken: dict[str, int | str] = {}
    for key, each in given.items():
        automatic = key == "min_resource" and each == "auto"
        taken[key] = "auto" if automatic else at_least(typed(each, int, f"{where}.{key}"), LEAST[name][key], f"{where}.{key}")
    if taken.get("bootstrap_count") and taken.get("min_resource", "auto") == "auto":
        raise ConfigError(f"{where}.bootstrap_count is {shown(taken['bootstrap_count'])}, which needs min_resource as a number; set it.")
    return Stop(pruner="asha" if name == "asha" else "median", options=taken)


def pruner(stop: Stop | None) -> BasePruner:
    """Optuna's pruner; one that ends nothing where the study names none."""
    from optuna import pruners

    if stop is None:
        return pruners.NopPruner()
    made: dict[str, type[BasePruner]] = {"asha": pruners.SuccessiveHalvingPruner, "median": pruners.MedianPruner}
    return made[stop.pruner](**stop.options)
