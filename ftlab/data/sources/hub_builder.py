"""The `datasets` library as `HubDataset` uses it: which builder, which splits, and one sentence for what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ftlab.errors import ConfigError, DataError, EnvironmentFault
from ftlab.hub import explained

if TYPE_CHECKING:
    from datasets import DatasetBuilder


def open_builder(path: str, name: str | None, revision: str | None) -> DatasetBuilder:
    """The builder of a hub dataset or local folder; its `hash` is the commit where it is from the hub.

    Raises:
        ConfigError: The dataset has several configurations and `name` is none of them.
        EnvironmentFault: The hub does not answer, and the local cache has another revision.
    """
    import datasets

    try:
        builder = datasets.load_dataset_builder(_location(path), name, revision=revision)
    except ValueError as error:
        # The library's own sentence names the configurations on a later line, which `explained` cuts off.
        known = datasets.get_dataset_config_names(_location(path), revision=revision)
        if name in known:
            raise
        was = "not set" if name is None else f"'{name}'"
        raise ConfigError(f"{path}: name is {was}; set it to one of the dataset's configurations: {', '.join(known)}.") from error
    _check_revision(builder, path, revision)
    return builder


def split_names(builder: DatasetBuilder, path: str, name: str | None, revision: str | None) -> tuple[str, ...]:
    """The names of a dataset's splits, without reading its rows where the dataset says them itself."""
    import datasets

    if builder.info.splits:
        return tuple(map(str, builder.info.splits))
    return tuple(datasets.get_dataset_split_names(_location(path), name, revision=revision))


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what the library raises into ours.

    Raises:
        ConfigError: The hub has no such dataset or revision, or does not give it to this user.
        DataError: The dataset's files are missing or broken, or it would run code.
        EnvironmentFault: The hub does not answer.
    """
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetBuildError, DatasetNotFoundError

    with explained(path, "rows"):
        try:
            yield
        # The library cuts this error off from its cause, so that `explained` cannot tell a gated dataset from a missing one.
        except DatasetNotFoundError as error:
            advice = "check path and revision, and set HF_TOKEN if it is private or gated"
            raise ConfigError(f"{path}: the hub does not give it ({_first_line(error)}); {advice}.") from error
        # RuntimeError is how the library refuses datasets that would run code.
        except (DatasetBuildError, DataFilesNotFoundError, EmptyDatasetError, RuntimeError) as error:
            raise DataError(f"{path}: its rows cannot be read ({_root(error)}); mend the data, or name another dataset.") from error


def _root(error: BaseException) -> str:
    """What an error began with, where the library only says that something went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")


def _location(path: str) -> str:
    # Absolute, because a folder called text or csv would be taken for a reader of the library.
    return os.path.abspath(path) if os.path.isdir(path) else path


def _check_revision(builder: DatasetBuilder, path: str, revision: str | None) -> None:
    from datasets.packaged_modules.cache.cache import Cache

    # Where the hub does not answer, the library takes the newest commit in its cache, whatever revision was asked for.
    if isinstance(builder, Cache) and revision not in (None, builder.hash):
        raise EnvironmentFault(
            f"{path}: the Hugging Face hub cannot be reached and the local cache holds commit {builder.hash}, "
            f"not revision '{revision}'; check the network, or set revision to that commit."
        )
