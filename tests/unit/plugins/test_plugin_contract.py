"""What is asked of a plugin class, and of what a strategy's `apply` returns."""

from __future__ import annotations

import pytest

from ftlab import Backbone, FinetuneModule, TuningStrategy, registry
from ftlab.errors import ConfigError
from ftlab.registry import PluginError
from ftlab.tasks.causal_lm import CausalLM
from ftlab.tasks.sequence_classification import SequenceClassification
from tests.unit.plugins.strangers import HEAD, SOUND, Install, WriteFile, refused

FRAME = "@dataclass(frozen=True, kw_only=True)\nclass Odd({base}):\n    {body}\n"
APPLY = "def apply(self, model, heads): return model"
FROZEN = (
    "plugin Odd of stranger 3.4 is not a frozen, keyword-only dataclass, so its constructor is no configuration; "
    "write @dataclass(frozen=True, kw_only=True) above the class and no __init__ in it."
)
BASE = "it must be a class that derives from ftlab.strategies.base.TuningStrategy."


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("", f"plugin Odd of stranger 3.4 is nothing that its module defines; {BASE}"),
        ("Odd = 3", f"plugin Odd of stranger 3.4 is of type int; {BASE}"),
        ("class Odd: pass", f"plugin Odd of stranger 3.4 is the class Odd; {BASE}"),
        (
            FRAME.format(base="TuningStrategy", body="pass"),
            "plugin Odd of stranger 3.4 lacks apply, which every TuningStrategy must define.",
        ),
        (
            FRAME.format(base="TuningStrategy", body="def apply(self, model): return model"),
            "plugin Odd of stranger 3.4 defines apply(self, model); its contract calls apply(self, model, heads).",
        ),
        (
            FRAME.format(base="TuningStrategy", body=f"{APPLY}\n    def on_step(self, model, step, *, total): pass"),
            "plugin Odd of stranger 3.4 defines on_step(self, model, step, total); its contract calls on_step(self, model, step, total).",
        ),
        (
            FRAME.format(base="TuningStrategy", body="def apply(self, model, fresh): return model"),
            "plugin Odd of stranger 3.4 defines apply(self, model, fresh); its contract calls apply(self, model, heads).",
        ),
        (
            FRAME.format(base="TuningStrategy", body=f"{APPLY}\n    metrics = None"),
            "plugin Odd of stranger 3.4 has a metrics that is not a plain method; define metrics(self, model).",
        ),
        (f"class Odd(TuningStrategy):\n    {APPLY}", FROZEN),
        (FRAME.format(base="TuningStrategy", body=f"def __init__(self, *, options=None): pass\n    {APPLY}"), FROZEN),
        (FRAME.format(base="TuningStrategy", body=f"r: int = 8\n    {APPLY}").replace(", kw_only=True", ""), FROZEN),
        (
            FRAME.format(base="TuningStrategy", body=f"rank: Missing = 8\n    {APPLY}"),
            "plugin Odd of stranger 3.4 has a field whose type cannot be read (name 'Missing' is not defined); "
            "import the type at the top of its module.",
        ),
    ],
)
def test_a_class_that_does_not_keep_its_contract_is_refused(install: Install, code: str, sentence: str) -> None:
    install({"strategies.Odd": "odd_one:Odd"}, {"odd_one": HEAD + code})
    assert refused("Odd") == sentence


def test_a_task_without_its_class_attributes_is_refused(install: Install) -> None:
    methods = "".join(
        f"    def {name}(self, {args}): return ()\n"
        for name, args in {
            "columns": "labelled", "encode": "rows, tokenizer, max_length, labelled", "collate": "examples, tokenizer",
            "forward": "model, batch", "predict": "model, batch",
        }.items()
    )  # fmt: skip
    code = f"from dataclasses import dataclass\nfrom ftlab import Task\n@dataclass(frozen=True, kw_only=True)\nclass Bare(Task):\n{methods}"
    install({"tasks.Bare": "bare_one:Bare"}, {"bare_one": code})
    with pytest.raises(PluginError, match=r"lacks auto_class, heads, which every Task must define\.$"):
        registry.load(registry.find("Bare"))


def test_a_mutable_dataclass_cannot_even_be_defined(install: Install) -> None:
    install({"strategies.Soft": "soft_one:Soft"}, {"soft_one": HEAD + SOUND.format(name="Soft").replace("frozen=True, ", "")})
    assert "TypeError: cannot inherit non-frozen dataclass from a frozen one" in refused("Soft")


def strategy(file: WriteFile, body: str, more: str = "") -> TuningStrategy:
    """A strategy whose `apply` has this body."""
    registry.use(file("wry_one.py", HEAD + SOUND.format(name="Wry").replace("return model", body) + more))
    made = registry.load(registry.find("Wry"))()
    assert isinstance(made, TuningStrategy)
    return made


RETURNED = [("pass", "None"), ("return 'model'", "'model'"), ("return type(model)", "<class 'transformers")]


@pytest.mark.parametrize(("body", "said"), RETURNED)
def test_what_apply_returns_must_be_a_module(file: WriteFile, body: str, said: str) -> None:
    module = FinetuneModule(Backbone(name="ftlab/tiny-llama"), CausalLM(), strategy(file, body))
    with pytest.raises(ConfigError) as caught:
        module.configure_model()
    assert str(caught.value).startswith(f"Wry.apply returned {said}")
    assert str(caught.value).endswith("; apply(self, model, heads) must return the module to train.")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            "return model.requires_grad_(False)",
            "apply left the fresh head 'score' frozen at random weights; call requires_grad_(True) on it.",
        ),
        ("return model", "owned leaves out the fresh head 'score', whose weights would be lost; name all its tensors."),
    ],
)
def test_a_fresh_head_must_be_trained_and_owned(file: WriteFile, body: str, sentence: str) -> None:
    tuning = strategy(file, body, "    def owned(self, model):\n        return frozenset()\n")
    module = FinetuneModule(Backbone(name="ftlab/tiny-llama"), SequenceClassification(labels=["a", "b"]), tuning)
    with pytest.raises(ConfigError) as caught:
        module.configure_model()
    assert str(caught.value) == f"Wry.{sentence}"
