"""Sampling a picture from noise, each of its items after its own text, under regions that the
source is put back into after every step (D-Edit, arXiv 2403.04880).

Knows latents, texts and regions; must not know which edit they are of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.diffusion.ddim import ddim_step, ddpm_variance
from piebench_masks.diffusion.ddpm import TRAIN_TIMESTEPS, add_noise, posterior_mean
from piebench_masks.diffusion.level import CLEAN, Level
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items.attention import ItemTexts, no_texts, predict_noise
from piebench_masks.items.mask_edits import on_grid
from piebench_masks.items.regions import Regions


@dataclass(frozen=True)
class Sampling:
    """How edits are sampled.

    steps: of DDPM with SDXL, of DDIM with Stable Diffusion 1 and 2; guidance: its scale; strength:
    the share of the steps in which the source is put back into the soft region, too; thickness: of
    that region, pixels; images: how many; seed: of the first, the others have the next ones.
    Raises BenchmarkError for values out of range.
    """

    steps: int = 50
    guidance: float = 3.0
    strength: float = 0.8
    thickness: int = 20
    images: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        is_right = 1 <= self.steps <= TRAIN_TIMESTEPS and 0 <= self.strength <= 1
        if not is_right or self.images < 1 or self.thickness < 0:
            raise BenchmarkError(
                f"steps lie in 1 to {TRAIN_TIMESTEPS}, strength in 0 to 1, images from 1 and "
                f"thickness from 0 on: correct {self}"
            )


@dataclass(frozen=True, eq=False)
class Source:
    """What is put back: the VAE's posterior of the source, and the regions of the edit."""

    posterior: Posterior
    regions: Regions


def schedule(backbone: StableDiffusion, steps: int) -> list[tuple[Level, Level]]:
    """The levels of so many steps, each with that of its result; noisiest first.

    Time steps are multiples of 1000 // steps, for SDXL one more; the last result is CLEAN.
    """
    spacing, offset = TRAIN_TIMESTEPS // steps, int(backbone.text.is_xl)
    timesteps = [i * spacing + offset for i in reversed(range(steps))]
    return [
        (backbone.level(t), backbone.level(t - spacing) if t >= spacing else CLEAN)
        for t in timesteps
    ]


@torch.inference_mode()
def sample(
    backbone: StableDiffusion,
    texts: ItemTexts,
    settings: Sampling,
    latent_shape: tuple[int, int, int],
    source: Source | None = None,
    *,
    compat: Compat,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> Tensor:
    """Final latents [N, C, h, w], float32.

    latent_shape: [C, h, w]; source: None where nothing is put back; progress: is told after every
    step how many of how many are done. The source is put back at the
    level of the step's result, so that the hard region ends as the source's mean latents, and into
    the soft region before the share ``strength`` of the steps is done. Each image has the draws of
    its own seed. A cell of the latents is in the regions of its top left pixel: parts of a region
    that no such pixel lies in have no effect. Where every cell is hard, no network is asked.

    ``reference``: all images have the draws of one seed and share those of the source, which is
    put back at the level before the step, from one draw of its posterior; the soft region has one
    step more.
    """
    draws = Draws(settings, latent_shape, backbone.device, compat)
    x = draws.normal()
    if source is not None:
        hard, soft = on_grid(
            torch.stack([source.regions.hard, source.regions.soft]), latent_shape[1:]
        ).to(x.device)
        z0, noise = draws.of_source(source.posterior)
        if compat == "exact" and hard.all():
            return z0.expand_as(x).clone()
    groups = [no_texts(backbone, texts.masks), texts]
    end = settings.strength * settings.steps
    for i, (level, following) in enumerate(schedule(backbone, settings.steps)):
        eps = _guided(backbone, x, level, groups, settings.guidance, compat)
        if backbone.text.is_xl:
            deviation = ddpm_variance(level, following) ** 0.5
            x = posterior_mean(x, eps, level, following) + deviation * draws.normal()
        else:
            x = ddim_step(x, eps, level, following)
        if source is not None:
            is_soft = i <= end if compat == "reference" else i < end
            kept = hard | soft if is_soft else hard
            y = add_noise(z0, noise, level if compat == "reference" else following)
            x = torch.where(kept, y, x)
        progress(i + 1, settings.steps)
    return x


def _guided(
    backbone: StableDiffusion,
    x: Tensor,
    level: Level,
    groups: Sequence[ItemTexts],
    guidance: float,
    compat: Compat,
) -> Tensor:
    """groups: of unconditional and of conditional rows."""
    wanted = [1] if guidance == 1 and compat == "exact" else [0, 1]
    owner = torch.tensor(wanted).repeat_interleave(len(x))
    rows = x.repeat(len(wanted), 1, 1, 1)
    timesteps = torch.full((len(rows),), int(level.timestep))
    eps = predict_noise(backbone, rows, timesteps, groups, owner).chunk(len(wanted))
    return eps[0] + guidance * (eps[-1] - eps[0])


class Draws:
    """The normal draws of N images, in the order in which they are asked for."""

    def __init__(
        self, settings: Sampling, shape: tuple[int, int, int], device: torch.device, compat: Compat
    ) -> None:
        seeds = range(settings.seed, settings.seed + settings.images)
        self._is_shared = compat == "reference"
        self._rows = settings.images if self._is_shared else 1
        generators = seeds[:1] if self._is_shared else seeds
        self._generators = [torch.Generator().manual_seed(seed) for seed in generators]
        self._shape, self._device = shape, device

    def normal(self, rows: int | None = None) -> Tensor:
        """[N, C, h, w]. rows: of a shared generator, None for all."""
        shape = (rows or self._rows, *self._shape)
        drawn = [torch.randn(shape, generator=generator) for generator in self._generators]
        return torch.cat(drawn).to(self._device)

    def of_source(self, posterior: Posterior) -> tuple[Tensor, Tensor]:
        """The source's latents [1, C, h, w] and their noise, [1 or N, C, h, w]."""
        if not self._is_shared:
            return posterior.mean, self.normal()
        for _ in range(2):  # the public code draws for the soft region, too, and forgets it
            z0 = posterior.mean + posterior.std * self.normal(1)
            noise = self.normal(1)
        return z0, noise
