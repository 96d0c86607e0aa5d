"""Trains a small vision transformer without labels, whose class token looks at the objects.

Two pictures show the same objects on different backgrounds: what tells such pairs apart in a batch
(InfoNCE, van den Oord et al., arXiv 1807.03748) is on the objects. Knows scenes and the training
loop.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from piebench_masks.data.shapes.grammar import BACKGROUNDS, CLASHES, STYLES, Scene, sample_scene
from piebench_masks.data.shapes.render import IMAGE_SIZE, render
from piebench_masks.training.clip import HELD_OUT_SEED
from piebench_masks.training.loop import Schedule, train
from piebench_masks.training.scenes import TRAINING_SEEDS, pool_of

log = logging.getLogger(__name__)

FIRST_SEED = 7 * 2**29
"""Of the scenes, behind those of all other phases."""
_SHARPNESS = 10.0
"""What cosines are multiplied by."""


def build_vit() -> ViTModel:
    """An untrained ViT of one block: 64x64 pictures in [0, 1], in patches of 4.

    In a second block the class token looked anywhere.
    """
    config = ViTConfig(
        image_size=IMAGE_SIZE,
        patch_size=4,
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=1,
        num_attention_heads=3,
    )
    return ViTModel(config, add_pooling_layer=False)


class Compared(nn.Module):
    """The transformer, and a head that training alone needs."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = build_vit()
        width = self.vit.config.hidden_size
        # Without the norms over the batch all vectors stay the same.
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 64),
            nn.BatchNorm1d(64, affine=False),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors [B,64] of pictures uint8 [B,3,64,64]."""
        tokens = self.vit(images.float() / 255).last_hidden_state
        return F.normalize(self.head(tokens[:, 0]), dim=-1)


def train_vit(
    folder: Path, work: Path, *, device: str, steps: int, batch: int, learning_rate: float
) -> None:
    """Train on ``batch`` pairs a step, each seen once; write the folder with float16 weights.

    The folder is written at every checkpoint. Logs :func:`attention_on_objects`.
    """
    torch.manual_seed(0)
    model = Compared().to(device)

    def loss(step: int) -> dict[str, Tensor]:
        images = draw_pairs(range(FIRST_SEED + step * batch, FIRST_SEED + (step + 1) * batch))
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            first, second = model(images.to(device)).float().chunk(2)
        logits, own = _SHARPNESS * first @ second.T, torch.arange(batch, device=device)
        return {
            "first": F.cross_entropy(logits, own) / 2,
            "second": F.cross_entropy(logits.T, own) / 2,
        }

    def export() -> None:
        half = ViTModel(model.vit.config, add_pooling_layer=False).half()
        half.load_state_dict(model.vit.state_dict())
        half.save_pretrained(folder)
        share, area = attention_on_objects(folder)
        log.info("attention on objects: %.3f, their area: %.3f", share, area)

    schedule = Schedule(steps, learning_rate, average=0.998, save_every=100)
    train(model, loss, schedule, work / "vit.safetensors", on_checkpoint=export)


def draw_pairs(seeds: Sequence[int]) -> Tensor:
    """Scenes, one a seed, and then the same objects elsewhere: uint8 [2N,3,64,64]."""
    rngs = [np.random.default_rng(TRAINING_SEEDS[seed]) for seed in seeds]
    scenes = [sample_scene(rng) for rng in rngs]
    others = [elsewhere(rng, scene) for rng, scene in zip(rngs, scenes, strict=True)]
    return torch.from_numpy(render([*scenes, *others]).images).movedim(-1, 1)


def elsewhere(rng: Generator, scene: Scene) -> Scene:
    """The scene's objects on another background, in any style."""
    colors = {thing.color for thing in scene.things}
    allowed = [
        background
        for background in BACKGROUNDS
        if background != scene.background
        and not any((color, background) in CLASHES for color in colors)
    ]
    styles = (None, *STYLES)
    return replace(
        scene,
        background=allowed[int(rng.random() * len(allowed))],
        style=styles[int(rng.random() * len(styles))],
        jitter=tuple(rng.random(3).tolist()),
    )


@torch.no_grad()
def attention_on_objects(folder: Path, count: int = 200) -> tuple[float, float]:
    """The share of the class token's attention that lies on objects, and that of their area.

    Means over held-out scenes; of the last block, the mean of its heads, patches alone.
    """
    vit = ViTModel.from_pretrained(
        folder, add_pooling_layer=False, dtype=torch.float32, attn_implementation="eager"
    )
    seeds = range(HELD_OUT_SEED + 2 * 10**6, HELD_OUT_SEED + 2 * 10**6 + count)
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in seeds]
    pool = pool_of(scenes, cells=vit.config.image_size // vit.config.patch_size)
    attention = vit(pool.images.float() / 255, output_attentions=True).attentions[-1]
    patches = attention.mean(dim=1)[:, 0, 1:]
    objects = pool.regions[:, :2].float().amax(dim=1).flatten(1)
    share = (patches * objects).sum(dim=1) / patches.sum(dim=1)
    return share.mean().item(), objects.mean().item()
