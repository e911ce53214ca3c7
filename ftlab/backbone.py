"""The pretrained model and its tokenizer: where they come from and in what shape they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftlab import hub
from ftlab.context import context_of
from ftlab.errors import ConfigError
from ftlab.hub import explained
from ftlab.vetting import refuse_code, require_weights
from ftlab.weights import Reading, reader

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pretrained Hugging Face model.

    Args:
        name: A hub id such as org/name, a local folder, or a built-in; ftlab/tiny-llama or ftlab/tiny-bert.
        revision: Branch, tag or commit of a hub model.
        tokenizer: Another place to take the tokenizer from, in the same forms as name.
        dtype: Type of the loaded weights; auto keeps the type they were saved in.
        attention: Attention implementation of transformers; null lets it choose.
        fresh: Start from random weights; only the configuration and the tokenizer are read.
        activation_checkpointing: Recompute activations in the backward pass to save memory.
        pad_token: auto takes the tokenizer's own, else its end-of-sequence token; any other text is that token.
        new_tokens: Tokens to add; their embedding rows are trained and saved by every strategy.
        pickled_weights: Accept weights that are stored as pickle (.bin), which can run code, where there is no safetensors file.
    """

    name: str
    revision: str | None = None
    tokenizer: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    attention: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    fresh: bool = False
    activation_checkpointing: bool = False
    pad_token: str = "auto"
    new_tokens: list[str] = field(default_factory=list)
    pickled_weights: bool = False

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("model.backbone.name is empty; write a hub id, a local folder, ftlab/tiny-llama or ftlab/tiny-bert.")

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with a pad token and the new tokens.

        Raises:
            ConfigError: There is none, or it has nothing to pad with.
            EnvironmentFault: The hub cannot be reached.
        """
        from transformers import AutoTokenizer

        place, revision = (self.tokenizer, None) if self.tokenizer else (self.name, self.revision)
        with explained(place, "tokenizer"):
            location = _location(place)
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                location, revision=revision, trust_remote_code=False, local_files_only=_only_here(location)
            )
        known = tokenizer.get_vocab() if self.new_tokens else {}
        for token in self.new_tokens:
            if token in known or self.new_tokens.count(token) > 1:
                raise ConfigError(f"model.backbone.new_tokens has {token!r} twice, or the tokenizer of {place} has it already; remove it.")
        if tokenizer.add_tokens(list(self.new_tokens)) != len(self.new_tokens):
            raise ConfigError(
                f"model.backbone.new_tokens is {self.new_tokens}, of which the tokenizer of {place} cannot add all; write plain words."
            )
        if self.pad_token != "auto":
            tokenizer.add_special_tokens({"pad_token": self.pad_token})
        elif tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ConfigError(
                    f"model.backbone.pad_token is auto, but the tokenizer of {place} has neither pad nor end-of-sequence token; name one."
                )
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def load_config(self) -> PretrainedConfig:
        """The HF configuration.

        Raises:
            ConfigError: There is none.
            EnvironmentFault: The hub cannot be reached.
            SecurityError: It names code outside transformers.
        """
        from transformers import AutoConfig, PretrainedConfig

        location = _location(self.name)
        with explained(self.name, "configuration"):
            stored, _ = PretrainedConfig.get_config_dict(location, revision=self.revision, local_files_only=_only_here(location))
            if not isinstance(stored, dict):
                raise ConfigError(f"{self.name}: its configuration cannot be loaded: config.json holds no object.")
            refuse_code(stored, self.name)
            config: PretrainedConfig = AutoConfig.from_pretrained(
                location, revision=self.revision, trust_remote_code=False, local_files_only=True
            )
        return config

    def context(self, config: PretrainedConfig) -> int | None:
        """The longest sequence the model has positions for, in tokens; None where it has no limit."""
        return context_of(config)

    def require(self, auto_class: str, config: PretrainedConfig) -> None:
        """Refuse an architecture that a task has no model of.

        Raises:
            ConfigError: It is one.
        """
        import transformers

        if type(config) not in getattr(transformers, auto_class)._model_mapping:
            raise ConfigError(
                f"model.backbone.name {self.name} is a {config.model_type} model, which {auto_class} does not offer; choose another task."
            )

    def load_model(
        self, auto_class: str, overrides: Mapping[str, object], options: Mapping[str, object]
    ) -> tuple[PreTrainedModel, set[str]]:
        """The model in train mode, and the names of the parameters that no stored weight filled.

        Args:
            auto_class: Name of a `transformers` auto class.
            overrides: Entries of the configuration that the task decides.
            options: Further arguments for `from_pretrained`, from the strategy.

        Raises:
            CheckpointError: A file of weights is missing or damaged.
            ConfigError: There are no weights, or the task has no model of this kind.
            EnvironmentFault: The hub cannot be reached.
        """
        import torch
        import transformers

        config = self.load_config()
        for key, value in overrides.items():
            setattr(config, key, value)
        auto = getattr(transformers, auto_class)
        dtype = "auto" if self.dtype == "auto" else getattr(torch, self.dtype)
        extra = {} if self.attention is None else {"attn_implementation": self.attention}
        self.require(auto_class, config)
        if self.fresh and options:
            raise ConfigError(
                "model.backbone.fresh is true, so no stored weights are read, "
                f"but model.tuning says how to read them ({', '.join(options)}); set it to false, or choose another strategy."
            )
        if self.fresh:
            with explained(self.name, "fresh weights"):
                model = auto.from_config(config, dtype=config.dtype if dtype == "auto" else dtype, trust_remote_code=False, **extra)
            return self._finish(model), set()
        location = _location(self.name)
        require_weights(Path(location), self.name, self.pickled_weights)
        here = _only_here(location)
        with explained(self.name, "weights"):
            arguments = {
                "revision": self.revision, "dtype": dtype, "local_files_only": here, "adapter_kwargs": {"local_files_only": here},
                "use_safetensors": None if self.pickled_weights else True, "ignore_mismatched_sizes": True, **extra, **options,
            }  # fmt: skip
            model, report = reader.get()(Reading(auto_class=auto_class, location=location, config=config, arguments=arguments))
        if getattr(model, "_hf_peft_config_loaded", False):  # transformers then reads the base that the adapter names
            raise ConfigError(f"model.backbone.name {self.name} holds an adapter; name the model that it belongs to.")
        mismatched = {entry[0] for entry in report["mismatched_keys"]}
        return self._finish(model), set(report["missing_keys"]) | mismatched

    def _finish(self, model: PreTrainedModel) -> PreTrainedModel:
        from ftlab.quantised import keep_bits

        if self.activation_checkpointing:
            if not model.supports_gradient_checkpointing:
                raise ConfigError(
                    f"model.backbone.activation_checkpointing is true, but {type(model).__name__} cannot recompute; set it to false."
                )
            _recompute_activations(model)
        keep_bits(model)
        model.train()
        return model


def _recompute_activations(model: PreTrainedModel) -> None:
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:  # transformers 5.17
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    # The hook makes the embedding's output require a gradient, which only the reentrant kind needs; a frozen stack is then
    # not run through backwards.
    model.disable_input_require_grads()


def _location(name: str) -> str:
    """A built-in's folder inside the package, else the name itself.

    Raises:
        ConfigError: It looks like a folder and is none, or is not the name of a built-in.
    """
    if name.startswith("ftlab/"):
        folder = ASSETS / name.removeprefix("ftlab/")
        if not folder.is_dir():
            known = sorted(f"ftlab/{p.name}" for p in ASSETS.iterdir() if (p / "config.json").is_file())
            raise ConfigError(f"model.backbone.name {name} is not a built-in; allowed: {', '.join(known)}.")
        return str(folder)
    path = Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local and not path.is_dir():
        raise ConfigError(f"model.backbone.name {name} is not a folder; write an existing folder or a hub id of the form org/name.")
    return str(path) if path.is_dir() else name


def _only_here(location: str) -> bool:
    return Path(location).is_dir() or not hub.answers()
