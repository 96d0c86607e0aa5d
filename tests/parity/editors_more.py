"""More of the reference's editors on a random Stable Diffusion 1, family by family.

The form of ../shared/goldens_editors_more/public; its README, one folder above, says what each
array is and what the tolerances are. Whatever a case lacks is not there to be compared.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha1
from pathlib import Path
from typing import Any

import numpy as np
import torch
from editors import GUIDANCE, STEPS, EditorCase, EditorGoldens
from families import Check, furthest
from goldens import ONE, kind_of
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.diffusion.attention import AttentionControl
from piebench_masks.diffusion.backbone import Backbone, Conditioning, Posterior
from piebench_masks.editing.branches import sample_edits
from piebench_masks.editing.inversion import Inversion, direct, null_text, with_offsets
from piebench_masks.editing.prompt_to_prompt import (
    BLEND_FROM,
    AttentionSteering,
    PromptToPrompt,
)

LATENT, RMS, MOST, POOLED, OFFSET = 1e-4, 2e-3, 5e-2, 2e-3, 1e-3
OFFSET_SAMPLED = 1e-2
"""Of offsets in 4x4 means, where guided sampling has led the source branch to where they apply."""
RMS_NULL_TEXT, RMS_GUIDED, NOISIEST_GUIDED = 1e-2, 5e-2, 2e-2
"""A guided inversion amplifies what is rounded: pictures whose latents are 1e-6 apart are .015
apart at its end (guidance 2.5). The README has no limit of its own for it."""
ROUNDED, TRUNCATED = 0.05, 1.0
"""Levels by which the 16x16 means of a decoded picture may be off; some of the published editors
cut fractions of a level off, this project rounds."""
AT_THRESHOLD = 1e-3
"""Summed maps of blended words round by so much, as a share of the largest; a place that is as
close to the threshold of the local blend may fall on either side of it."""
TURNED = 3
"""So many places at the threshold are tried on their other side where no steps are stored."""
EVERYWHERE = torch.ones(1, 64, 64, dtype=torch.bool)


@dataclass(frozen=True)
class MoreGoldens(EditorGoldens):
    """A folder of cases; models: of the folders that hold some, by their names."""

    @staticmethod
    def knows(folder: Path) -> bool:
        return kind_of(folder) == "goldens_editors_more"

    @cached_property
    def cases(self) -> list["MoreCase"]:  # type: ignore[override]
        return [MoreCase(self, path.stem) for path in sorted(self.folder.glob("*.npz"))]

    def model(self, name: str) -> Path:
        """The folder of that model, wherever among the stored cases it lies."""
        return next(self.models.glob(f"*/model/{name}"))

    @property
    def folder_of_backbone(self) -> Path:
        return self.model("sd1_random")

    def unseen(self) -> dict[str, list[str]]:
        """Arrays that no family has looked at, by part, of all cases."""
        parts: dict[str, set[str]] = {}
        for case in self.cases:
            for name in case.arrays.keys() - case.arrays.seen:
                part, _, array = name.rpartition("/")
                parts.setdefault(part or case.key, set()).add(array)
        return {part: sorted(arrays) for part, arrays in sorted(parts.items())}


class Arrays(dict[str, Tensor]):
    """A case's arrays by name. seen: the names of those that were asked for."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as stored:
            super().__init__({name: torch.from_numpy(stored[name]) for name in stored})
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.seen.add(name)
        return super().__getitem__(name)


@dataclass(frozen=True)
class MoreCase(EditorCase):
    """A pair; or a collection of units."""

    @cached_property
    def arrays(self) -> Arrays:  # type: ignore[override]
        return Arrays(self.goldens.folder / f"{self.key}.npz")

    @property
    def is_pair(self) -> bool:
        return (self.goldens.folder / f"{self.key}.json").exists() and "methods" in self.facts

    @cached_property
    def image(self) -> Tensor:
        name = Path(self.facts["image"]).name
        pixels = Image.open(self.goldens.folder / "inputs" / name).convert("RGB")
        return torch.from_numpy(np.array(pixels))[None]

    @property
    def posterior(self) -> Posterior:  # type: ignore[override]
        return self.planar_posterior

    @cached_property
    def x0(self) -> Tensor:
        """The reference's own VAE mean, as all but some of its editors have it."""
        stored = self.arrays.get("bld/x0_src")
        return self.posterior.mean if stored is None else stored[None]

    def found(self, part: str) -> dict[str, Any]:
        """What the facts say of a part."""
        facts: dict[str, Any] = self.facts["methods"].get(part, {})
        return facts


def final(
    family: str,
    case: MoreCase,
    name: str,
    found: Tensor,
    *,
    rms: float = RMS,
    most: float | None = MOST,
) -> Iterator[Check]:
    """Latents at the end of an edit, where they are stored. most: None, no limit in the README."""
    if name in case.arrays:
        difference = found - case.arrays[name]
        yield Check(
            f"{family} (rms)", f"{case.key} {name}", difference.square().mean().item() ** 0.5, rms
        )
        if most is not None:
            error = difference.abs().max().item()
            yield Check(f"{family} (most)", f"{case.key} {name}", error, most)


def pooled(
    family: str, case: MoreCase, name: str, found: Tensor, tolerance: float
) -> Iterator[Check]:
    """4x4 means, which are stored in half precision, where they are; found: unpooled."""
    if name in case.arrays:
        means = F.avg_pool2d(found.float().reshape(-1, *found.shape[-3:]), 4)
        means = means.view(case.arrays[name].shape)
        error = furthest(means, case.arrays[name].float()) / max(1.0, means.abs().max().item())
        yield Check(f"{family} (4x4 means)", f"{case.key} {name}", error, tolerance)


def ablation(name: str) -> PromptToPrompt | None:
    """The editor that is called so in PnP Inversion's ablations."""
    invert: Any = direct
    settings: dict[str, Any] = {}
    if found := re.fullmatch(r"ablation_directinversion_0(\d)\+p2p", name):
        invert = partial(direct, scale=int(found[1]) / 10)
    elif found := re.fullmatch(r"ablation_directinversion_interval_(\d+)\+p2p", name):
        invert = partial(direct, interval=int(found[1]))
    elif found := re.fullmatch(r"ablation_directinversion_add-(source|target)\+p2p", name):
        settings = {"offsets": found[1]}
    elif found := re.fullmatch(r"directinversion\+p2p_guidance_(\d+)_(\d+)", name):
        inverse, forward = (int(scale) / 10 ** (len(scale) - 1) for scale in found.groups())
        invert, settings = partial(direct, inverse_guidance=inverse), {"guidance": forward}
    elif name == "ablation_null-text-inversion_single_branch+p2p":
        invert = partial(null_text, single_branch=True, inner_steps=3)
    elif name == "ablation_null-latent-inversion+p2p":
        invert = partial(null_text, single_branch=True, inner_steps=1)
    else:
        return None
    settings = {"guidance": GUIDANCE} | settings
    return PromptToPrompt(invert, steps=STEPS, compat="reference", **settings)


def picture(
    family: str, case: MoreCase, name: str, latents: str, tolerance: float = ROUNDED
) -> Iterator[Check]:
    """What stored latents are decoded to, in 16x16 means, where both are stored."""
    if f"{name}/image_pool16" in case.arrays and f"{name}/{latents}" in case.arrays:
        z = case.arrays[f"{name}/{latents}"].view(-1, 4, 64, 64)[:1]
        pixels = case.backbone.decode(z).permute(0, 3, 1, 2).float()
        means = F.avg_pool2d(pixels, 16)[0].permute(1, 2, 0)
        error = furthest(means, case.arrays[f"{name}/image_pool16"])
        yield Check(f"{family}, pictures (16x16 means)", f"{case.key} {name}", error, tolerance)


class Remembering:
    """A model that predicts the same noise once only: ablations begin alike.

    Row by row. What a control sees, or has a gradient, is predicted every time.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.noise: dict[bytes, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def predict_noise(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Conditioning,
        control: AttentionControl | None = None,
    ) -> Tensor:
        if control is not None or latents.requires_grad or text.hidden.requires_grad:
            return self.backbone.predict_noise(latents, timesteps, text, control)
        rows = []
        for n in range(len(latents)):
            row = latents[n : n + 1], timesteps[n : n + 1], text[n : n + 1]
            parts = latents[n], timesteps[n].double(), text.hidden[n]
            key = sha1(b"".join(part.numpy().tobytes() for part in parts)).digest()
            if key not in self.noise:
                self.noise[key] = self.backbone.predict_noise(*row)
            rows.append(self.noise[key])
        return torch.cat(rows)


class Followed:
    """A steering of one edit that blends as a stored edit did where a place is at the threshold.

    expected: [K, 4, 16, 16], the stored edit after every step in 4x4 means, each of a place of the
    maps; None: nothing is stored. turned: a step and a place where it falls on the other side.
    near: the places at the threshold, by their distance from it, with their step.
    """

    def __init__(
        self,
        steering: AttentionSteering,
        threshold: float,
        expected: Tensor | None,
        turned: tuple[int, int] | None = None,
    ) -> None:
        self.source, self.edit, self._steering = steering.source, steering.edit, steering
        self.threshold, self.expected, self.turned = threshold, expected, turned
        self.near: list[tuple[float, tuple[int, int]]] = []

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        blended = self._steering.blend(step, source, y)
        if step < int(BLEND_FROM * STEPS):
            return blended
        maps = torch.cat([self._steering.source_maps, self._steering.edit_maps])
        seen = F.max_pool2d(maps, kernel_size=3, stride=1, padding=1).flatten(1)
        above = (seen / seen.amax(dim=1, keepdim=True)).amax(dim=0) - self.threshold
        near, is_edit = above.abs() < AT_THRESHOLD, above > 0
        for place in near.nonzero().flatten().tolist():
            self.near.append((above[place].abs().item(), (step, place)))
            if self.turned == (step, place):
                is_edit[place] = ~is_edit[place]
        if self.expected is not None:
            off_source, off_edit = (
                (F.avg_pool2d(z, 4)[0] - self.expected[step]).abs().sum(dim=0).flatten()
                for z in (source, y)
            )
            is_edit = off_edit < off_source
        near, is_edit = (
            places.view(16, 16).repeat_interleave(4, dim=0).repeat_interleave(4, dim=1)
            for places in (near, is_edit)
        )
        return torch.where(near, torch.where(is_edit, y, source), blended)


class Traced:
    """A steering that is looked at after every step."""

    def __init__(self, steering: Any) -> None:
        self.source, self.edit, self._steering = steering.source, steering.edit, steering
        self.branches: list[Tensor] = []

    def blend(self, step: int, source: Tensor, y: Tensor) -> Tensor:
        y = self._steering.blend(step, source, y)
        self.branches.append(torch.cat([source, y]))
        return y


def ablations(case: MoreCase) -> Iterator[Check]:
    """Prompt-to-Prompt with parts of its inversions left out or added."""
    model: Any = Remembering(case.backbone)
    for name in dict.fromkeys(name.partition("/")[0] for name in case.arrays):
        if (editor := ablation(name)) is None:
            continue
        inverted = editor.invert(model, case.sources)
        kind = kind_of_inversion(editor)
        family, limit = f"ablations{kind}", MOST if kind else POOLED
        yield from offsets(case, model, name, editor, inverted, family)
        source, target = edit(case, model, name, editor, inverted).unbind(dim=1)
        rms = {"": RMS, " (null-text)": RMS_NULL_TEXT, " (guided inversion)": RMS_GUIDED}[kind]
        most = None if kind else MOST
        for array, found in (("final_tar", target[-1]), ("final_src", source[-1])):
            yield from final(family, case, f"{name}/{array}", found, rms=rms, most=most)
        yield from pooled(family, case, f"{name}/final_src_pool4", source[-1], limit)
        yield from pooled(family, case, f"{name}/step_tar_pool4", target, limit)
        yield from picture("ablations", case, name, "final_tar", TRUNCATED)


def kind_of_inversion(editor: PromptToPrompt) -> str:
    """What is said of the family, and decides its limits."""
    settings: dict[str, Any] = getattr(editor.inversion, "keywords", {})
    if "single_branch" in settings:
        return " (null-text)"
    return " (guided inversion)" if settings.get("inverse_guidance", 1.0) != 1 else ""


def edit(
    case: MoreCase, model: Any, name: str, editor: PromptToPrompt, inverted: Inversion
) -> Tensor:
    """Source and edit after every step, [K, 2, 4, 64, 64].

    Places at the threshold of the local blend fall as they did in the stored edit. Where its steps
    are not stored, the nearest are turned one by one until its end is met.
    """
    threshold = editor.blend_threshold
    assert threshold is not None
    expected = (
        case.arrays[array].float() if (array := f"{name}/step_tar_pool4") in case.arrays else None
    )
    texts = case.conditioning[1:]

    def branches(turned: tuple[int, int] | None = None) -> tuple[Tensor, Followed]:
        steering = editor.steering(editor.plans(model, case.sources), ONE, 16, 64 * 64)
        followed = Followed(steering, threshold, expected, turned)
        traced = Traced(followed)
        sample_edits(model, inverted, *texts, EVERYWHERE, ONE, traced, guidance=editor.guidance)
        return torch.stack(traced.branches), followed

    def is_met(found: Tensor) -> bool:
        stored = case.arrays.get(f"{name}/final_tar", found[-1, 1])
        return (found[-1, 1] - stored).square().mean().sqrt().item() <= RMS

    found, followed = branches()
    if expected is None:
        for _, place in sorted(followed.near)[:TURNED]:
            if is_met(found):
                break
            other, _ = branches(place)
            found = other if is_met(other) else found
    return found


def offsets(
    case: MoreCase,
    model: Any,
    name: str,
    editor: PromptToPrompt,
    inverted: Inversion,
    family: str,
) -> Iterator[Check]:
    """What is added to the source branch, and to the edits where the ablation does."""
    if f"{name}/x_T" in case.arrays:
        error = furthest(inverted.x[0, 0], case.arrays[f"{name}/x_T"])
        limit = NOISIEST_GUIDED if "guided" in family else LATENT
        yield Check(f"{family}, noisiest latents", f"{case.key} {name}", error, limit)
    plain = replace(inverted, noise=None, variance=None)
    added = with_offsets(model, plain, case.conditioning[1], editor.guidance).noise
    assert added is not None
    yield from pooled(
        f"{family}, offsets", case, f"{name}/offset_pool4", added[:, 0], OFFSET_SAMPLED
    )
    stored = case.found("ablations").get(name, {}).get("offset_rms")
    if stored:
        rms = added[:, 0].square().mean(dim=(1, 2, 3)).sqrt()
        error = furthest(rms, [source for source, _ in stored])
        yield Check(f"{family}, offsets' rms", f"{case.key} {name}", error, OFFSET)
        if editor.offsets == "target" and inverted.noise is not None:
            rms = inverted.noise[:, 0].square().mean(dim=(1, 2, 3)).sqrt()
            error = furthest(rms, [target for _, target in stored])
            yield Check(f"{family}, offsets' rms", f"{case.key} {name} target", error, OFFSET)


MORE_FAMILIES: tuple[Any, ...] = (ablations,)
