"""Attention layers and ResNet blocks: known without running the network, as it runs them."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from piebench_masks.diffusion.attention import AttentionControl, Layer, Projections
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.unet import parts


class Watch(AttentionControl):
    """Remembers every layer that it is shown, and how many queries it has."""

    def __init__(self, residuals: tuple[str, ...]) -> None:
        self.resnets = residuals
        self.seen: list[tuple[object, int]] = []

    def attend(self, layer: Layer, projections: Projections) -> None:
        self.seen.append((layer, projections.queries))

    def residual(self, name: str, hidden: Tensor) -> Tensor:
        self.seen.append((name, hidden.shape[-1] * hidden.shape[-2]))
        return hidden


def test_the_order_and_the_grids_are_those_of_a_call(tiny: Backbone) -> None:
    watch = Watch(tuple(tiny.residuals))
    text = tiny.encode_prompts(["a red circle"])
    tiny.predict_noise(torch.zeros(1, 4, 16, 16), torch.tensor([499]), text, watch)
    layers = [(part, count) for part, count in watch.seen if isinstance(part, Layer)]
    assert layers == [(layer, layer.grid**2) for layer in tiny.layers.values()]
    names = [(part, count) for part, count in watch.seen if isinstance(part, str)]
    assert names == [(name, block.grid**2) for name, block in tiny.residuals.items()]
    blocks = 0  # the transformer blocks seen so far
    for part, _ in watch.seen:
        if isinstance(part, Layer):
            blocks = max(blocks, part.block + 1)
        else:
            assert tiny.residuals[str(part)].block == blocks


def test_a_crossed_and_a_self_layer_make_a_block(tiny: Backbone) -> None:
    layers = list(tiny.layers.values())
    assert [layer.block for layer in layers] == [block for block in range(7) for _ in range(2)]
    assert [layer.kind for layer in layers] == ["self", "cross"] * 7
    assert [layer.grid for layer in layers[::2]] == [16, 8, 8, 8, 8, 16, 16]
    assert [layer.place for layer in layers[::2]] == ["down"] * 2 + ["mid"] + ["up"] * 4


def stable_diffusion(**sizes: object) -> nn.Module:
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        **sizes,
    )


@pytest.mark.parametrize(
    ("unet", "grids", "residual", "behind"),
    [
        # Stable Diffusion 1: Plug-and-Play's residual is up_blocks.1.resnets.1.
        (
            stable_diffusion(),
            [64, 64, 32, 32, 16, 16, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64],
            "up_blocks.1.resnets.1",
            range(8, 16),
        ),
        # SDXL: several transformer blocks stand between two ResNet blocks.
        (
            stable_diffusion(
                down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
                up_block_types=(*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 1, 3),
                layers_per_block=1,
            ),
            [32, 32, 16, 8, 8, 8, 8, 8, 8, *[8] * 6, 16, 16, *[32] * 4],
            "up_blocks.0.resnets.1",
            range(12, 21),
        ),
    ],
)
def test_other_shapes_of_networks(
    unet: nn.Module, grids: list[int], residual: str, behind: range
) -> None:
    layers, residuals = parts(unet)
    assert list(layers) == [name for name in _evaluated(unet) if name in layers]
    assert [layer.grid for layer in layers.values()][::2] == grids
    first = min(layer.block for layer in layers.values() if layer.place == "up")
    found = [n for n, r in residuals.items() if r.place == "up" and r.block > first]
    assert found[0] == residual
    assert range(residuals[residual].block, len(grids)) == behind


def _evaluated(unet: nn.Module) -> list[str]:
    names = list(unet.attn_processors)  # type: ignore[arg-type]
    return [name for place in ("down", "mid", "up") for name in names if name.startswith(place)]
