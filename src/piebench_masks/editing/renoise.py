"""ReNoise (Garibi et al., arXiv 2403.14602): an inversion that predicts noise where steps lead to.

From the formula. Called as the functions of `inversion`; knows nothing of edits, targets or masks.
"""

import random

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Conditioning
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.diffusion.ddpm import add_noise
from piebench_masks.editing.inversion import Inversion
from piebench_masks.editing.whitening import autocorrelation, gradient, patch_divergence
from piebench_masks.errors import BenchmarkError


@torch.inference_mode()
def renoise(
    backbone: Backbone,
    x0: Tensor,
    source: Conditioning,
    *,
    steps: int,
    guidance: float,
    first_averaged: tuple[int, int] = (0, 5),
    averaged: tuple[int, int] = (8, 10),
    pair_weight: float = 0.0,
    patch_weight: float = 0.0,
    seed: int = 1234,
) -> Inversion:
    """ReNoise: the noise of a step is predicted in the latents that the step ends at.

    Prediction 0 is made in the latents that the step starts from, as in `ddim`, prediction k in
    those that prediction k - 1 leads to. first_averaged, averaged: from which prediction up to
    which (not included) the mean is taken that the step is made with, at the first step from the
    picture and at all others; none is made beyond. pair_weight, patch_weight: rates of gradient
    steps on every prediction (published: 20 and 0.055), on its autocorrelation and on how far its
    patches are from those of the prediction in the noised picture, at a further evaluation a step.
    Raises BenchmarkError for a range without a prediction.
    """
    for name, (start, stop) in (("first_averaged", first_averaged), ("averaged", averaged)):
        if not 0 <= start < stop:
            raise BenchmarkError(
                f"inversion.{name} is [{start}, {stop}]: give the first prediction, from 0 on, and "
                "a larger number, that behind the last"
            )
    levels = backbone.levels(steps)
    shifts = random.Random(seed)  # every sample gets those that it would get alone
    draw = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x0.device)

    def predicted(z: Tensor, i: int) -> Tensor:
        return backbone.predict_noise(z, torch.full((len(z),), levels[i].timestep), source)

    x, nfe = [x0], 0
    for i in reversed(range(steps)):
        start, stop = first_averaged if i == steps - 1 else averaged
        reference = predicted(add_noise(x0, draw, levels[i]), i) if patch_weight else x0
        z, total = x[0], torch.zeros_like(x0)
        for k in range(stop):
            eps = predicted(z, i)
            if pair_weight:
                eps = eps - pair_weight * gradient(lambda e: autocorrelation(e, shifts), eps)
            if patch_weight:
                eps = eps - patch_weight * gradient(
                    lambda e: patch_divergence(e, reference.clone()),  # noqa: B023
                    eps,
                )
            z = ddim_step(x[0], eps, levels[i + 1], levels[i])
            total = total + eps if k >= start else total
        x.insert(0, ddim_step(x[0], total / (stop - start), levels[i + 1], levels[i]))
        nfe += stop + bool(patch_weight)
    empty_prompt = backbone.encode_prompts([""] * len(x0))
    return Inversion(levels, torch.stack(x), [empty_prompt] * steps, torch.full((len(x0),), nfe))
