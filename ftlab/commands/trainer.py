"""`ftlab fit | validate | test | predict`: names are checked first, in a fraction of a second; then torch is imported."""

from __future__ import annotations

import gc

from ftlab import preflight, registry
from ftlab.commands import resume
from ftlab.given import given, take
from ftlab.signals import leaving


def run(name: str, arguments: list[str]) -> int:
    """Check the configuration, then run a command of Lightning's trainer: fit, validate, test or predict."""
    # Imports make a million objects, none of them garbage; looking for some costs a second.
    gc.disable()
    try:
        with leaving():
            return _run(name, arguments)
    finally:
        gc.enable()


def _run(name: str, arguments: list[str]) -> int:
    words, targets = take(arguments, "--plugin")
    for target in targets:
        registry.use(target)
    words, resumed = resume.apply(words) if name == "fit" else (words, None)
    if resumed is not None and resume.complete(resumed.folder, words):
        print(f"{resumed.folder} is already complete; raise trainer.max_steps or trainer.max_epochs to go on.")
        return 0
    values = given(words)
    named = preflight.check(values, name)
    from ftlab import cli  # imports torch, which no error above has waited for

    for plugin in named:
        registry.load(plugin)
    return cli.run(name, arguments, words, values, resumed)
