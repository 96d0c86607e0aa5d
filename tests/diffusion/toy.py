"""A model that is no U-Net, in the fewest lines: a rectified flow towards the colour of a prompt.

Latents are the picture at half its size. Where they are bright the prompt's colour is what it
expects; elsewhere black. It has no attention to look at.
"""

from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor

from piebench_masks.diffusion.backbone import Ablation, Conditioning, Posterior, Span
from piebench_masks.diffusion.level import CLEAN, Level

COLOURS = {"red": (1.0, -1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}


class Toy:
    device, dtype = torch.device("cpu"), torch.float32
    image_size, latent_size, map_size, max_tokens = 32, 16, 16, 8
    provides: frozenset[Any] = frozenset()

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.layers: dict[str, Any] = {}
        self.residuals: dict[str, Any] = {}

    @classmethod
    def from_folder(cls, folder: Path, **options: Any) -> "Toy":
        return cls()

    @classmethod
    def describe(cls, folder: Path, *, few_steps: bool) -> tuple[int, int, frozenset[Any]]:
        return cls.image_size, cls.latent_size, cls.provides

    def tokenize(self, prompt: str) -> list[int]:
        return [0, *(crc32(word.encode()) for word in prompt.split()), 1]

    def token_text(self, token_id: int) -> str:
        return str(token_id)

    def spans(self, prompt: str) -> list[Span]:
        starts = [i for i, c in enumerate(prompt) if c != " " and prompt[i - 1 : i] in ("", " ")]
        return [(0, 0), *((i, i + len(prompt[i:].split()[0])) for i in starts), (0, 0)]

    def encode_prompts(self, prompts: Any, ablate: list[Ablation] | None = None) -> Conditioning:
        colours = [[COLOURS[w] for w in p.split() if w in COLOURS] or [(0.0,) * 3] for p in prompts]
        hidden = torch.stack([torch.tensor(each).mean(dim=0) for each in colours])
        return Conditioning(hidden[:, None], torch.zeros(len(prompts), 0))

    def encode_images(self, images: Tensor) -> Posterior:
        latents = F.avg_pool2d(images.permute(0, 3, 1, 2).float() / 127.5 - 1, 2)
        return Posterior(latents, torch.zeros_like(latents))

    def decode(self, latents: Tensor) -> Tensor:
        pixels = F.interpolate((latents.clamp(-1, 1) + 1) * 127.5, scale_factor=2)
        return pixels.permute(0, 2, 3, 1).round().to(torch.uint8)

    def level(self, timestep: float) -> Level:
        return Level(timestep, 1 - timestep / 1000, timestep / 1000)

    def levels(self, steps: int, spacing: str = "leading") -> list[Level]:
        return [*(self.level(900 * i / steps) for i in range(steps, 0, -1)), CLEAN]

    def predict_noise(
        self, z: Tensor, t: Tensor, text: Conditioning, control: Any = None
    ) -> Tensor:
        self.counts["unet_rows"] += len(z)
        noise = (t / 1000).view(-1, 1, 1, 1)
        bright = z.mean(dim=1, keepdim=True) > -0.5
        x0 = torch.where(bright, text.hidden[:, 0, :, None, None], -torch.ones(()))
        return (z - (1 - noise) * x0) / noise.clamp(min=1e-6)
