"""Classifier-free guidance (Ho and Salimans, arXiv 2207.12598). Knows no method."""

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Conditioning


def guided_noise(
    backbone: Backbone,
    z: Tensor,
    timestep: float | Tensor,
    text: Conditioning,
    negative: Conditioning,
    guidance: float,
) -> Tensor:
    """The noise of N rows of z, led from ``negative`` to ``text``: [N, C, h, w].

    timestep: one for all, or one for each. Asks for ``evaluations(guidance)`` of every row.
    """
    t = torch.as_tensor(timestep).expand(len(z))
    if guidance == 1:
        return backbone.predict_noise(z, t, text)
    both = Conditioning.cat([text, negative])
    eps, eps_negative = backbone.predict_noise(torch.cat([z, z]), t.repeat(2), both).chunk(2)
    return eps_negative + guidance * (eps - eps_negative)


def evaluations(guidance: float) -> int:
    """Of the U-Net, for one guided prediction: at scale 1 nothing is led away from."""
    return 1 if guidance == 1 else 2
