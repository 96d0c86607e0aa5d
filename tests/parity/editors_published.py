"""What PnP Inversion's code made with other editors than Prompt-to-Prompt, family by family.

Blended Latent Diffusion, EDICT, InstructDiffusion, Pix2Pix-Zero and StyleDiffusion; families like
those of editors_more.py, of the same stored cases.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from editors import EMBEDDING, GUIDANCE, STEPS
from editors_more import (
    EVERYWHERE,
    LATENT,
    POOLED,
    TRUNCATED,
    MoreCase,
    MoreGoldens,
    Traced,
    final,
    picture,
    pooled,
)
from families import Check, furthest, relative
from goldens import ONE
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.data.rle import decode_runs, with_border
from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.attention import AttentionControl
from piebench_masks.diffusion.backbone import Backbone, Conditioning, Posterior
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.blended_latent_diffusion import BlendedLatentDiffusion
from piebench_masks.editing.blending import sample_blended
from piebench_masks.editing.branches import (
    AttentionLoss,
    SourceFeatures,
    StoredAttention,
    sample_edits,
)
from piebench_masks.editing.edict import Edict, unmixed
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.instruct_diffusion import (
    InstructDiffusion,
    ancestral,
    combined,
    sigma,
)
from piebench_masks.editing.instructed import Encoded
from piebench_masks.editing.inversion import Inversion, ddim, direct
from piebench_masks.editing.pix2pix_zero import Pix2PixZero, attention_gradient, text_layers
from piebench_masks.editing.style_diffusion import StyledAttention, StyleDiffusion, initial
from piebench_masks.editing.whitening import regularised
from piebench_masks.masks.binarize import nearest_exact

RMS_EDICT, RMS_ZERO, MOST_ZERO = 1e-4, 0.1, 5e-2
RMS_STYLE, RMS_EMBEDDING = 3e-2, 1e-3
CONDITION = LATENT / 0.18215  # the VAE's mean is not scaled
CLIP_SIZE, VIEW = 224, 2 * POOLED
"""Of what CLIP sees; normalised values reach 2, and means are stored in half precision."""
SIGMA, UNIT, REGULARISED, GRADIENT = 1e-4, 1e-6, 1e-6, 1e-4
BLENDED = BlendedLatentDiffusion(STEPS, guidance=GUIDANCE, compat="reference")
STYLE = StyleDiffusion(steps=STEPS, guidance=GUIDANCE, inner_steps=3, compat="reference")
EDICT = Edict(STEPS, compat="reference")
ZERO = {
    name: Pix2PixZero(inversion, STEPS, GUIDANCE, compat="reference")
    for name, inversion in (("ddim", ddim), ("directinversion", direct))
}


class Watched:
    """A model that keeps what its network is given and answers, and under which control."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.latents: list[Tensor] = []
        self.noise: list[Tensor] = []
        self.controls: list[AttentionControl | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Conditioning,
        control: AttentionControl | None = None,
    ) -> Tensor:
        noise = self.backbone.predict_noise(latents, timesteps, text, control)
        self.latents.append(latents.detach())
        self.noise.append(noise.detach())
        self.controls.append(control)
        return noise


def close(
    family: str, case: MoreCase, name: str, found: Tensor, tolerance: float
) -> Iterator[Check]:
    """One array, where it is stored."""
    if name in case.arrays:
        error = furthest(found, case.arrays[name])
        yield Check(family, f"{case.key} {name}", error, tolerance)


def sources_of(case: MoreCase, x0: Tensor) -> Sources:
    """The pair with latents [1, 4, 64, 64] that are known exactly."""
    scene = Scene(case.key, case.image[0], *case.prompts)
    return Sources([scene], Posterior(x0, torch.zeros_like(x0)))


def blended(case: MoreCase) -> Iterator[Check]:
    """Blended Latent Diffusion: its mask, one step, and all of them."""
    if "bld/mask64" not in case.arrays:
        return
    mask = case.mask("bld/mask64")
    if "bld/mask_rle" in case.arrays:
        runs = decode_runs(case.arrays["bld/mask_rle"].tolist(), 512, 512)
        full = torch.from_numpy(with_border(runs, 1))
        wrong = (nearest_exact(full[None], 64) != mask).sum().item()
        yield Check("BLD masks (pixels)", f"{case.key} bld/mask64", wrong, 0)
        if "bld/mask512" in case.arrays:
            wrong = (full != case.mask("bld/mask512", 512)[0]).sum().item()
            yield Check("BLD masks (pixels)", f"{case.key} bld/mask512", wrong, 0)
    yield from close("VAE mean", case, "bld/x0_src", case.posterior.mean[0], LATENT)
    sources = sources_of(case, case.x0)
    inverted = BLENDED.invert(case.backbone, sources)
    found = torch.tensor(inverted.timesteps)
    yield from close("BLD time steps", case, "bld/timesteps", found, 0)
    noise = torch.stack(
        [
            (x[0] - level.signal * case.x0[0]).flatten()[:8] / level.noise
            for x, level in zip(inverted.x[1:], inverted.levels, strict=False)
        ]
    )
    yield from close("BLD noise", case, "bld/noise_first_values", noise, LATENT)

    def step(i: int, y: Tensor, where: Tensor) -> Tensor:
        one = replace(inverted, levels=inverted.levels[i : i + 2], x=y[None])
        outside = inverted.x[i + 1 : i + 2]
        target = case.conditioning[2]
        edited = sample_blended(case.backbone, one, outside, target, where, ONE, guidance=GUIDANCE)
        return edited.latents

    if "bld/step4_in" in case.arrays:
        after = step(4, case.arrays["bld/step4_in"][None], mask)[0]
        yield from close("BLD steps", case, "bld/step4_out", after, LATENT)
    y, before_blending, after_blending = inverted.x[0], [], []
    for i in range(len(inverted.timesteps)):
        if "bld/preblend_pool4" in case.arrays:
            before_blending.append(step(i, y, EVERYWHERE))
        y = step(i, y, mask)
        after_blending.append(y)
    yield from pooled("BLD", case, "bld/step_pool4", torch.stack(after_blending), POOLED)
    if before_blending:
        yield from pooled("BLD", case, "bld/preblend_pool4", torch.stack(before_blending), POOLED)
    edited = BLENDED.sample(case.backbone, sources, inverted, mask, ONE)
    yield from final("BLD", case, "bld/final", edited.latents[0])
    yield from picture("BLD", case, "bld", "final")


@cache
def double(folder: Path) -> Backbone:
    """EDICT's model, in its precision."""
    precision = torch.float64
    return load_backbone(
        folder, variant="fp16", dtype=precision, vae_dtype=precision, rows=2, vae_rows=1
    )


def edict(case: MoreCase) -> Iterator[Check]:
    """EDICT's way to noise and back."""
    if "edict+direct_forward/final" not in case.arrays:
        return
    assert isinstance(case.goldens, MoreGoldens)
    backbone = double(case.goldens.folder_of_backbone)
    posterior = backbone.encode_images(case.image)
    x0 = posterior.draw(EDICT.seed)
    yield from close("EDICT's picture", case, "edict/x0", x0[0], LATENT)
    texts = backbone.encode_prompts(["", *case.prompts]).hidden
    yield from close("EDICT prompt embeddings", case, "edict/emb", texts, EMBEDDING)
    stored = case.arrays.get("edict/x0")
    sources = sources_of(case, x0 if stored is None else case.arrays["edict/x0"][None])
    watched: Any = Watched(backbone)
    inverted = EDICT.invert(watched, sources)
    family = "EDICT inversion"
    yield from final(
        family, case, "edict+direct_forward/inverted", inverted.x[0, :, 0], rms=RMS_EDICT
    )
    steps = inverted.x[:-1, :, 0].flip(0)
    yield from pooled(family, case, "edict/inv_step_pool4", steps, POOLED)
    yield from close(family, case, "edict/inv_mid_state", steps[3], RMS_EDICT)
    unmixed_pairs = torch.stack([unmixed(pair, EDICT.mixing) for pair in inverted.x[1:, :, 0]])
    yield from pooled(family, case, "edict/inv_mixed_pool4", unmixed_pairs.flip(0), POOLED)
    family = "EDICT edits"
    watched = Watched(backbone)
    edited = EDICT.sample(watched, sources, inverted, EVERYWHERE, ONE).latents[0]
    # The last call saw the second latents, before they were mixed.
    second = (1 - EDICT.mixing) * edited + EDICT.mixing * watched.latents[-1][0]
    pair = torch.stack([edited, second])
    yield from final(family, case, "edict+direct_forward/final", pair, rms=RMS_EDICT)
    yield from picture(family, case, "edict+direct_forward", "final")
    # The first of a step sees the other as it enters; the second sees what has become of it.
    entering = torch.stack([latents[0] for latents in watched.latents[::2]])
    if "edict/fwd_in_pool4" in case.arrays:
        pairs = case.arrays["edict/fwd_in_pool4"].float()
        others = torch.stack([pair[1 - i % 2] for i, pair in enumerate(pairs)])
        found = F.avg_pool2d(entering.float(), 4)
        error = furthest(found, others) / found.abs().max().item()
        yield Check(f"{family} (4x4 means)", f"{case.key} edict/fwd_in_pool4", error, POOLED)
    if "edict/fwd_premix_pool4" in case.arrays:
        pairs = case.arrays["edict/fwd_premix_pool4"].float()
        changed = torch.stack([latents[0] for latents in watched.latents[1::2]])
        expected = torch.stack([pair[i % 2] for i, pair in enumerate(pairs)])
        found = F.avg_pool2d(changed.float(), 4)
        error = furthest(found, expected) / found.abs().max().item()
        yield Check(f"{family} (4x4 means)", f"{case.key} edict/fwd_premix_pool4", error, POOLED)
    if "edict/fwd_mid_state_in" in case.arrays:
        error = furthest(entering[4], case.arrays["edict/fwd_mid_state_in"][1])
        yield Check(family, f"{case.key} edict/fwd_mid_state_in", error, RMS_EDICT)


@cache
def instructed(goldens: MoreGoldens) -> InstructDiffusion:
    """The U-Net with eight channels; all else is the other editors' model."""
    with TemporaryDirectory() as folder:
        for part in goldens.folder_of_backbone.iterdir():
            if part.name != "unet":
                (Path(folder) / part.name).symlink_to(part.resolve())
        (Path(folder) / "unet").symlink_to((goldens.model("instruct_random") / "unet").resolve())
        editor = InstructDiffusion(id=folder, variant="fp16", rows=3, steps=STEPS)
        editor.model.loaded(goldens.backbone)  # while the folder is there
    return editor


def instruct(case: MoreCase) -> Iterator[Check]:
    """InstructDiffusion: noise levels, one step, and all of them."""
    if "instruct/final" not in case.arrays:
        return
    assert isinstance(case.goldens, MoreGoldens)
    editor = instructed(case.goldens)
    pipeline, model = editor.model.loaded(case.backbone)
    instruction = case.found("instruct-diffusion")["instruction"]
    scene = Scene(case.key, case.image[0], *case.prompts, instruction=instruction)
    sources = Sources([scene], None)
    posterior = model.encode_images(case.planar_image)
    inverted = Encoded(posterior, torch.zeros(1, dtype=torch.long))
    if "instruct/cond_img" in case.arrays:
        image = inverted.posterior.mean / pipeline.vae.config.scaling_factor
        yield from close(
            "InstructDiffusion's picture", case, "instruct/cond_img", image[0], CONDITION
        )
        mean = case.arrays["instruct/cond_img"][None] * pipeline.vae.config.scaling_factor
        inverted = replace(inverted, posterior=Posterior(mean, torch.zeros_like(mean)))
    texts = model.encode_prompts([instruction, ""])
    family = "InstructDiffusion prompt embeddings"
    yield from close(family, case, "instruct/emb", texts.hidden, EMBEDDING)
    timesteps = torch.linspace(999, 0, STEPS)
    yield from close("InstructDiffusion time steps", case, "instruct/t", timesteps, 1e-2)
    levels = [*(sigma(model, t) for t in timesteps.tolist()), 0.0]
    family = "InstructDiffusion noise levels"
    yield from close(family, case, "instruct/sigmas", torch.tensor(levels), SIGMA)

    family = "InstructDiffusion steps"
    _, *draws = torch.randn(STEPS, 4, 64, 64, generator=torch.Generator().manual_seed(editor.seed))
    if "instruct/step4_in" in case.arrays:
        x, level = case.arrays["instruct/step4_in"], levels[4]
        image = inverted.posterior.mean[0] / pipeline.vae.config.scaling_factor
        images = torch.stack([image, image, torch.zeros_like(image)])
        z = torch.cat([x.expand(3, -1, -1, -1) / math.hypot(level, 1), images], dim=1)
        eps = model.predict_noise(z, timesteps[4].expand(3), texts[[0, 1, 0]])
        yield from close(family, case, "instruct/step4_eps", eps, LATENT)
        denoised = combined((x - level * eps)[:, None], 5.0, 1.25)[0]
        down, up = ancestral(level, levels[5])
        after = x + (x - denoised) / level * (down - level) + up * draws[4]
        yield from close(family, case, "instruct/step4_out", after, LATENT)

    watched = Watched(model)
    editor.model._models[case.backbone.device] = pipeline, watched  # type: ignore[assignment]
    edited = editor.sample(case.backbone, sources, inverted, EVERYWHERE, ONE).latents
    editor.model._models[case.backbone.device] = pipeline, model
    x = [z[0, :4] * math.hypot(s, 1) for z, s in zip(watched.latents, levels, strict=False)]
    family = "InstructDiffusion"
    latents = torch.stack([*x, edited[0]])
    yield from pooled(family, case, "instruct/step_pool4", latents, POOLED)
    denoised = torch.stack(
        [
            combined((each - s * eps)[:, None], 5.0, 1.25)[0]
            for each, s, eps in zip(x, levels, watched.noise, strict=False)
        ]
    )
    yield from pooled(family, case, "instruct/denoised_pool4", denoised, POOLED)
    yield from final(family, case, "instruct/final", edited[0])
    yield from picture(family, case, "instruct", "final", TRUNCATED)


def instruct_units(case: MoreCase) -> Iterator[Check]:
    """Its noise levels for other numbers of steps, ancestral steps and guidance."""
    for name in [name for name in case.arrays if name.startswith("sigmas/")]:
        timesteps = torch.linspace(999, 0, int(name.rpartition("/")[2])).tolist()
        levels = [*(sigma(case.backbone, t) for t in timesteps), 0.0]
        yield from close("InstructDiffusion noise levels", case, name, torch.tensor(levels), SIGMA)
        if name == "sigmas/10":
            steps = torch.tensor([ancestral(*pair) for pair in pairwise(levels)])
            yield from close("ancestral steps", case, "ancestral/down_up", steps, SIGMA)
    if "cfg/rows" in case.arrays:
        told = {(1, 1): 0, (0, 1): 1, (1, 0): 2}
        kinds = zip(case.arrays["cfg/row_is_text"], case.arrays["cfg/row_is_image"], strict=True)
        order = sorted(range(3), key=[told[int(t), int(i)] for t, i in kinds].__getitem__)
        rows = case.arrays["cfg/rows"][order][:, None]
        for name in [name for name in case.arrays if name.startswith("cfg/text")]:
            text, image = name.removeprefix("cfg/text").split("_image")
            found = combined(rows, float(text), float(image))[0]
            tolerance = UNIT * max(1, case.arrays[name].abs().max().item())
            yield from close("InstructDiffusion guidance", case, name, found, tolerance)


def style_network(case: MoreCase) -> Iterator[Check]:
    """StyleDiffusion's first weights."""
    if "init/conv_start.weight" not in case.arrays:
        return
    w1, b1, w2, b2, gain, bias, w3, b3 = initial(197, 77, STYLE.seed)
    layers = {"conv_start": (w1, b1), "conv_block.0.0": (w2, b2), "conv_end": (w3, b3)}
    layers["conv_block.0.1"] = gain, bias
    for name, (weight, shift) in layers.items():
        stored = case.arrays[f"init/{name}.weight"]
        found = weight.view(stored.shape)
        yield from close("StyleDiffusion's weights", case, f"init/{name}.weight", found, UNIT)
        yield from close("StyleDiffusion's weights", case, f"init/{name}.bias", shift, UNIT)


def style(case: MoreCase) -> Iterator[Check]:
    """StyleDiffusion's inversion, its first step's network, and edits."""
    if "style/x_stars" not in case.arrays:
        return
    x_stars = dict(case.stored("style/x_stars"))
    sources, source = sources_of(case, x_stars[0][None]), case.conditioning[1]
    inverted = ddim(case.backbone, x_stars[0][None], source, steps=STEPS, guidance=GUIDANCE)
    for k, expected in x_stars.items():
        error = furthest(inverted.x[STEPS - k, 0], expected)
        yield Check("StyleDiffusion's inversion", f"{case.key} x_stars {k}", error, LATENT)
    if "style/attn_gt_first" in case.arrays:
        attention, layers = SourceFeatures(1), STYLE.layers(case.backbone)
        stored = StoredAttention(attention, layers)
        case.backbone.predict_noise(inverted.x[1], torch.tensor([901]), source, stored)
        ordered = sorted(layers, key=lambda layer: layer.block)
        found = torch.stack([attention.get(x, ONE)[0].mean(dim=0)[:, :8] for x in ordered])
        found = found.unflatten(1, (16, 16))
        yield from close("StyleDiffusion's maps", case, "style/attn_gt_first", found, LATENT)
    if "style/clip_input_pool16" in case.arrays:
        seen: Any = image_transform(CLIP_SIZE, is_train=False)
        found = F.avg_pool2d(seen(Image.fromarray(case.image[0].numpy())), 16)
        yield from close(
            "StyleDiffusion's CLIP input", case, "style/clip_input_pool16", found, VIEW
        )
    features = style_features(case.goldens)
    networks = [initial(features.shape[1], 77, STYLE.seed)]
    watched: Any = Watched(case.backbone)
    first = replace(inverted, levels=inverted.levels[:2], x=inverted.x[:2])
    learnt = STYLE.learnt(watched, first, source, features, networks)
    found = torch.tensor(style_losses(watched, first))
    for k, name in enumerate(("latent_loss", "attn_loss")):
        if f"style/{name}" in case.arrays:
            error = furthest(found[:, k], case.arrays[f"style/{name}"][: len(found)])
            yield Check("StyleDiffusion's first losses", f"{case.key} {name}", error, LATENT)
    if "style/embedding_out" in case.arrays:
        rms = (learnt.style[0, 0] - case.arrays["style/embedding_out"][0]).square().mean().sqrt()
        yield Check("StyleDiffusion's first embedding (rms)", case.key, rms.item(), RMS_EMBEDDING)
        yield from styled(case, sources, inverted, features)
    family, found = "StyleDiffusion's first step", learnt.inversion.trajectory
    assert found is not None
    yield from final(family, case, "style/cur_step0", found[1, 0], rms=RMS_EMBEDDING)


class Taught(StyleDiffusion):
    """Goes on from stored embeddings after every step, whatever it learns itself.

    Training amplifies rounding: latents that are 1e-6 apart end with embeddings 1e-4 apart after
    the first step, .02 after the second and .07 after the third.
    """

    embeddings: ClassVar[Tensor]

    def train(self, backbone: Any, inverted: Inversion, i: int, *rest: Any) -> Tensor:
        evaluations, networks = super().train(backbone, inverted, i, *rest), rest[-1]
        with torch.inference_mode(mode=False):
            # No weights, and for every output and dimension a shift of its own.
            networks[0][-2:] = torch.zeros_like(networks[0][-2]), self.embeddings[i].clone()
        return evaluations


def styled(
    case: MoreCase, sources: Sources, inverted: Inversion, features: Tensor
) -> Iterator[Check]:
    """Every step's first loss, the source branch and the edit, all from stored embeddings."""
    watched: Any = Watched(case.backbone)
    editor = Taught(steps=STEPS, guidance=GUIDANCE, inner_steps=1, compat="reference")
    Taught.embeddings = case.arrays["style/embedding_out"]
    networks = [initial(features.shape[1], 77, STYLE.seed)]
    learnt = editor.learnt(watched, inverted, case.conditioning[1], features, networks)
    updates = [math.ceil(STYLE.inner_steps * math.exp(-0.1 * i)) for i in range(STEPS)]
    starts = torch.tensor([0, *updates[:-1]]).cumsum(dim=0)
    found = torch.tensor(style_losses(watched, inverted))
    for k, name in enumerate(("latent_loss", "attn_loss")):
        if f"style/{name}" in case.arrays:
            stored = case.arrays[f"style/{name}"]
            error = furthest(found[:, k], stored[starts])
            yield Check("StyleDiffusion's losses", f"{case.key} {name}", error, LATENT)
            error = abs(len(stored) - sum(updates))
            yield Check("StyleDiffusion's updates", f"{case.key} {name}", error, 0)
    path = learnt.inversion.trajectory
    assert path is not None
    yield from pooled("StyleDiffusion's source", case, "style/cur_pool4", path[1:, 0], POOLED)
    traced = Traced(editor.steering(case.backbone, sources, learnt.style, ONE))
    texts, everywhere = case.conditioning[1:], EVERYWHERE
    sample_edits(
        case.backbone, learnt.inversion, *texts, everywhere, ONE, traced, guidance=GUIDANCE
    )
    branches = torch.stack(traced.branches)
    yield from pooled("StyleDiffusion", case, "stylediffusion+p2p/step_pool4", branches, POOLED)
    for k, name in enumerate(("final_src", "final_tar")):
        name, latents = f"stylediffusion+p2p/{name}", branches[-1, k]
        yield from final("StyleDiffusion", case, name, latents, rms=RMS_STYLE)
    yield from picture("StyleDiffusion", case, "stylediffusion+p2p", "final_tar", TRUNCATED)


def style_losses(watched: Watched, inverted: Inversion) -> list[tuple[float, float]]:
    """Both terms of every loss that training asked for, of latents and of attention."""
    step, losses = -1, []
    away = torch.empty(0)
    for y, noise, control in zip(watched.latents, watched.noise, watched.controls, strict=True):
        if control is None:  # the call that guidance leads away from, once a step
            step, away = step + 1, noise
        if isinstance(control, StyledAttention) and isinstance(control.inner, AttentionLoss):
            eps = away + GUIDANCE * (noise - away)
            reached = ddim_step(y, eps, *inverted.levels[step : step + 2])
            latent = (reached - inverted.x[step + 1]).square().mean().item()
            losses.append((latent, control.inner.losses.item()))
    return losses


def style_features(goldens: Any) -> Tensor:
    """The picture's tokens that all cases share, [1, 197, D]; from the public cases if need be."""
    folders = [goldens.folder, *goldens.models.glob("goldens_editors_more/public")]
    file = next(path for f in folders if (path := f / "style_init.npz").is_file())
    with np.load(file) as stored:
        return torch.from_numpy(stored["feat"])[None]


class Recorded(random.Random):
    """Random numbers that are kept."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.drawn: list[int] = []

    def randrange(self, *bounds: Any) -> int:
        self.drawn.append(super().randrange(*bounds))
        return self.drawn[-1]


def zero_regularisation(case: MoreCase) -> Iterator[Check]:
    """The regulariser's shifts, and what it makes of stored predictions of the first and last
    step.
    """
    if "pix2pix-zero/rolls" not in case.arrays:
        return
    shifts, stored = Recorded(ZERO["ddim"].seed), {}
    if "pix2pix-zero/eps_raw" in case.arrays:
        stored = dict(zip((0, STEPS - 1), case.arrays["pix2pix-zero/eps_raw"], strict=True))
    found = []
    for step in range(STEPS):
        eps = regularised(stored.get(step, torch.zeros(4, 64, 64))[None], shifts)
        if step in stored:
            found.append(eps[0])
    error = float(shifts.drawn != case.arrays["pix2pix-zero/rolls"].tolist())
    yield Check("Pix2Pix-Zero's shifts", f"{case.key} pix2pix-zero/rolls", error, 0)
    if found:
        family, name = "Pix2Pix-Zero's regularisation", "pix2pix-zero/eps_reg"
        yield from close(family, case, name, torch.stack(found), REGULARISED)


def zero_texts(case: MoreCase) -> tuple[Conditioning, Conditioning]:
    """The caption's prompt, and what is added to it for the edit."""
    caption = case.backbone.encode_prompts([case.found("pix2pix-zero")["caption"]])
    _, source, target = case.conditioning
    edited = Conditioning(caption.hidden + target.hidden - source.hidden, caption.pooled)
    return caption, edited


def pix2pix_zero(case: MoreCase) -> Iterator[Check]:
    """Embeddings, inversion, one step and its gradient, and edits with both inversions."""
    if "pix2pix-zero/x_stars" not in case.arrays:
        return
    caption, edited_text = zero_texts(case)
    family = "Pix2Pix-Zero prompt embeddings"
    _, source, target = (text.hidden[0] for text in case.conditioning)
    both = torch.cat([caption.hidden, edited_text.hidden])
    for name, found in (("caption", caption.hidden[0]), ("edit", both)):
        yield from close(family, case, f"pix2pix-zero/emb_{name}", found, EMBEDDING)
    yield from close(family, case, "pix2pix-zero/edit_dir", target - source, EMBEDDING)

    x_stars = dict(case.stored("pix2pix-zero/x_stars"))
    drawn = Posterior(case.x0, case.posterior.std).draw(ZERO["ddim"].seed)[0]
    error = furthest(drawn, x_stars[0])
    yield Check("Pix2Pix-Zero's picture", f"{case.key} x_stars 0", error, LATENT)
    if "pix2pix-zero/posterior_std" in case.arrays:
        std = case.posterior.std[0] / 0.18215
        yield from close("VAE deviation", case, "pix2pix-zero/posterior_std", std, LATENT)
    sources = sources_of(case, x_stars[0][None])
    followed = ZERO["directinversion"].inverted(case.backbone, sources, caption)
    family = "Pix2Pix-Zero's inversion"
    for k, expected in x_stars.items():
        error = furthest(followed.x[STEPS - k, 0], expected)
        yield Check(family, f"{case.key} x_stars {k}", error, LATENT)
    pools = followed.x.flip(0)[:, 0]
    yield from pooled(family, case, "pix2pix-zero/x_stars_pool4", pools, POOLED)
    times = torch.tensor(followed.timesteps)
    yield from close("Pix2Pix-Zero's time steps", case, "pix2pix-zero/edit_timesteps", times, 0)
    times = times.flip(0)
    yield from close("Pix2Pix-Zero's time steps", case, "pix2pix-zero/inv_timesteps", times, 0)
    for row, k in enumerate((0, STEPS - 1)):
        if "pix2pix-zero/eps_raw" in case.arrays and k in x_stars:
            t = torch.tensor([100 * k + 1])
            eps = case.backbone.predict_noise(x_stars[k][None], t, caption)
            error = furthest(eps[0], case.arrays["pix2pix-zero/eps_raw"][row])
            yield Check("Pix2Pix-Zero's predictions", f"{case.key} eps_raw {k}", error, LATENT)
    noisiest = x_stars.get(STEPS, followed.x[0, 0])[None]
    yield from zero_steps(case, noisiest, caption, edited_text)

    x = torch.cat([noisiest[None], followed.x[1:]])
    followed = replace(followed, x=x, trajectory=x)
    for label, editor in ZERO.items():
        name = f"{label}+pix2pix-zero"
        if f"{name}/final" not in case.arrays:
            continue
        inverted = replace(followed, trajectory=None) if label == "ddim" else followed
        watched: Any = Watched(case.backbone)
        edited = editor.sampled(watched, inverted, caption, edited_text, EVERYWHERE, ONE)
        latents = edited.latents[0]
        yield from final("Pix2Pix-Zero", case, f"{name}/final", latents, rms=RMS_ZERO, most=None)
        yield from picture("Pix2Pix-Zero", case, name, "final")
        # In every step: the source, the edit whose gradient is taken, and the edit.
        entering, led = (torch.stack([z[0] for z in watched.latents[k::3]]) for k in (1, 2))
        for array, found in (("edit_in_pool4", entering), ("xin_row0_pool4", led)):
            if f"{name}/{array}" in case.arrays:
                error = furthest(
                    F.avg_pool2d(found[:5], 4), case.arrays[f"{name}/{array}"][:5].float()
                )
                family = "Pix2Pix-Zero's first five steps (4x4 means)"
                yield Check(family, f"{case.key} {name}/{array}", error, MOST_ZERO)
        branch = [z[0] for z in watched.latents[::3]]
        if label == "ddim" and f"{name}/recon" in case.arrays:
            last = followed.step(STEPS - 1, branch[-1][None], watched.noise[-3], ONE)
            family = "Pix2Pix-Zero's reconstruction"
            yield from close(family, case, f"{name}/recon", last[0], RMS_ZERO / 100)
        if label == "directinversion":
            offsets = torch.stack(
                [
                    followed.x[i + 1, 0] - followed.step(i, z[None], eps, ONE)[0]
                    for i, (z, eps) in enumerate(zip(branch, watched.noise[::3], strict=True))
                ]
            )
            yield from pooled(
                "Pix2Pix-Zero's offsets", case, f"{name}/noise_loss_pool4", offsets, POOLED
            )
            for i, expected in case.stored(f"{name}/noise_loss"):
                error = furthest(offsets[i], expected)
                yield Check("Pix2Pix-Zero's offsets", f"{case.key} {i}", error, LATENT)


def zero_steps(
    case: MoreCase, noisiest: Tensor, caption: Conditioning, edited: Conditioning
) -> Iterator[Check]:
    """The first step's gradient, and predictions of the fifth from its stored latents."""
    attention, t = SourceFeatures(1), torch.tensor([901])
    case.backbone.predict_noise(
        noisiest, t, caption, StoredAttention(attention, text_layers(case.backbone))
    )
    texts, both = Conditioning.cat([caption, edited]), ONE.repeat(2)
    gradient = attention_gradient(
        case.backbone, noisiest.repeat(2, 1, 1, 1), t.repeat(2), texts, attention, both
    )
    facts = case.found("pix2pix-zero")
    for label in ZERO:
        if expected := facts.get(f"{label}+pix2pix-zero", {}).get("grad_rms"):
            rms = gradient.square().mean(dim=(1, 2, 3)).sqrt().tolist()
            name = f"{case.key} {label} grad_rms"
            yield Check("Pix2Pix-Zero's gradient", name, relative(rms[1], expected[0][1]), GRADIENT)
            yield Check("Pix2Pix-Zero's gradient", name, abs(rms[0] - expected[0][0]), GRADIENT)
    name = "ddim+pix2pix-zero/xin_step4"
    if name in case.arrays:
        t = torch.full((2,), 501)
        eps = case.backbone.predict_noise(case.arrays[name], t, texts)
        family = "Pix2Pix-Zero's predictions"
        yield from close(family, case, "ddim+pix2pix-zero/eps_step4", eps, LATENT)


PUBLISHED_FAMILIES: tuple[Any, ...] = (
    style_network,
    style,
    blended,
    edict,
    instruct,
    instruct_units,
    zero_regularisation,
    pix2pix_zero,
)
QUICK_PUBLISHED_FAMILIES = style_network, instruct_units, zero_regularisation
"""Those that cost no more than some seconds."""
