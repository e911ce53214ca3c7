"""jsonargparse's messages, as it wrote them, in our words."""

from __future__ import annotations

import pytest

from ftlab import registry
from ftlab.errors import ConfigError, SecurityError
from ftlab.given import COMMAND_LINE, Given
from ftlab.parser_errors import refusal

NESTED = """Parser key "model.tuning":
  Problem with given class_path 'ftlab.strategies.lora.LoRA':
    Parser key "r":
      Expected a <class 'int'>. Got value: zero"""
UNION = """Parser key "trainer.callbacks":
  Does not validate against any of the Union subtypes
  Errors:
    - Problem with given class_path 'lightning.pytorch.callbacks.EarlyStopping':
        Option 'monito' is not accepted
    - Problem with given class_path 'lightning.Callback':
        Importing 'lightning.Callback' is not allowed, denied by the '*' entry of the import path denylist. Add the import path.
  Given value: NestedArg(key='monito', val='val_loss')"""
SEVERAL = """Parser key "model.optimizer":
  Does not validate against any of the Union subtypes
  Errors:
    - Multiple subclasses with name AdamW. Give the full class path to avoid ambiguity: torch.optim.AdamW, bitsandbytes.optim.AdamW.
    - Expected a <class 'NoneType'>
  Given value: AdamW"""
DENIED = """Parser key "trainer.callbacks":
  Errors:
    - Importing 'os.system' is not allowed, denied by the 'os' entry of the import path denylist.
    - Option 'x' is not accepted"""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SEVERAL, "model.optimizer is 'AdamW', as more than one imported class is called; write torch.optim.AdamW."),
        (NESTED, "model.tuning.r is 'zero'; it must be a whole number."),
        (UNION, "trainer.callbacks.monito is not an argument of EarlyStopping; did you mean monitor?"),
        ("the following arguments are required: fit.model.task, fit.data.batch_size", "model.task and data.batch_size must be set; "
         f"model.task takes one of {', '.join(p.name for p in registry.plugins('tasks'))}."),
        ('Parser key "data.source":\n  the following arguments are required: path', "data.source.path must be set; write it in the YAML or "
         "as an option."),
        ("Subcommand 'fit' does not accept option 'modl'", "modl is not a key; `--help` lists the keys."),
        ("unrecognized arguments: -x", "unrecognized arguments: -x; `--help` lists the options."),
        ('Parser key "nowhere.x":\n  odd. Got value: 3', "nowhere.x is '3', which is not one of its values; `--help` describes them."),
    ],
)  # fmt: skip
def test_messages(message: str, expected: str) -> None:
    error = refusal(message, [])
    assert (type(error), str(error)) == (ConfigError, expected)


def test_the_value_is_the_one_that_was_written() -> None:
    values = [Given("model.tuning.init_args.r", "four", "x.yaml"), Given("model.tuning.r", [1], COMMAND_LINE)]
    assert str(refusal(NESTED, values[:1])) == "model.tuning.r is 'four'; it must be a whole number."
    assert str(refusal(NESTED, values)) == "model.tuning.r is 'zero'; it must be a whole number."


def test_a_denied_import_that_the_user_wrote_is_a_matter_of_security() -> None:
    written = [Given("trainer.callbacks", [{"class_path": "A", "init_args": {"f": "os.system"}}], "x.yaml")]
    error = refusal(DENIED, written)
    assert (type(error), error.exit_code) == (SecurityError, 7)
    assert str(error) == "trainer.callbacks names os.system, which a configuration may not name; use an installed plugin or --plugin."
    assert type(refusal(UNION, written)) is ConfigError
    assert type(refusal(DENIED.partition("    - Option")[0], [])) is SecurityError


def test_a_long_message_is_cut() -> None:
    assert len(str(refusal("x " * 2000, []))) < 350
