"""Opens exported folders as a stranger would, by the lines of their model cards, in a process without ftlab.

Reads a JSON list of {folder, ids, out} from stdin; writes the logits for `ids` to the safetensors file `out`.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def opened(folder: str) -> Any:
    """The model that the card's Python lines make."""
    text = (Path(folder) / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT only warns of tensors that are missing
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        exec(found[1].replace('"this folder"', repr(folder)), names)
    assert len(names["tokenizer"]) > 0
    return names["model"].eval()


def main() -> None:
    for case in json.load(sys.stdin):
        with torch.no_grad():
            logits = opened(case["folder"])(input_ids=torch.tensor(case["ids"])).logits
        save_file({"logits": logits.contiguous()}, case["out"])
    assert not [name for name in sys.modules if name.partition(".")[0] == "ftlab"]


if __name__ == "__main__":
    main()
