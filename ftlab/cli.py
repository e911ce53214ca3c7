"""`ftlab fit | validate | test | predict`: LightningCLI with plugins by name, an import policy, and a run folder."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ftlab import checkpoint_io, preflight, registry
from ftlab.callbacks.checkpoints import SaveOptions
from ftlab.callbacks.defaults import run_callbacks
from ftlab.callbacks.jsonl import JsonLinesLogger
from ftlab.callbacks.progress import on_terminal
from ftlab.checkpoint import spec_of
from ftlab.data.datamodule import FinetuneData
from ftlab.errors import ConfigError
from ftlab.folders import sweep
from ftlab.given import Given
from ftlab.half import half_plugin
from ftlab.hardware import check_hardware
from ftlab.lean import NoProfiler
from ftlab.lean_loop import go_lean
from ftlab.lock import locked
from ftlab.loggers import check_loggers, forget_places, place_loggers
from ftlab.module import FinetuneModule
from ftlab.optim.build import tried
from ftlab.parser_errors import refusal
from ftlab.quiet import quiet
from ftlab.ranks import end_ranks
from ftlab.resumed import Resumed
from ftlab.run_folder import RunOptions, discard_if_empty
from ftlab.settings import check_settings

log = logging.getLogger(__name__)

TRAINER_DEFAULTS = {
    "max_epochs": 3,
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": -1,
    "log_every_n_steps": 10,
    "logger": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}
"""Where ftlab differs from Lightning; each can be set, but for the sampler, which the loader replaces.

The check before the fit covers the whole validation split: it is the score of the untuned model.
"""


_RESUME_HELP = (
    "--resume RUN continues a run; --resume auto continues the one that run.name and run.id name, or starts it. With either, "
    "--override-resume KEY lets a key differ from the run's own, and --allow-data-change lets the rows and all under data differ. "
    "--plugin FILE.py | package.module makes your own classes available; --debug shows tracebacks."
)


def restrict_imports() -> None:
    """What a configuration names is imported only where it is a plugin or stands on the allow-list."""
    set_parsing_settings(
        config_read_mode_fsspec_enabled=False,
        validate_subclass_spec_in_any=True,
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*", *preflight.DENIED],
        import_path_allowlist=[*preflight.ALLOWED, *(p.class_path for p in registry.plugins())],
    )


class Parser(LightningArgumentParser):
    """Lightning's parser with exact option names and errors of one sentence."""

    values: Sequence[Given] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of a class's own arguments: what called it adds the key
            super().error(message, ex)
        raise refusal(message, self.values) from ex

    def add_lightning_class_args(  # type: ignore[override]  # of what Lightning takes, ftlab passes classes alone
        self, lightning_class: type, nested_key: str, subclass_mode: bool = False, required: bool = True
    ) -> list[str]:
        """As Lightning's, but no value is the name of a further file, which `preflight` would not have read."""
        trainer = issubclass(lightning_class, Trainer)
        names: list[str] = self.add_class_arguments(
            lightning_class, nested_key, fail_untyped=not trainer, instantiate=not trainer, sub_configs=False
        )
        return names


class FinetuneCLI(LightningCLI):
    """The command line of one command.

    Args:
        command: fit, validate, test or predict.
        arguments: What follows it.
        values: What they and the configuration files set.
        resumed: The run that goes on.
    """

    def __init__(self, command: str, arguments: Sequence[str], values: Sequence[Given], resumed: Resumed | None = None) -> None:
        self.command = command
        self.resumed = resumed
        self.values = values
        self.folder: Path | None = None
        restrict_imports()
        super().__init__(
            FinetuneModule,
            FinetuneData,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=42,
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False},
            args=[command, *arguments],
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # only the parser that is asked for is built
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunOptions, "run")
        parser.add_class_arguments(SaveOptions, "save")
        parser.set_defaults({"seed_everything": 42})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        for each in (parser, self._subcommand_parsers[self.command]):
            assert isinstance(each, Parser)
            each.values = self.values
        if self.command == "fit":
            self._subcommand_parsers["fit"].epilog = _RESUME_HELP
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: what a checkpoint says about its run is verified, never merged into the configuration."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.command]
        check_settings(self.command, config)
        check_hardware(config.trainer)
        self.folder = self.resumed.folder if self.resumed else self._run_options().folder(self._default_name())
        check_loggers(config.trainer)
        place_loggers(config.trainer, self.folder, self._run_options())

    def _run_options(self) -> RunOptions:
        return RunOptions(**self.config[self.command].run.as_dict())

    def _default_name(self) -> str:
        named = [v.value for v in self.values if v.key in ("config", "c")]
        files = [v.origin for v in self.values if v.origin != "command line"] or named
        return Path(str(files[-1])).stem if files else self.command

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # LightningCLI's signature
        assert self.folder is not None
        if self.model.optimizer is not None:
            tried(self.model.optimizer)  # before any data is read
        config = self.config_init[self.command].trainer
        logger = JsonLinesLogger(self.folder / "metrics.jsonl")
        if config.logger is True:
            raise ConfigError("trainer.logger is true; name a logger such as TensorBoardLogger (metrics.jsonl is always written).")
        others = config.logger if isinstance(config.logger, list) else [config.logger] if config.logger else []
        save = SaveOptions(**self.config[self.command].save.as_dict())
        callbacks = run_callbacks(self.folder, self.complete_config, self._run_options(), save, config)
        plugins = config.plugins if isinstance(config.plugins, list) else [config.plugins] if config.plugins else []
        extra: dict[str, Any] = {
            "logger": [*others, logger], "default_root_dir": str(self.folder), "plugins": [*plugins, checkpoint_io.VerifiedCheckpointIO()],
        }  # fmt: skip
        if not config.profiler:
            extra["profiler"] = NoProfiler()
        half = half_plugin(config.precision)
        if half is not None:
            extra |= {"plugins": [*extra["plugins"], half], "precision": None}
        if not on_terminal():
            extra["enable_progress_bar"] = False  # ours writes lines; Lightning would add its own
        trainer_config = {**config, **extra, **kwargs}
        try:
            trainer = self._instantiate_trainer(trainer_config, callbacks)
        except (MisconfigurationException, ValueError) as error:  # ValueError: the name of an accelerator or strategy
            raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
        if not config.profiler:  # which would have to see every part of a step
            go_lean(trainer)
        return trainer

    def complete_config(self) -> dict[str, Any]:
        """The configuration with every default and what the data decided, as plain types."""
        parser = self._subcommand_parsers[self.command]
        text = parser.dump(self.config[self.command], skip_none=False, skip_check=True)
        config: dict[str, Any] = yaml.safe_load(text)
        config["model"]["task"] = spec_of(self.model.task)
        assert self.folder is not None
        forget_places(config["trainer"], self.folder, self._run_options())
        config["run"]["name"], config["run"]["id"] = self.folder.parent.name, None
        for key in ("config", "ckpt_path", "verbose", "return_predictions"):
            config.pop(key, None)
        return config

    def _run_subcommand(self, subcommand: str) -> None:
        assert self.folder is not None
        first = self.trainer.is_global_zero
        with locked(self.folder) if first else nullcontext():
            if first:
                sweep(self.folder)
            try:
                super()._run_subcommand(subcommand)
            except BaseException as error:
                end_ranks(self.trainer, error)
                raise

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "fit" and self.resumed is not None:
            self.model.may_differ = self.resumed.may_differ
            kwargs["ckpt_path"] = self._continue_from(self.resumed.folder)
        if subcommand == "predict":
            kwargs["return_predictions"] = False  # the writer has them
        if subcommand in ("validate", "test"):
            kwargs["verbose"] = False  # the report prints them
        return kwargs

    def _continue_from(self, folder: Path) -> str | None:
        """The newest whole checkpoint of the run, and its metrics up to there."""
        path = checkpoint_io.newest(folder / "checkpoints")
        if self.trainer.is_global_zero:
            checkpoint_io.clean(folder / "checkpoints")
        if path is None:
            log.warning("%s has no checkpoint yet; the run starts over", folder)
            JsonLinesLogger(folder / "metrics.jsonl").rewind(0)
            return None
        step = checkpoint_io.Manifest.read(path.parent).files[path.name].step
        JsonLinesLogger(folder / "metrics.jsonl").rewind(step)
        log.info("continuing %s after step %d", folder, step)
        return str(path)


def run(command: str, arguments: Sequence[str], words: Sequence[str], values: Sequence[Given], resumed: Resumed | None = None) -> int:
    """Run a command of Lightning's trainer.

    Args:
        command: fit, validate, test or predict.
        arguments: What the user wrote after it.
        words: The same without `--plugin`.
        values: What `given` found in them; checked by `preflight`.
        resumed: The run that goes on.

    Returns:
        The exit code.
    """
    quiet()
    gc.enable()
    gc.freeze()  # what is imported stays; collections look at the rest
    sys.argv = [sys.argv[0], command, *arguments]  # Lightning starts further ranks with it
    folder = os.environ.get("FTLAB_RUN_FOLDER")
    if resumed is not None:
        os.environ["FTLAB_RUN_FOLDER"] = str(resumed.folder)
    try:
        FinetuneCLI(command, words, values, resumed)
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    finally:
        made = os.environ.get("FTLAB_RUN_FOLDER")
        if made and not folder:
            discard_if_empty(Path(made))
            del os.environ["FTLAB_RUN_FOLDER"]
    return 0
