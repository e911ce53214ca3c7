"""A run or an exported folder as a model that is ready to use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ftlab import origins, preflight, registry
from ftlab.errors import ConfigError
from ftlab.given import given
from ftlab.model_card import Facts

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from ftlab.backbone import Backbone
    from ftlab.data.datamodule import FinetuneData
    from ftlab.module import FinetuneModule

CONFIG = "config.yaml"


class Loaded(NamedTuple):
    """A model in evaluation mode and its tokenizer."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run read back from its folder.

    Args:
        module: With the weights of a checkpoint, in evaluation mode, on the CPU.
        data: Its data module; nothing has been read.
        facts: Its configuration and figures.
    """

    module: FinetuneModule
    data: FinetuneData
    facts: Facts


def load(source: str | Path, checkpoint: str = "best", base: str | Backbone | None = None) -> Loaded:
    """A model in evaluation mode, on the CPU, and its tokenizer.

    Args:
        source: The folder of a run, an exported folder, or a PEFT folder.
        checkpoint: Of a run: best, which is the last where nothing was validated; last, or a file.
        base: What a PEFT folder belongs to that ftlab did not write; the model it names itself is not used.

    Raises:
        CheckpointError: The checkpoint or adapter is damaged, or of another model.
        ConfigError: There is no such folder or checkpoint.
        SecurityError: It would run code or overwrite weights of the base.
    """
    from ftlab.backbone import Backbone
    from ftlab.opening import open_folder

    folder = Path(source).expanduser()
    if (folder / CONFIG).is_file():
        run = load_run(folder, checkpoint)
        return Loaded(run.module.adapted, run.module.tokenizer)
    owner = Backbone(name=base) if isinstance(base, str) else base
    model = open_folder(folder, owner)
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    tokenizer = owner.load_tokenizer() if owner is not None and not own else Backbone(name=str(folder.resolve())).load_tokenizer()
    return Loaded(model, tokenizer)


def load_run(folder: Path, checkpoint: str = "best") -> Run:
    """A run with the weights of one of its checkpoints; see `load`."""
    from ftlab.half import converted

    path = find_checkpoint(folder, checkpoint)
    module, data, config = _built(folder / CONFIG)
    module.configure_model()
    converted(module.adapted, config["trainer"].get("precision"))
    _fill(module, path)
    module.eval()
    return Run(module=module, data=data, facts=Facts(config=config, metrics=_figures(folder / "summary.json")))


def find_checkpoint(folder: Path, checkpoint: str) -> Path:
    """The file that `checkpoint` means in a run.

    Raises:
        ConfigError: There is none.
    """
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} holds no {CONFIG}, so it is no run; name a folder such as runs/NAME/ID.")
    path = folder / "checkpoints" / f"{checkpoint}.ckpt" if checkpoint in ("best", "last") else Path(checkpoint)
    if checkpoint == "best" and not path.is_file() and not _validated(folder):
        path = path.with_name("last.ckpt")
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in (folder / "checkpoints").glob("*.ckpt"))) or "none"
        raise ConfigError(f"--checkpoint {checkpoint} of {folder} is no file ({path}); its checkpoints are: {there}.")
    return path


def _validated(folder: Path) -> bool:
    """Whether the run has a best checkpoint to ask for; a run without validation exports its last one."""
    from ftlab.checkpoint_io import Manifest

    return Manifest.read(folder / "checkpoints").best is not None


def _built(path: Path) -> tuple[FinetuneModule, FinetuneData, dict[str, Any]]:
    """The module and the data module that a run's configuration describes, under the same policy as `ftlab fit`."""
    from ftlab import strict_yaml
    from ftlab.cli import Parser, restrict_imports
    from ftlab.data.datamodule import FinetuneData
    from ftlab.module import FinetuneModule

    config = strict_yaml.read(path)
    origins.require(path.parent, config)
    for plugin in preflight.check(given(["--config", str(path)]), "fit"):
        registry.load(plugin)
    restrict_imports()
    parser = Parser(allow_abbrev=False)
    parser.add_lightning_class_args(FinetuneModule, "model")
    parser.add_lightning_class_args(FinetuneData, "data")
    made = parser.instantiate_classes(parser.parse_object({key: config[key] for key in ("model", "data")}))
    return made.model, made.data, config


def _fill(module: FinetuneModule, path: Path) -> None:
    from ftlab import checkpoint_io
    from ftlab.export import put

    checkpoint = checkpoint_io.load(path)
    module.on_load_checkpoint(checkpoint)
    put(module, checkpoint["state_dict"])


def _figures(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a run that was stopped has none
    return found
