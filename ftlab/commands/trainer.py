"""`ftlab fit | validate | test | predict`: names are checked first, in a fraction of a second; then torch is imported."""

from __future__ import annotations

import gc

from ftlab import preflight, registry
from ftlab.given import given, take


def run(name: str, arguments: list[str]) -> int:
    """Check the configuration, then run a command of Lightning's trainer.

    Args:
        name: fit, validate, test or predict.
        arguments: What follows it.

    Returns:
        The exit code.
    """
    # Imports make a million objects, none of them garbage; looking for some costs a second.
    gc.disable()
    try:
        return _run(name, arguments)
    finally:
        gc.enable()


def _run(name: str, arguments: list[str]) -> int:
    words, targets = take(arguments, "--plugin")
    values = given(words)
    for target in targets:
        registry.use(target)
    named = preflight.check(values, name)
    from ftlab import cli  # imports torch, which no error above has waited for

    for plugin in named:
        registry.load(plugin)
    return cli.run(name, arguments, words, values)
