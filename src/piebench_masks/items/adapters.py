"""What a fit trains of a U-Net, and the weights that the U-Net then has: query, key and value of
its cross-attention, or LoRA (arXiv 2106.09685) on all of its attention.

Knows the U-Net's modules; must not know how they are trained.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.diffusion.stable_diffusion import StableDiffusion

PROCESSOR = ".processor"
A, B = ".lora_A", ".lora_B"


def cross_attention(backbone: StableDiffusion) -> dict[str, Tensor]:
    """Copies of to_q, to_k and to_v of every cross-attention, float32, by their names."""
    names = [
        f"{name.removesuffix(PROCESSOR)}.{part}.weight"
        for name, layer in backbone.layers.items()
        if layer.is_cross
        for part in ("to_q", "to_k", "to_v")
    ]
    return {name: backbone.unet.get_parameter(name).detach().float().clone() for name in names}


def lora(
    backbone: StableDiffusion, rank: int, generator: torch.Generator, compat: Compat
) -> dict[str, Tensor]:
    """Factors of every attention's to_q, to_k, to_v and to_out.0: A [rank, in], B [out, rank].

    A is normal with deviation 1 / rank, B is 0; float32. reference: the draws are those of the
    public code, which draws other ones before these.
    """
    factors = {}
    for name in _projections(backbone):
        outputs, inputs = backbone.unet.get_submodule(name).weight.shape
        if compat == "reference":
            for count in (rank * inputs, outputs * rank):
                torch.rand(count, generator=generator)
        a = torch.randn(rank, inputs, generator=generator) / rank
        device = backbone.device
        factors[name + A], factors[name + B] = a.to(device), torch.zeros(outputs, rank).to(device)
    return factors


def merged(
    backbone: StableDiffusion, factors: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """The weights W + scale B A of the U-Net, float32, with a gradient where the factors ask."""
    weights = {}
    for name in (key.removesuffix(A) for key in factors if key.endswith(A)):
        weight = backbone.unet.get_parameter(f"{name}.weight").float()
        weights[f"{name}.weight"] = weight + scale * (factors[name + B] @ factors[name + A])
    return weights


def output_factors(backbone: StableDiffusion) -> set[str]:
    """The names of the factors of cross-attention's output, to_out.0."""
    cross = [name for name, layer in backbone.layers.items() if layer.is_cross]
    return {f"{name.removesuffix(PROCESSOR)}.to_out.0{part}" for name in cross for part in (A, B)}


def _projections(backbone: StableDiffusion) -> Iterator[str]:
    """The names of the attention's linear layers, in the order of the U-Net's modules."""
    for name, _ in backbone.unet.named_modules():
        if name + PROCESSOR in backbone.layers:
            yield from (f"{name}.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0"))
