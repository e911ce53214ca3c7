"""What PEFT's methods ask of the training loop, and the memory that a resumed run needs for it.

The tuner that put the layers into a model is kept beside it; what it has learnt about the run (importances, what was pruned) is held
in buffers, so that a checkpoint has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.adapters import ADAPTER
from ftlab.errors import ConfigError

NAME = "ftlab_peft"


class Bridge(nn.Module):
    """PEFT's tuner, out of reach of `state_dict`, and buffers for what it remembers between steps."""

    def __init__(self, tuner: Any) -> None:
        super().__init__()
        self.__dict__["tuner"] = tuner  # a registered child would make the model a part of itself

    def prepare(self) -> None:
        """Make the buffers that the method needs."""

    def before_step(self) -> None:
        """With gradients complete, before the optimiser."""

    def after_step(self, step: int, total: int) -> None:
        """After the optimiser, with the gradients still there."""

    def losses(self) -> dict[str, Tensor]:
        """Name → term of the loss."""
        return {}

    def settle(self) -> None:
        """Give the tuner what the buffers say, so that it can write its own format."""

    @property
    def tuner(self) -> Any:
        """PEFT's tuner; it has the model."""
        return self.__dict__["tuner"]

    @property
    def config(self) -> Any:
        """The adapter's configuration."""
        return self.tuner.peft_config[ADAPTER]


class AdaLora(Bridge):
    """AdaLoRA (Zhang et al. 2023): importances of every triplet, the ranks left, and the orthogonality of A and B."""

    def prepare(self) -> None:
        if self.config.target_r >= self.config.init_r:
            raise ConfigError(
                f"model.tuning.options: AdaLoRA starts with rank init_r {self.config.init_r} and shrinks it to target_r "
                f"{self.config.target_r}, which must be smaller; lower target_r."
            )
        for name, parameter in self.tuner.model.named_parameters():
            if "ranknum" in name.split("."):
                parameter.requires_grad_(False)  # over a base of 16 bits PEFT makes it anew, and so trainable
        for number, (_, parameter) in enumerate(self._scored()):
            self.register_buffer(f"sensitivity_{number}", torch.zeros_like(parameter))
            self.register_buffer(f"uncertainty_{number}", torch.zeros_like(parameter))
        for number, parameter in enumerate(self._values().values()):
            self.register_buffer(f"kept_{number}", torch.ones(len(parameter), dtype=torch.bool))
        self.register_buffer("pruned", torch.zeros((), dtype=torch.bool))

    def _scored(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What PEFT's allocator scores, by the names it has for it."""
        model = self.tuner.model
        return (
            (n, p) for n, p in model.named_parameters() if ADAPTER in n.split(".") and p.requires_grad and "base_layer" not in n.split(".")
        )

    def _values(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self._scored() if "lora_E" in n.split(".")}

    def settle(self) -> None:
        kept = {n: self.get_buffer(f"kept_{i}").tolist() for i, n in enumerate(self._values())}
        self.config.rank_pattern = kept if bool(self.pruned) else None

    def after_step(self, step: int, total: int) -> None:
        tuner, config = self.tuner, self.config
        config.total_step = total
        if config.tinit >= total - config.tfinal:
            raise ConfigError(
                f"model.tuning.options: AdaLoRA's tinit {config.tinit} and tfinal {config.tfinal} leave nothing of the run's {total} steps "
                "to shrink the ranks in; make their sum smaller, or train longer."
            )
        if step > total - config.tfinal and config.rank_pattern is None:
            self.settle()
        missing = [p for _, p in self._scored() if p.grad is None]
        for parameter in missing:  # a step that was left out
            parameter.grad = torch.zeros_like(parameter)
        self._lend()
        tuner.update_and_allocate(step)
        self._note()
        for parameter in missing:
            parameter.grad = None

    def _lend(self) -> None:
        allocator = self.tuner.rankallocator
        for number, (name, _) in enumerate(self._scored()):
            allocator.ipt[name] = allocator.exp_avg_ipt[name] = self.get_buffer(f"sensitivity_{number}")
            allocator.exp_avg_unc[name] = self.get_buffer(f"uncertainty_{number}")

    def _note(self) -> None:
        allocator = self.tuner.rankallocator
        for number, (name, _) in enumerate(self._scored()):
            for kind, held in (("sensitivity", allocator.exp_avg_ipt), ("uncertainty", allocator.exp_avg_unc)):
                own = self.get_buffer(f"{kind}_{number}")
                own.copy_(held[name]) if name in held else own.zero_()
        pattern = self.config.rank_pattern
        if pattern:
            for number, name in enumerate(self._values()):
                self.get_buffer(f"kept_{number}").copy_(torch.tensor(pattern[name]))
            self.get_buffer("pruned").fill_(True)

    def losses(self) -> dict[str, Tensor]:
        """Mean over all A and B of ‖P·Pᵀ − I‖ in the Frobenius norm, as the method's own forward pass adds it to a loss."""
        grams = []
        for name, parameter in self._scored():
            part = name.split(".")[-2]
            if part in ("lora_A", "lora_B"):
                grams.append(parameter @ parameter.T if part == "lora_A" else parameter.T @ parameter)
        terms = [torch.linalg.norm(gram - torch.eye(len(gram)).to(gram)) for gram in grams]
        return {"orthogonality": self.config.orth_reg_weight * torch.stack(terms).mean()} if terms else {}


class AdaMss(Bridge):
    """AdaMSS with adaptive subspace allocation: importances, and the subspaces that are still trained."""

    def prepare(self) -> None:
        if not self.config.use_asa:
            return
        for number, parameter in enumerate(self._trained()):
            self.register_buffer(f"importance_{number}", torch.zeros_like(parameter))
            self.register_buffer(f"uncertainty_{number}", torch.zeros_like(parameter))
        self.register_buffer("seen", torch.zeros(len(self._trained()), dtype=torch.bool))
        self.register_buffer("active", torch.ones(len(self._trained()), dtype=torch.bool))

    def _layers(self) -> list[Any]:
        from peft.tuners.adamss.layer import AdamssLayer

        return [m for m in self.tuner.model.modules() if isinstance(m, AdamssLayer)]

    def _trained(self) -> list[nn.Parameter]:
        return [p for m in self._layers() for side in (m.adamss_A, m.adamss_B) for p in side[ADAPTER]]

    def before_step(self) -> None:
        if self.config.use_asa:
            for parameter, active in zip(self._trained(), self.get_buffer("active").tolist(), strict=True):
                if not active:
                    parameter.grad = None

    def after_step(self, step: int, total: int) -> None:
        if not self.config.use_asa:
            return
        parameters = self._trained()
        self._lend()
        self.tuner.update_and_allocate(step)
        self._note()
        for parameter in parameters:  # PEFT freezes what it prunes; here that gets no gradient, so what is trained stays what was declared
            parameter.requires_grad_(True)

    def _slots(self) -> list[tuple[list[Tensor | None], list[Tensor | None], int]]:
        """PEFT's own places for importance and uncertainty, in the order of the parameters."""
        found = []
        for m in self._layers():
            for ipt, unc in ((m.exp_avg_ipt_A, m.exp_avg_unc_A), (m.exp_avg_ipt_B, m.exp_avg_unc_B)):
                found += [(ipt[ADAPTER], unc[ADAPTER], i) for i in range(len(ipt[ADAPTER]))]
        return found

    def _lend(self) -> None:
        seen, active = self.get_buffer("seen").tolist(), self.get_buffer("active").tolist()
        for number, (ipt, unc, i) in enumerate(self._slots()):
            ipt[i] = self.get_buffer(f"importance_{number}") if seen[number] else None
            unc[i] = self.get_buffer(f"uncertainty_{number}") if seen[number] else None
        for parameter, on in zip(self._trained(), active, strict=True):
            parameter.requires_grad_(on)

    def _note(self) -> None:
        for number, (ipt, unc, i) in enumerate(self._slots()):
            importance, uncertainty = ipt[i], unc[i]
            self.get_buffer("seen")[number] = importance is not None
            if importance is not None and uncertainty is not None:
                self.get_buffer(f"importance_{number}").copy_(importance)
                self.get_buffer(f"uncertainty_{number}").copy_(uncertainty)
        for number, parameter in enumerate(self._trained()):
            self.get_buffer("active")[number] = parameter.requires_grad


class Lora(Bridge):
    """The losses of LoRA's variants: KaSA (Wang et al. 2024, eq. 9-12) and MonteCLoRA."""

    def losses(self) -> dict[str, Tensor]:
        tuner, config = self.tuner, self.config
        terms = {}
        if config.kasa_config is not None:
            terms["kasa"] = tuner._get_kasa_loss()
        if config.monteclora_config is not None:
            terms["monteclora"] = tuner._get_monteclora_loss()
        return terms


BRIDGES: dict[str, type[Bridge]] = {"ADALORA": AdaLora, "ADAMSS": AdaMss, "LORA": Lora}
"""Methods that ask for something; of the others only the tuner is kept."""


def attach(model: nn.Module, method: str, tuner: Any) -> Bridge:
    """Keep `tuner` beside the model that it changed."""
    bridge = BRIDGES.get(method, Bridge)(tuner)
    bridge.prepare()
    model.add_module(NAME, bridge)
    return bridge


def bridge_of(model: nn.Module) -> Bridge:
    """What `attach` left in `model`."""
    found = model.get_submodule(NAME)
    assert isinstance(found, Bridge)
    return found
