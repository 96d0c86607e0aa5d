"""More of the reference's editors on a random Stable Diffusion 1, family by family.

The form of ../shared/goldens_editors_more/public; its README, one folder above, says what each
array is and what the tolerances are. Whatever a case lacks is not there to be compared.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
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

from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.editing.branches import sample_edits
from piebench_masks.editing.inversion import Inversion, direct, null_text, with_offsets
from piebench_masks.editing.prompt_to_prompt import PromptToPrompt

LATENT, RMS, MOST, POOLED = 1e-4, 2e-3, 5e-2, 2e-3
OFFSET, OFFSET_SAMPLED = 1e-3, 1e-2
ENDS = {"": (RMS, MOST), " (sampled source)": (5e-2, 1.0), " (null-text)": (1e-2, 0.5)}
"""Root mean square and largest difference at the end of an ablation. Where the source branch is
sampled it amplifies rounding, until a place at the threshold of the local blend falls on its other
side, which the places around it then see. The steps before agree to the precision of storage."""
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
    family: str, case: MoreCase, name: str, found: Tensor, *, rms: float = RMS, most: float = MOST
) -> Iterator[Check]:
    """Latents at the end of an edit, where they are stored."""
    if name in case.arrays:
        difference = found - case.arrays[name]
        yield Check(
            f"{family} (rms)", f"{case.key} {name}", difference.square().mean().item() ** 0.5, rms
        )
        yield Check(f"{family} (most)", f"{case.key} {name}", difference.abs().max().item(), most)


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
    for name in dict.fromkeys(name.partition("/")[0] for name in case.arrays):
        if (editor := ablation(name)) is None:
            continue
        inverted = editor.invert(case.backbone, case.sources)
        assert inverted.trajectory is not None
        if "null" in name:
            kind = " (null-text)"
        else:
            kind = "" if torch.equal(inverted.trajectory, inverted.x) else " (sampled source)"
        family, (rms, most) = f"ablations{kind}", ENDS[kind]
        yield from offsets(case, name, editor, inverted, family)
        steering = editor.steering(editor.plans(case.backbone, case.sources), ONE, 16, 64 * 64)
        traced = Traced(steering)
        sample_edits(
            case.backbone,
            inverted,
            *case.conditioning[1:],
            EVERYWHERE,
            ONE,
            traced,
            guidance=editor.guidance,
        )
        source, target = torch.stack(traced.branches).unbind(dim=1)
        for array, found in (("final_tar", target[-1]), ("final_src", source[-1])):
            yield from final(family, case, f"{name}/{array}", found, rms=rms, most=most)
        yield from pooled(family, case, f"{name}/final_src_pool4", source[-1], most)
        yield from pooled(family, case, f"{name}/step_tar_pool4", target, most)
        if f"{name}/step_tar_pool4" in case.arrays:
            expected = case.arrays[f"{name}/step_tar_pool4"][:5].float()
            error = furthest(F.avg_pool2d(target[:5], 4), expected)
            tolerance = most if "null" in name else POOLED
            yield Check(f"{family}, first five steps", f"{case.key} {name}", error, tolerance)


def offsets(
    case: MoreCase, name: str, editor: PromptToPrompt, inverted: Inversion, family: str
) -> Iterator[Check]:
    """What is added to the source branch, and to the edits where the ablation does."""
    if f"{name}/x_T" in case.arrays:
        error = furthest(inverted.x[0, 0], case.arrays[f"{name}/x_T"])
        yield Check(f"{family}, noisiest latents", f"{case.key} {name}", error, LATENT)
    limit = OFFSET if family == "ablations" else OFFSET_SAMPLED
    plain = replace(inverted, noise=None, variance=None)
    added = with_offsets(case.backbone, plain, case.conditioning[1], editor.guidance).noise
    assert added is not None
    yield from pooled(f"{family}, offsets", case, f"{name}/offset_pool4", added[:, 0], limit)
    stored = case.found("ablations").get(name, {}).get("offset_rms")
    if stored:
        rms = added[:, 0].square().mean(dim=(1, 2, 3)).sqrt()
        error = furthest(rms, [source for source, _ in stored])
        yield Check(f"{family}, offsets' rms", f"{case.key} {name}", error, limit)
        if editor.offsets == "target" and inverted.noise is not None:
            rms = inverted.noise[:, 0].square().mean(dim=(1, 2, 3)).sqrt()
            error = furthest(rms, [target for _, target in stored])
            yield Check(f"{family}, offsets' rms", f"{case.key} {name} target", error, limit)


MORE_FAMILIES: tuple[Any, ...] = (ablations,)
