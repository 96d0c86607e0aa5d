"""Predicted noise led to be like noise, by gradients: what Pix2Pix-Zero and ReNoise have in common.

Knows tensors only.
"""

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

REGULARISATION, ROUNDS, SMALLEST = 20.0, 5, 8
"""The rate of Pix2Pix-Zero's gradient steps, how often each is taken, and the side where the
pyramid ends."""
PATCH = 4
"""The side of the patches that ReNoise compares."""


def regularised(eps: Tensor, shifts: random.Random) -> Tensor:
    """Predicted noise [B, C, h, w] led to be white: section 3.1 of the paper.

    By gradient steps on the autocorrelation, and on the divergence from the normal distribution.
    """
    for _ in range(ROUNDS):
        for _ in range(ROUNDS):
            step = REGULARISATION / ROUNDS
            eps = eps - step * gradient(lambda noise: autocorrelation(noise, shifts), eps)
        eps = eps - REGULARISATION * gradient(divergence, eps)
    return eps


def autocorrelation(eps: Tensor, shifts: random.Random) -> Tensor:
    """[B, C, h, w] -> [B]: squared means of the product with itself, shifted by rows and by
    columns, summed over the channels and the levels of their pyramids.
    """
    loss = torch.zeros(len(eps), device=eps.device)
    for level in eps.split(1, dim=1):
        while True:
            shift = shifts.randrange(level.shape[-1] // 2)
            for axis in (-2, -1):
                product = level * level.roll(shift, dims=axis)
                loss = loss + product.mean(dim=(1, 2, 3)).square()
            if level.shape[-1] <= SMALLEST:
                break
            level = F.avg_pool2d(level, 2)
    return loss


def divergence(eps: Tensor) -> Tensor:
    """[B, C, h, w] -> [B]: twice the Kullback-Leibler divergence of all values' normal
    distribution from the standard one.
    """
    values = eps.flatten(1)
    variance, mean = values.var(dim=1), values.mean(dim=1)
    return variance + mean.square() - 1 - (variance + 1e-7).log()


def patch_divergence(eps: Tensor, reference: Tensor) -> Tensor:
    """[B, C, h, w] twice -> [B]: the Kullback-Leibler divergence of each patch's normal
    distribution from that of the reference's patch, summed over patches and channels.
    """
    moments = []
    for noise in (eps, reference):
        patches = noise.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(4)
        moments.append((patches.mean(dim=-1), patches.var(dim=-1) + 1e-6))
    (mean, variance), (mean_0, variance_0) = moments
    ratio = variance / variance_0
    divergence = (ratio + (mean - mean_0).square() / variance_0 - 1 - ratio.log()) / 2
    return divergence.flatten(1).sum(dim=1)


def gradient(loss: Callable[[Tensor], Tensor], eps: Tensor) -> Tensor:
    """The gradient at eps [B, ...] of the summed loss [B]."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        eps = eps.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(eps).sum(), eps)
        return gradient
