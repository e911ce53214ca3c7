"""The parser that a command builds, without running the command."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from ftlab.cli import FinetuneCLI


class _Built(Exception):  # noqa: N818  # a way out, not an error
    pass


class _OnlyBuilt(FinetuneCLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        raise _Built(self._subcommand_parsers[self.command])


def built(command: str) -> LightningArgumentParser:
    try:
        _OnlyBuilt(command, [], [])
    except _Built as done:
        parser = done.args[0]
        assert isinstance(parser, LightningArgumentParser)
        return parser
    raise AssertionError("the parser was not built")
