"""What the small commands share in reading their arguments."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ftlab.errors import ConfigError


class Arguments(argparse.ArgumentParser):
    """A parser of a command's arguments whose errors are ftlab's."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; `{self.prog} --help` explains its arguments.")


def parser(command: str, about: str) -> Arguments:
    """A parser with what `list` and `describe` both take.

    Args:
        command: Its name.
        about: What it does.
    """
    made = Arguments(prog=f"ftlab {command}", description=about, allow_abbrev=False)
    made.add_argument("--format", choices=("table", "json"), default="table", help="for people or for programs (default: table)")
    made.add_argument("--plugin", action="append", default=[], metavar="FILE.py|MODULE", help="import this and show its classes too")
    return made
