"""One sentence for whatever goes wrong between here and the Hugging Face hub."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pickle import UnpicklingError

from ftlab.errors import CheckpointError, ConfigError, EnvironmentFault, FtlabError

log = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds that a connection to the hub may take."""


def answers() -> bool:
    """Whether the hub answers at all.

    It is asked once, because its own client repeats every request for half a minute, and loading a model makes a dozen.
    """
    from huggingface_hub import constants

    return not constants.is_offline_mode() and _answers(constants.ENDPOINT)


@cache
def _answers(endpoint: str) -> bool:
    from huggingface_hub import utils

    try:
        utils.get_session().head(endpoint, timeout=_PATIENCE)  # type: ignore[attr-defined]  # documented, but not exported
    except Exception as error:
        if not _unreachable(error):
            raise
        log.warning("%s does not answer (%s); only the local cache is used", endpoint, error)
        return False
    return True


@contextmanager
def explained(name: str, what: str) -> Iterator[None]:
    """Turn the exceptions of `transformers`, `datasets` and `huggingface_hub` into ours.

    Args:
        name: Hub id or folder, as configured.
        what: What was wanted, such as `weights`.

    Raises:
        CheckpointError: A file of weights is damaged.
        ConfigError: The repository, revision or file does not exist, is gated, or cannot be read.
        EnvironmentFault: The hub did not answer, or a package is missing.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, SafetensorError, StrictDataclassError, UnpicklingError) as error:
        raise _explanation(error, name, what) from error
    except Exception as error:
        if type(error) is not Exception:  # `tokenizers` raises the bare class
            raise
        raise _explanation(error, name, what) from error


def _explanation(error: Exception, name: str, what: str) -> FtlabError:
    from huggingface_hub import errors as hub
    from safetensors import SafetensorError

    chain = list(_causes(error))
    first = next(iter(str(error).strip().splitlines()), repr(error))
    if any(isinstance(e, hub.GatedRepoError) for e in chain):
        return ConfigError(f"{name}: the hub gives its {what} only on request; accept the licence there and set HF_TOKEN.")
    if any(isinstance(e, hub.RevisionNotFoundError) for e in chain):
        return ConfigError(f"{name}: the hub has no such revision; check the revision's name.")
    if any(isinstance(e, hub.RepositoryNotFoundError) for e in chain):
        return ConfigError(f"{name}: neither a folder here nor a repository on the hub; check the name, or log in if it is private.")
    if any(_unreachable(e) for e in chain):
        return EnvironmentFault(
            f"{name}: the Hugging Face hub cannot be reached and the local cache does not hold its {what}; "
            "check the network, or name a local folder."
        )
    if isinstance(error, ImportError):
        return EnvironmentFault(f"{name}: a package that its {what} needs is not installed: {first}")
    if isinstance(error, SafetensorError | UnpicklingError):
        return CheckpointError(f"{name}: a file of its {what} is damaged ({first}); fetch or write it again.")
    return ConfigError(f"{name}: its {what} cannot be loaded: {first}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unreachable(error: BaseException) -> bool:
    from huggingface_hub import errors as hub

    return isinstance(error, (*_transport_errors(), ConnectionError, TimeoutError, hub.OfflineModeIsEnabled, hub.LocalEntryNotFoundError))


def _transport_errors() -> Iterator[type[BaseException]]:
    """`TransportError` of the HTTP client that the installed huggingface_hub uses: httpx2 from its version 2.4, httpx before."""
    for client in ("httpx2", "httpx"):
        if importlib.util.find_spec(client):
            yield importlib.import_module(client).TransportError
