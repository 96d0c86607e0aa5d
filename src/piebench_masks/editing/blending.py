"""One branch under a mask: guided sampling that has the source put back outside after every step.

What DiffEdit and Blended Latent Diffusion have in common; knows neither.
"""

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Conditioning
from piebench_masks.diffusion.guidance import evaluations, guided_noise
from piebench_masks.editing.editor import Sampled
from piebench_masks.editing.inversion import Inversion


@torch.inference_mode()
def sample_blended(
    backbone: Backbone,
    inversion: Inversion,
    outside: Tensor,
    target: Conditioning,
    masks: Tensor,
    owner: Tensor,
    *,
    guidance: float,
) -> Sampled:
    """Sample N edits of B inverted sources, from the noisiest latents on.

    outside: [K, B, C, h, w], what stands outside the masks after every step; target: B prompts;
    masks: bool [N, h, w]; owner: long [N]; guidance: its scale, 1 for none.
    """
    target = target[owner]
    y = inversion.x[0][owner]
    for i, timestep in enumerate(inversion.timesteps):
        negative = inversion.negative[i][owner]
        eps = guided_noise(backbone, y, timestep, target, negative, guidance)
        y = torch.where(masks[:, None], inversion.step(i, y, eps, owner), outside[i][owner])
    calls = len(inversion.timesteps) * evaluations(guidance)
    return Sampled(y, torch.full((len(y),), calls))
