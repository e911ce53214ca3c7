"""Whether the study in a storage is the one that is asked for, and the study as run in its folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from ftlab import strict_yaml
from ftlab.errors import ConfigError
from ftlab.folders import try_writing
from ftlab.run_folder import write_text
from ftlab.studies.attempts import PLAN
from ftlab.studies.changes import Change, check_same, code_of
from ftlab.studies.space import trials_of
from ftlab.studies.spec import StudySpec, parse, restored
from ftlab.studies.storage import Store, fail_stale, jsonable
from ftlab.studies.taking import shown
from ftlab.studies.variants import variants

STUDY, BASE = "study.yaml", "base.yaml"
"""The study as run, and the configuration that its runs start from."""
_ATTRIBUTE = "ftlab"


class _Plain(yaml.SafeDumper):
    """Writes every value out; study files are read without aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def settle(store: Store, spec: StudySpec, folder: Path, extend: bool) -> StudySpec:
    """Make the study, or check that the stored one is the same, and keep study and base in its folder.

    Args:
        store: The storage.
        spec: What is asked.
        folder: The study's folder.
        extend: Whether it may have more variants and seeds than before.

    Returns:
        The study with the base that was kept, which nobody edits while it runs, and the code of its plugins, which somebody may.

    Raises:
        ConfigError: It is another study, or asks for more without `extend`.
        StorageError: The folder cannot be written.
    """
    check_folder(spec, folder)
    code = code_of(spec.plugins)
    spec = replace(spec, code=code)
    for name in store.names(spec.name):
        store.patiently(fail_stale, store.study(name, spec.direction))
    changed = check(store, spec, extend)
    if any(change.scores for change in changed):
        _direct(store, spec)
    compared = store.study(f"{spec.name}/seeds", spec.direction)
    asked = jsonable({"document": spec.document, "base": spec.base_content, "plugins": code})
    if compared.user_attrs.get(_ATTRIBUTE) != asked:
        store.patiently(compared.set_user_attr, _ATTRIBUTE, asked)
    return replace(keep(spec, folder), code=code)


def check(store: Store, spec: StudySpec, extend: bool) -> list[Change]:
    """Compare a study with the one in a storage, which is only read.

    Args:
        store: The storage; it may hold none of this name.
        spec: What is asked.
        extend: Whether it may have more variants and seeds than before.

    Returns:
        What has changed.

    Raises:
        ConfigError: It is another study, or asks for more without `extend`.
    """
    numbers = {name: store.patiently(store.rdb.get_study_id_from_name, name) for name in store.names(spec.name)}
    compared = f"{spec.name}/seeds"
    stored = store.patiently(store.rdb.get_study_user_attrs, numbers[compared]).get(_ATTRIBUTE) if compared in numbers else None
    if stored is None:
        return []
    trials = {name: store.patiently(partial(store.rdb.get_all_trials, number, deepcopy=False)) for name, number in numbers.items()}
    scored = any(trial.state.name in ("COMPLETE", "PRUNED", "RUNNING") for found in trials.values() for trial in found)
    before = restored(stored["document"], stored["base"], stored.get("plugins", code_of(spec.plugins)))  # former versions kept none
    changed = check_same(before, spec, extend, scored)
    _check_tuned(before, spec, {trial.user_attrs[PLAN]["variant"] for trial in trials[compared]})
    return changed


def _direct(store: Store, spec: StudySpec) -> None:
    """Give Optuna's studies the direction, by which pruners judge; Optuna cannot change one, so they are made anew with their trials."""
    import optuna

    for name in store.names(spec.name):
        study = store.study(name, spec.direction)
        if study.direction.name.lower() != spec.direction:
            trials = store.patiently(study.get_trials)
            store.patiently(partial(optuna.delete_study, study_name=name, storage=store.rdb))
            store.patiently(store.study(name, spec.direction).add_trials, trials)


def keep(spec: StudySpec, folder: Path) -> StudySpec:
    """Write a study into its folder, so that a later edit of the user's files does not change what runs.

    Args:
        spec: The study.
        folder: Its folder; made where it is not there.

    Returns:
        The same study, whose base is the copy.

    Raises:
        StorageError: The folder cannot be written.
    """
    try_writing(folder)
    options = "".join(f" --plugin {shlex.quote(target)}" for target in spec.plugins)
    write_text(folder / BASE, _text(spec.base_content))
    write_text(folder / STUDY, f"# ftlab ablate --config {STUDY}{options}\n{_text({**spec.document, 'base': BASE})}")
    return parse(folder / STUDY, spec.plugins)


def _text(content: Mapping[str, object]) -> str:
    return yaml.dump(dict(content), Dumper=_Plain, sort_keys=False, allow_unicode=True)


def check_folder(spec: StudySpec, folder: Path) -> None:
    """Refuse a folder that another study has.

    Raises:
        ConfigError: It has one.
    """
    path = folder / STUDY
    name = strict_yaml.read(path).get("name") if path.is_file() else spec.name
    if name != spec.name:
        raise ConfigError(f"{folder} holds the study {shown(name)}, not {spec.name}; choose another folder, or remove this one.")


def _check_tuned(before: StudySpec, now: StudySpec, begun: set[str]) -> None:
    """Refuse more tuning for what has been compared with what the tuning chose."""
    old = {v.name: trials_of(before, v) for v in variants(before)}
    for v in variants(now):
        if v.name in begun and trials_of(now, v) != old.get(v.name):
            raise ConfigError(
                f"{v.name} was tuned with {old.get(v.name)} trials and has been compared, and {trials_of(now, v)} might choose otherwise; "
                "undo it, or choose a new name."
            )
