"""The keys that a command knows, read from source text so that a wrong one is found before torch is imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ftlab import source
from ftlab.given import SLOTS

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
SECTIONS = {
    "model": "ftlab.module.FinetuneModule",
    "data": "ftlab.data.datamodule.FinetuneData",
    "run": "ftlab.run_folder.RunOptions",
    "save": "ftlab.callbacks.checkpoints.SaveOptions",
    "trainer": TRAINER,
}
"""First word of a key → the class whose arguments follow."""

CLASS_KEYS = {
    "model.metrics": "",
    "model.optimizer": "torch.optim",
    "trainer.accelerator": "",
    "trainer.callbacks": "lightning.pytorch.callbacks",
    "trainer.logger": "lightning.pytorch.loggers",
    "trainer.plugins": "",
    "trainer.profiler": "",
    "trainer.strategy": "",
}
"""Keys whose values name classes → the package whose classes have short names there; empty where a plain word is not a class."""

_GENERAL = {"c": False, "config": False, "h": True, "help": True, "print_config": True, "seed_everything": False}
_NOT_OPTIONS = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
"""Arguments of the trainer's methods that ftlab passes itself."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What a command accepts.

    Args:
        leaves: Key → whether null is one of its values.
    """

    leaves: dict[str, bool]

    def owner(self, key: str) -> str | None:
        """The known key that `key` is or lies within, such as `trainer.logger` of `trainer.logger.save_dir`."""
        parts = key.split(".")
        return next((k for i in range(len(parts), 0, -1) if (k := ".".join(parts[:i])) in self.leaves), None)

    def below(self, key: str) -> list[str]:
        """The names that may follow `key` and a dot; all first words for an empty key."""
        start = f"{key}." if key else ""
        return sorted({k[len(start) :].partition(".")[0] for k in self.leaves if k.startswith(start)})


def known(command: str) -> Keys:
    """The keys of fit, validate, test or predict.

    Raises:
        UnreadableError: The source of Lightning or of ftlab is not installed.
    """
    leaves = dict(_GENERAL)
    for section, path in SECTIONS.items():
        leaves.update(_leaves(section, path))
    leaves.update({name: True for name in source.arguments(TRAINER, command) if name not in _NOT_OPTIONS})
    return Keys(leaves=leaves)


def parameter(key: str) -> source.Parameter | None:
    """What the source says about a key below the sections; None where it is none of their arguments.

    Raises:
        UnreadableError: The source of Lightning or of ftlab is not installed.
    """
    section, *names = key.split(".")
    path: str | None = SECTIONS.get(section)
    found: source.Parameter | None = None
    for name in names:
        found = next((p for p in source.read(path).parameters if p.name == name), None) if path else None
        path = found.nested if found else None
    return found


def _leaves(prefix: str, class_path: str) -> Iterator[tuple[str, bool]]:
    for parameter in source.read(class_path).parameters:
        key = f"{prefix}.{parameter.name}"
        if parameter.nested is None or key in SLOTS or key in CLASS_KEYS:
            yield key, parameter.nullable
        else:
            yield from _leaves(key, parameter.nested)
