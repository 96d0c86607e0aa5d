"""MasaCtrl, Plug-and-Play and DiffEdit beside what the reference and diffusers made of a pair.

Families like those of editors.py, from the same stored cases.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from editors import GUIDANCE, LATENT, STEPS, EditorCase, Family
from families import Check, furthest
from goldens import ONE
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.ddpm import add_noise
from piebench_masks.editing.diffedit import DiffEdit
from piebench_masks.editing.inversion import Inversion, ddim, direct
from piebench_masks.editing.masactrl import MasaCtrl
from piebench_masks.editing.plug_and_play import PlugAndPlay
from piebench_masks.masks import METHODS
from piebench_masks.masks.record import Record, Recording

EVERYWHERE = torch.ones(1, 64, 64, dtype=torch.bool)
FINAL_RMS, FINAL_MOST, FLIPPED = 2e-3, 5e-2, 4
NOISED = 1e-4
MAP_GUIDANCE = 6.5
"""Without negative prompts guidance only scales the map. By how much was measured: the stored maps
have this factor to 5e-6, and not the 7.5 of their README. Masks do not depend on it."""
RATIOS = (1.0, 3.0, 5.0)
MASACTRL = MasaCtrl(ddim, STEPS, GUIDANCE)
PLUG_AND_PLAY = PlugAndPlay(ddim, STEPS, GUIDANCE)
DIFFEDIT_EDITOR = DiffEdit(STEPS, guidance=GUIDANCE, compat="reference", seed=0)


@cache
def masactrl_inversion(case: EditorCase) -> Inversion:
    return MASACTRL.invert(case.backbone, case.sources)


@cache
def reconstruction(case: EditorCase) -> Inversion:
    return PLUG_AND_PLAY.invert(case.backbone, case.sources)


def _final(family: str, name: str, found: Tensor, expected: Tensor) -> Iterator[Check]:
    rms = (found - expected).square().mean().sqrt().item()
    yield Check(f"{family} (rms)", name, rms, FINAL_RMS)
    yield Check(f"{family} (most)", name, furthest(found, expected), FINAL_MOST)


def feature_inversions(case: EditorCase) -> Iterator[Check]:
    """MasaCtrl's inversion, which has no prompt; Plug-and-Play's, and what samples back from it."""
    for i, expected in case.stored("masactrl/x_stars"):
        error = furthest(masactrl_inversion(case).x[STEPS - i][0], expected)
        yield Check("MasaCtrl's inversion", f"{case.key} masactrl/x_stars {i}", error, LATENT)
    for i, expected in case.stored("pnp/inverted"):
        error = furthest(case.ddim.x[STEPS - i][0], expected)
        yield Check("Plug-and-Play's inversion", f"{case.key} pnp/inverted {i}", error, LATENT)


def masactrl(case: EditorCase) -> Iterator[Check]:
    """Final latents, with both inversions."""
    for label, inversion in (("ddim", ddim), ("directinversion", direct)):
        if (name := f"{label}+masactrl/final") not in case.arrays:
            continue
        inverted = masactrl_inversion(case)
        if inversion is direct:
            inverted = replace(inverted, trajectory=inverted.x)
        edited = MASACTRL.sample(case.backbone, case.sources, inverted, EVERYWHERE, ONE)
        # ddim has the source's row before the edit's.
        expected = case.arrays[name][-1]
        yield from _final("MasaCtrl", f"{case.key} {name}", edited.latents[0], expected)


def plug_and_play(case: EditorCase) -> Iterator[Check]:
    """Final latents, with both inversions; ddim from the reference's list, one step too far."""
    for i, expected in case.stored("pnp/recon_list"):
        trajectory = reconstruction(case).trajectory
        assert trajectory is not None
        error = furthest(trajectory[STEPS - i][0], expected)
        name = f"{case.key} pnp/recon_list {i}"
        yield Check("Plug-and-Play's reconstruction", name, error, LATENT)
    for label in ("ddim", "directinversion"):
        if (name := f"{label}+pnp/final") not in case.arrays:
            continue
        inverted = reconstruction(case)
        assert inverted.trajectory is not None
        late = torch.cat([inverted.trajectory[1:], inverted.trajectory[-1:]])
        inverted = replace(inverted, trajectory=late if label == "ddim" else inverted.x)
        edited = PLUG_AND_PLAY.sample(case.backbone, case.sources, inverted, EVERYWHERE, ONE)
        expected = case.arrays[name]
        yield from _final("Plug-and-Play", f"{case.key} {name}", edited.latents[0], expected)


def diffedit_maps(case: EditorCase) -> Iterator[Check]:
    """Raw maps and masks, of one draw of the posterior and one of the noise for every map."""
    if "diffedit/mask_t" not in case.arrays:
        return
    timestep = int(case.arrays["diffedit/mask_t"])
    level = case.backbone.level(timestep)
    for name in sorted(case.arrays):
        if not (found := re.fullmatch(r"diffedit/raw/(n(\d+)/seed(\d+))", name)):
            continue
        label, count, seed = found[1], int(found[2]), int(found[3])
        generator = torch.Generator().manual_seed(seed)
        draws, noise = (torch.randn(count, 4, 64, 64, generator=generator) for _ in range(2))
        z = add_noise(case.x0 + case.planar_posterior.std * draws, noise, level)
        whose = "our"
        if (stored := f"diffedit/unet_in/{label}") in case.arrays:
            error = furthest(z, case.arrays[stored])
            yield Check("DiffEdit's noised latents", f"{case.key} {stored}", error, NOISED)
            z, whose = case.arrays[stored], "stored"
        rows, t = ONE.expand(count), torch.full((count,), timestep)
        source, target = (
            case.backbone.predict_noise(z, t, text[rows]) for text in case.conditioning[1:]
        )
        pixels = torch.zeros(64, 64, 3, dtype=torch.uint8)
        rows = {
            ("source_concept", None): Recording(arrays={"noise": source}),
            ("target_concept", None): Recording(arrays={"noise": target}),
        }
        record = Record(Scene(case.key, pixels, "", ""), map_size=16, recordings=rows)
        raw = MAP_GUIDANCE * METHODS["diffedit"](record)
        error = furthest(raw, case.arrays[name])
        yield Check(f"DiffEdit's maps of {whose} latents", f"{case.key} {name}", error, LATENT)
        masks = METHODS["diffedit"].cutter.masks(raw, RATIOS, (64, 64), "reference")
        for ratio, mask in zip(RATIOS, masks, strict=True):
            if (stored := f"diffedit/mask/{label}/ratio{ratio:g}") in case.arrays:
                wrong = (mask != _mask(case, stored)).sum().item()
                yield Check("DiffEdit's masks (pixels)", f"{case.key} {stored}", wrong, FLIPPED)


def diffedit(case: EditorCase) -> Iterator[Check]:
    """Inversion without guidance, as published, and what is painted from it."""
    if "diffedit/invert/cfg1/latents" not in case.arrays:
        return
    sources = replace(case.sources, posterior=case.posterior)
    inverted = DIFFEDIT_EDITOR.invert(case.backbone, sources)
    for i, expected in case.stored("diffedit/invert/cfg1/latents"):
        error = furthest(inverted.x[i][0], expected)
        yield Check("DiffEdit's inversion", f"{case.key} {i}", error, LATENT)
    for negative in ("noneg", "negsrc"):
        if (name := f"diffedit/edit/cfg1/{negative}/final") not in case.arrays:
            continue
        if negative == "negsrc":
            steps = len(inverted.timesteps)
            inverted = replace(inverted, negative=[case.conditioning[1]] * steps)
        mask = _mask(case, "diffedit/mask/n10/seed0/ratio3")[None]
        edited = DIFFEDIT_EDITOR.sample(case.backbone, sources, inverted, mask, ONE)
        expected = case.arrays[name]
        yield from _final("DiffEdit", f"{case.key} {name}", edited.latents[0], expected)


def _mask(case: EditorCase, name: str) -> Tensor:
    bits = np.unpackbits(case.arrays[name].numpy()).astype(bool)
    return torch.from_numpy(bits).reshape(64, 64)


FEATURE_FAMILIES: tuple[Family, ...] = (
    feature_inversions,
    masactrl,
    plug_and_play,
    diffedit_maps,
    diffedit,
)
SLOW_FEATURE_FAMILIES = FEATURE_FAMILIES[1:]
"""Whole trajectories, which cost some seconds each."""
