"""The entry point: choose a command, turn errors into one sentence and an exit code. Nothing here imports torch."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import ftlab
from ftlab.errors import ConfigError, FtlabError, suggest
from ftlab.signals import StoppedEarly

COMMANDS = {
    "fit": ("ftlab.commands.trainer", "Tune a model on the training split and validate it."),
    "validate": ("ftlab.commands.trainer", "Loss and metrics on the validation split."),
    "test": ("ftlab.commands.trainer", "Loss and metrics on the test split."),
    "predict": ("ftlab.commands.trainer", "Write a prediction for every row of a split."),
    "export": ("ftlab.commands.export", "Write a run's model so that it opens without ftlab, and prove that it is the same."),
    "ablate": ("ftlab.commands.ablate", "Run a study: variants, seeds and tuning, with everything recorded."),
    "report": ("ftlab.commands.report", "Write tables, figures and a page of a study."),
    "verify": ("ftlab.commands.verify", "Prove that a killed and resumed run is the uninterrupted one."),
    "sweep": ("ftlab.commands.sweep", "Write a study as a W&B sweep whose agent calls `ftlab fit`."),
    "list": ("ftlab.commands.list", "The strategies, tasks and data sources that a configuration may name."),
    "check": ("ftlab.commands.check", "Measure on tiny models whether a strategy, task or data source keeps its contract."),
    "new": ("ftlab.commands.new", "Write a package with a strategy, task or data source that passes its own tests."),
    "describe": ("ftlab.commands.describe", "Fields, types, defaults and paper of one of them, or what a run changed."),
}
"""Command → (module with `run(name, arguments)`, what it does)."""

_INTERRUPTED = 130
_PIPE_CLOSED = 141
"""What a shell reports for a program whose reader went away."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows `ftlab`; None takes the process's own.

    Returns:
        The exit code: 0 done, 2 configuration, 3 data, 4 checkpoint, 5 numerics, 6 environment, 7 security, 8 storage,
        130 interrupted, 1 a bug of ftlab.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = _answer([w for w in words if w != "--debug"], "--debug" in words)
    ranks = sys.modules.get("ftlab.ranks")  # not imported: no ranks, and no torch either
    if ranks is not None and not ranks.leave_group():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _answer(words: list[str], debug: bool) -> int:
    try:
        code = _dispatch(words)
        sys.stdout.flush()  # a reader that went away shows here, and not while the interpreter ends
        return code
    except SystemExit as leave:  # a parser has printed its help, or Lightning has been interrupted
        if isinstance(leave.__context__, KeyboardInterrupt):
            return _interrupted()
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except KeyboardInterrupt:
        return _interrupted()
    except StoppedEarly as stop:
        print(f"ftlab: {stop}.", file=sys.stderr)
        return stop.exit_code
    except BrokenPipeError:  # `ftlab list | head`; the interpreter would complain again when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except Exception as error:
        return _report(error, debug)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version", "version"):
        print(f"ftlab {ftlab.__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        raise ConfigError(f"ftlab has no command '{name}'; {suggest(name, COMMANDS)}")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("ftlab").setLevel(logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.ERROR)
    command = importlib.import_module(COMMANDS[name][0])
    return int(command.run(name, words[1:]))


def usage() -> str:
    """What `ftlab --help` prints."""
    rows = "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())
    return (
        f"ftlab {ftlab.__version__}: compare ways of fine-tuning Hugging Face models.\n\n"
        f"usage: ftlab COMMAND [options]\n\n{rows}\n\n"
        "  ftlab COMMAND --help explains a command; --version and --help stand alone.\n"
        "  fit --resume RUN continues a run; `ftlab fit --help` ends with what may differ.\n"
        "  --plugin FILE.py | package.module makes your own classes available; --debug shows tracebacks.\n\n"
        "example: ftlab fit --config experiments/quickstart.yaml --model.tuning LoRA --model.tuning.r 16"
    )


def _interrupted() -> int:
    print("ftlab: interrupted.", file=sys.stderr)
    return _INTERRUPTED


def _report(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    if isinstance(error, FtlabError) and error.on_all_ranks and os.environ.get("LOCAL_RANK", "0") != "0":
        return error.exit_code
    if isinstance(error, FtlabError):
        details = getattr(error, "details", "")
        print(f"{details}ftlab: error: {error}", file=sys.stderr)
        return error.exit_code
    first = (str(error).strip() or "no message").splitlines()[0]
    print(f"ftlab: bug or unexpected fault: {type(error).__name__}: {first[:500]}", file=sys.stderr)
    print("Run again with --debug for the traceback.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
