"""Messages of other packages that tell a user of ftlab nothing."""

from __future__ import annotations

import logging
import os
import warnings

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "bitsandbytes", "huggingface_hub", "torch.distributed")
_WARNINGS = (
    r".*does not have many workers which may be a bottleneck.*",  # workers are data.num_workers, and its default is meant
    r".*The `?srun`? command is available on your system but is not used.*",
    r".*Checkpoint directory .* exists and is not empty.*",  # the run folder is ours
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning with torch 2.13
    r".*It is recommended to use `self.log\(.*sync_dist=True\)`.*",  # our sums are added over ranks before the division
    r".*is smaller than the logging interval Trainer.*",  # the last step of an epoch is always logged
    r".*You called `self.log\(.*no logger configured.*",
)


def quiet() -> None:
    """Raise the level of chatty loggers and filter warnings that ask for nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR if name in ("bitsandbytes", "huggingface_hub") else logging.WARNING)
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    # Tokenizers run in parallel before workers are forked; workers never tokenise.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
