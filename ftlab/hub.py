"""One sentence for whatever goes wrong between here and the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ftlab.errors import ConfigError, EnvironmentFault


@contextmanager
def explained(name: str, what: str) -> Iterator[None]:
    """Turn the exceptions of `transformers`, `datasets` and `huggingface_hub` into ours.

    Args:
        name: Hub id or folder, as configured.
        what: What was wanted, such as `weights`.

    Raises:
        ConfigError: The repository, revision or file does not exist, is gated, or cannot be read.
        EnvironmentFault: The hub did not answer.
    """
    from huggingface_hub import errors as hub

    try:
        yield
    except (OSError, ValueError, ImportError, KeyError) as error:
        chain = list(_causes(error))
        if any(isinstance(e, hub.GatedRepoError) for e in chain):
            raise ConfigError(f"{name}: its {what} are gated; accept the licence on the hub and set HF_TOKEN.") from error
        if any(isinstance(e, hub.RevisionNotFoundError) for e in chain):
            raise ConfigError(f"{name}: the hub has no such revision; check the revision's name.") from error
        if any(isinstance(e, hub.RepositoryNotFoundError) for e in chain):
            raise ConfigError(f"{name}: neither a folder here nor a repository on the hub; check the name, or log in if it is private.") from error
        if any(_unreachable(e) for e in chain):
            raise EnvironmentFault(
                f"{name}: the Hugging Face hub cannot be reached and its {what} are not in the local cache; "
                "check the network, or name a local folder."
            ) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ConfigError(f"{name}: its {what} cannot be loaded: {first}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unreachable(error: BaseException) -> bool:
    import httpx
    from huggingface_hub import errors as hub

    return isinstance(error, httpx.TransportError | ConnectionError | TimeoutError | hub.OfflineModeIsEnabled | hub.LocalEntryNotFoundError)
