"""Trains the SqueezeNet backbone of the miniature's LPIPS and writes its feature layers.

The network tells which words a scene's prompt holds, and its perceptual distance is taught an
order: other phases of the same textures are nearer than a changed attribute, that is nearer than
another scene.
Knows scenes, the training loop and the scorer it trains for.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lpips
import numpy as np
import torch
from numpy.random import Generator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.shapes.grammar import WORDS, Scene, sample_edit, sample_scene
from ..data.shapes.render import render
from ..metrics.case import EditCase
from ..metrics.lpips import Lpips
from .loop import Schedule, train
from .scenes import TRAINING_SEEDS, to_unit_range

log = logging.getLogger(__name__)

HELD_OUT_SEED = TRAINING_SEEDS.stop + 2**31
WEIGHTS = "features.safetensors"
ATTRIBUTE_TYPES = (1, 4, 5, 6, 7, 8, 9)
"""The edit types that replace a word, so that as many objects remain."""
_MARGIN = 0.5  # of the logarithm of the distance


class WordReader(nn.Module):
    """The perceptual distance under training, and a linear reading of its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.distance = lpips.LPIPS(
            net="squeeze", lpips=False, pnet_rand=True, pnet_tune=True, verbose=False
        )
        self.words = nn.Linear(self.distance.chns[-1], len(WORDS))

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Layers of images [B,3,H,W] in [-1, 1], and logits [B, words] of what they show."""
        layers = list(self.distance.net(self.distance.scaling_layer(images)))
        return layers, self.words(layers[-1].mean(dim=(2, 3)))


def train_squeezenet(
    folder: Path, work: Path, *, device: str, steps: int, batch: int, learning_rate: float
) -> None:
    """Train on ``batch`` triples a step and write ``folder/WEIGHTS``, float16, torchvision's names.

    ``work`` keeps the checkpoint. Logs the share of unseen triples in order.
    """
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    reader = WordReader().to(device).to(memory_format=torch.channels_last)

    def loss(step: int) -> dict[str, Tensor]:
        seeds = TRAINING_SEEDS[step * batch : (step + 1) * batch]
        triples = [draw_triple(np.random.default_rng(seed)) for seed in seeds]
        scenes = [scene for column in zip(*triples, strict=True) for scene in column]
        # The renderer's channels are last, and stay so in memory: convolutions are faster that way.
        pixels = to_unit_range(torch.from_numpy(render(scenes).images).movedim(-1, 1)).to(device)
        with torch.autocast(pixels.device.type, torch.bfloat16):
            layers, logits = reader(pixels)
        said = [[word in scene.prompt().split() for word in WORDS] for scene in scenes]
        # Not the package's normalisation: its gradient is not a number where all features are 0.
        unit = [F.normalize(layer.float(), dim=1).chunk(3) for layer in layers]
        first, same, changed = zip(*unit, strict=True)
        other = [layer.roll(1, 0) for layer in first]
        near, middle, far = (_log_distance(first, scene) for scene in (same, changed, other))
        return {
            "words": 10
            * F.binary_cross_entropy_with_logits(
                logits.float(), torch.tensor(said, device=device, dtype=torch.float32)
            ),
            "order": 5 * (F.relu(_MARGIN + near - middle) + F.relu(_MARGIN + middle - far)).mean(),
        }

    train(reader, loss, Schedule(steps, learning_rate), work / "squeezenet.safetensors")
    pieces = reader.distance.net.state_dict()  # "slice1.0.weight": the number is torchvision's
    state = {
        f"features.{name.split('.', 1)[1]}": value.half().contiguous()
        for name, value in pieces.items()
    }
    save_file(state, folder / WEIGHTS)
    scorer = Lpips("lpips_shapes", backbone=folder / WEIGHTS, weighted=False, rows=3)
    log.info("triples in order: %.3f", ordered_triples(scorer))


def _log_distance(one: Sequence[Tensor], two: Sequence[Tensor]) -> Tensor:
    """Logarithm [B] of the unweighted perceptual distance of unit-length layers [B,C,h,w]."""
    layers = zip(one, two, strict=True)
    return (sum((((a - b) ** 2).sum(1).mean((1, 2)) for a, b in layers), torch.tensor(1e-6))).log()


def draw_triple(rng: Generator) -> tuple[Scene, Scene, Scene]:
    """A random scene, the same with other texture phases, the same with one attribute changed."""
    edit = sample_edit(rng, int(rng.choice(ATTRIBUTE_TYPES)))
    scene = edit.source
    things = [
        replace(thing, jitter=(*thing.jitter[:4], *rng.random(2).tolist()))
        for thing in scene.things
    ]
    jitter = (*rng.random(2).tolist(), scene.jitter[2])
    return scene, replace(scene, things=tuple(things), jitter=jitter), edit.target


def ordered_triples(scorer: Lpips, count: int = 200) -> float:
    """Share of held-out triples with d(other phase) < d(changed attribute) < d(other scene)."""
    hits = 0
    for index in range(count):
        rng = np.random.default_rng(HELD_OUT_SEED + index)
        source, *others = render([*draw_triple(rng), sample_scene(rng)]).images
        case = EditCase(source, None, None, "", "")
        near, middle, far = scorer(case, np.stack(others))[scorer.name]
        hits += bool(near < middle < far)
    return hits / count
