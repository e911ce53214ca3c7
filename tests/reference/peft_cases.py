"""One set of options for every method of PEFT that ftlab bridges, small enough for tiny models."""

from __future__ import annotations

from dataclasses import dataclass, field

from ftlab.strategies.peft_options import Plain

DECODER = ["q_proj", "v_proj", "down_proj"]
ALLOCATION: dict[str, Plain] = {"init_warmup": 1, "final_warmup": 4, "mask_interval": 2}
ENCODER = ["query", "value", "intermediate.dense"]


@dataclass(frozen=True)
class Case:
    """A method, its options but for the targets, and what it can be put into."""

    method: str
    options: dict[str, Plain] = field(default_factory=dict)
    targets: bool = True
    encoder: bool = True
    encoder_options: dict[str, Plain] = field(default_factory=dict)
    starts_at_base: bool = True
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.method

    def on(self, encoder: bool) -> dict[str, Plain]:
        """The options for an encoder or a decoder."""
        names: dict[str, Plain] = {"target_modules": list(ENCODER if encoder else DECODER)} if self.targets else {}
        last: dict[str, Plain] = {"feedforward_modules": [(ENCODER if encoder else DECODER)[-1]]} if self.method == "IA3" else {}
        return {**names, **last, **self.options, **(self.encoder_options if encoder else {})}


def lora(name: str, starts_at_base: bool = True, **options: Plain) -> Case:
    return Case("LORA", {"r": 4, "lora_alpha": 8, **options}, starts_at_base=starts_at_base, name=f"LORA, {name}")


CASES = (
    Case("ADALORA", {"init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 1, "deltaT": 1}),
    Case(
        "ADAMSS",
        {"r": 8, "num_subspaces": 3, "use_asa": True, "init_warmup": 1, "final_warmup": 4, "mask_interval": 2, "asa_target_subspaces": 6},
    ),
    Case("ADAPTION_PROMPT", {"adapter_len": 4, "adapter_layers": 2}, targets=False, encoder=False),
    Case("BEFT", targets=False),
    Case("BOFT", {"boft_block_size": 4}),
    Case("C3A", {"block_size": 4}, starts_at_base=False),
    Case("DEFT"),
    Case("DELORA"),
    Case("FOURIERFT", {"n_frequency": 10}, starts_at_base=False),
    Case("FROD"),
    Case("GLORA"),
    Case("GRALORA", {"r": 4, "gralora_k": 2}),
    Case("HIRA", {"r": 4}),
    Case("HRA"),
    Case("IA3"),
    Case("LILY", {"r": 4}),
    Case("LN_TUNING", targets=False, encoder_options={"target_modules": ["LayerNorm"]}),
    Case("LOHA", {"r": 4}),
    Case("LOKR", {"r": 4}),
    Case("LORA", {"r": 4}),
    Case("MISS", {"r": 4}),
    Case("OFT", {"oft_block_size": 4}),
    Case("OSF"),
    Case("PEANUT", {"r": 4}),
    Case("POLY", {"r": 4, "n_skills": 2, "n_tasks": 1}),
    Case("PSOFT", {"r": 8}),
    Case("PVERA", {"r": 8}),
    Case("RANDLORA", {"r": 4}),
    Case("ROAD", {"group_size": 8}),
    Case("SHIRA", {"r": 2}),
    Case("SUPERTUNING"),
    Case("TINYLORA"),
    Case("TRAINABLE_TOKENS", {"token_indices": [5, 7, 40]}, targets=False),
    Case("UNILORA", {"theta_d_length": 16}, starts_at_base=False),
    Case("VBLORA", {"num_vectors": 8, "vector_length": 4}, starts_at_base=False),
    Case("VERA", {"r": 8}),
    Case("WAVEFT", {"n_frequency": 10}),
)
"""All of them."""

VARIANTS = (
    lora("DoRA", use_dora=True),
    lora("KaSA", False, kasa_config={"beta": 0.1, "gamma": 0.1}),
    lora("MonteCLoRA", monteclora_config={"num_samples": 4}),
    lora("PiSSA", init_lora_weights="pissa"),
    lora("OLoRA", init_lora_weights="olora"),
    lora("LoftQ", False, init_lora_weights="loftq", loftq_config={"loftq_bits": 4}),
    lora("EVA", init_lora_weights="eva", eva_config={"rho": 1.0}),
    lora("CorDA", init_lora_weights="corda", corda_config={"corda_method": "ipm"}),
    lora("LoRA-GA", init_lora_weights="lora_ga", lora_ga_config={"direction": "ArB2r"}),
)
"""Variants and starts of LoRA that ask for more than its layers."""
