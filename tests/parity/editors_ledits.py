"""What diffusers' LEDITS++ pipelines computed on random models, against the editor `ledits_pp`.

The form of ../shared/goldens_masks/public; its README, one folder above, says what each array is.
Variants with settings that the editor does not have are left out.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from families import Check, furthest
from masks import MaskCase
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.ddim import ddpm_variance
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.ledits_pp import LeditsPP

NOISE, RMS = 1e-4, 1e-3


def ledits_editor(case: MaskCase) -> Iterator[Check]:
    """From the stored latents of the picture to the edits' last."""
    if "invert/plain/x0" not in case.arrays:
        return
    plain, x0 = case.facts["invert"]["plain"], case.arrays["invert/plain/x0"][None].float()
    published = LeditsPP(
        steps=plain["num_inversion_steps"],
        skip=plain["skip"],
        compat="reference",
        seed=plain["seed"],
    )
    backbone = case.goldens.backbone(f"{case.facts['model']}_random")
    check = partial(_checks, case, backbone, x0, plain.get("num_zero_noise_steps", 1))
    yield from check("recon", replace(published, scale=0.0), "")
    variant = case.facts["variants"]["intersect"]
    settings = {"scale": variant["edit_guidance_scale"], "threshold": variant["edit_threshold"]}
    (concept,) = variant["editing_prompt"]
    yield from check("intersect", replace(published, **settings), concept)


def _checks(
    case: MaskCase,
    backbone: Backbone,
    x0: Tensor,
    zeroed: int,
    name: str,
    asked: LeditsPP,
    text: str,
) -> Iterator[Check]:
    picture = torch.zeros(1, 1, 3, dtype=torch.uint8)
    sources = Sources([Scene(case.key, picture, "", text)], Posterior(x0, torch.zeros_like(x0)))
    inverted = asked.invert(backbone, sources)
    timesteps = case.facts["invert"]["plain"]["timesteps"]
    yield case.error("ledits_pp", "time steps", float(inverted.timesteps != timesteps), 0)
    start = case.arrays["invert/plain/init_latents"]
    yield case.error("ledits_pp", f"{name} start", furthest(inverted.x[0, 0], start), 1e-5)
    for i, stored in enumerate(case.arrays["invert/plain/zs"][:-zeroed].float()):
        level, following = inverted.levels[i : i + 2]
        z = inverted.noise[i, 0] / ddpm_variance(level, following) ** 0.5
        yield case.error("ledits_pp", f"{name} z of step {i}", furthest(z, stored), NOISE)
    noise = inverted.noise.clone()
    noise[-zeroed:] = 0
    mask, owner = torch.ones(1, *x0.shape[-2:]).bool(), torch.tensor([0])
    inverted = replace(inverted, noise=noise)
    (latents,) = asked.sample(backbone, sources, inverted, mask, owner).latents
    stored = case.arrays.get(f"edit/{name}/final")
    if stored is None:
        stored, latents = case.arrays[f"edit/{name}/final_pool2"], F.avg_pool2d(latents, 2)
    rms = (latents - stored).square().mean().sqrt().item()
    yield case.error("ledits_pp", f"{name} latents", rms, RMS)


LEDITS_FAMILIES = (ledits_editor,)
