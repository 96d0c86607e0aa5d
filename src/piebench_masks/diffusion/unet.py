"""The attention layers and ResNet blocks of a diffusers U-Net, and the hooks that control them.

Knows the U-Net's modules and its configuration; must not know prompts or methods.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from piebench_masks.diffusion.attention import (
    AttentionControl,
    ControlledProcessor,
    Layer,
    Place,
    Residual,
)


def parts(unet: Any) -> tuple[dict[str, Layer], dict[str, Residual]]:
    """Attention layers, by the names of their processors, and ResNet blocks, as evaluated."""
    layers: dict[str, Layer] = {}
    residuals: dict[str, Residual] = {}
    block = 0
    for place, grid, stage, module in _stages(unet):
        # A ResNet block, then the transformer behind it; the middle ends with a ResNet block.
        pairs = zip_longest(module.resnets, getattr(module, "attentions", ()))
        for number, (_, transformer) in enumerate(pairs):
            residuals[f"{stage}.resnets.{number}"] = Residual(block, grid, place)
            for inner, transformer_block in enumerate(
                getattr(transformer, "transformer_blocks", ())
            ):
                name = f"{stage}.attentions.{number}.transformer_blocks.{inner}"
                layers[f"{name}.attn1.processor"] = Layer(block, "self", grid, place)
                if transformer_block.attn2 is not None:
                    layers[f"{name}.attn2.processor"] = Layer(block, "cross", grid, place)
                block += 1
    return layers, residuals


def _stages(unet: Any) -> Iterator[tuple[Place, int, str, Any]]:
    """The U-Net's blocks as they are evaluated: place, side of the grid, name and module."""
    sides = [unet.config.sample_size]
    for _ in unet.down_blocks[1:]:
        sides.append(-(-sides[-1] // 2))
    for number, module in enumerate(unet.down_blocks):
        yield "down", sides[number], f"down_blocks.{number}", module
    if unet.mid_block is not None:
        yield "mid", sides[-1], "mid_block", unet.mid_block
    for number, module in enumerate(unet.up_blocks):
        yield "up", sides[-1 - number], f"up_blocks.{number}", module


def control_attention(unet: Any, layers: dict[str, Layer]) -> None:
    """Give these layers processors that let a call's control answer instead."""
    unet.set_attn_processor(
        {
            name: ControlledProcessor(processor, layers[name]) if name in layers else processor
            for name, processor in unet.attn_processors.items()
        }
    )


@contextmanager
def seen_residuals(unet: Any, control: AttentionControl | None) -> Iterator[None]:
    """The U-Net with hooks that pass its ResNet blocks' residuals through ``control``."""

    def hook(name: str) -> Any:
        return lambda module, args, hidden: control.residual(name, hidden) if control else None

    handles = [
        unet.get_submodule(name).conv2.register_forward_hook(hook(name))
        for name in (control.resnets if control else ())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
