"""What the reference's editors computed on a random Stable Diffusion 1, family by family.

The form of ../shared/goldens_editors/public; its README, one folder above, says what each array is
and what the tolerances are. Whatever a case lacks is not there to be compared.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families import Check, furthest
from PIL import Image
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Conditioning, Posterior
from piebench_masks.diffusion.ddim import ddim_step
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.inversion import Inversion, ddim, edit_friendly, null_text

STEPS, GUIDANCE = 10, 7.5
LATENT, EMBEDDING, NOISE_LOSS, OPTIMISED = 1e-4, 1e-5, 1e-3, 5e-2


@dataclass(frozen=True)
class EditorGoldens:
    """A folder of cases, and the folder of the model that they were made with."""

    folder: Path
    models: Path

    @staticmethod
    def knows(folder: Path) -> bool:
        """Whether the folder has this form: its pairs name the words to blend."""
        facts = folder.glob("*.json")
        return any(path.stem == "units" or '"blend_words"' in path.read_text() for path in facts)

    @cached_property
    def cases(self) -> list["EditorCase"]:
        return [EditorCase(self, path.stem) for path in sorted(self.folder.glob("*.npz"))]

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone.from_folder(self.models / "sd1_random", variant="fp16", rows=1, vae_rows=1)


@dataclass(frozen=True)
class EditorCase:
    """A pair: one picture with two prompts; or a collection of units, whose facts are a list."""

    goldens: EditorGoldens
    key: str

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        with np.load(self.goldens.folder / f"{self.key}.npz") as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored}

    @cached_property
    def facts(self) -> Any:
        return json.loads((self.goldens.folder / f"{self.key}.json").read_text())

    @property
    def backbone(self) -> Backbone:
        return self.goldens.backbone

    @cached_property
    def prompts(self) -> tuple[str, str]:
        return self.facts["source_prompt"], self.facts["target_prompt"]

    @cached_property
    def conditioning(self) -> tuple[Conditioning, Conditioning, Conditioning]:
        """Of no prompt, the source's and the target's, one row each."""
        every = self.backbone.encode_prompts(["", *self.prompts])
        return every[:1], every[1:2], every[2:]

    @cached_property
    def image(self) -> Tensor:
        """uint8 [1, 512, 512, 3]."""
        return torch.from_numpy(
            np.array(Image.open(self.goldens.folder / self.facts["image"]).convert("RGB"))
        )[None]

    @cached_property
    def posterior(self) -> Posterior:
        return self.backbone.encode_images(self.image)

    @cached_property
    def x0(self) -> Tensor:
        """The reference's own latents [1, 4, 64, 64]: its VAE rounds otherwise by 3e-3."""
        return self.arrays["p2p/x_stars"][:1]

    @cached_property
    def sources(self) -> Sources:
        source, target = self.prompts
        return Sources(
            self.image,
            Posterior(self.x0, torch.zeros_like(self.x0)),
            [source],
            [target],
            [""],
            [" ".join(self.facts["blend_words"])],
        )

    @cached_property
    def ddim(self) -> Inversion:
        """Our inversion with the source prompt."""
        return ddim(self.backbone, self.x0, self.conditioning[1], steps=STEPS, guidance=GUIDANCE)

    @cached_property
    def null_text(self) -> Inversion:
        return null_text(
            self.backbone,
            self.x0,
            self.conditioning[1],
            steps=STEPS,
            guidance=GUIDANCE,
            inner_steps=3,
        )

    @cached_property
    def edit_friendly(self) -> Inversion:
        """With all steps; the reference's noise maps are those of unit variance."""
        return edit_friendly(
            self.backbone, self.x0, self.conditioning[1], steps=STEPS, guidance=1, skip=0
        )

    def stored(self, name: str, index: str = "") -> Iterator[tuple[int, Tensor]]:
        """A thinned array's rows with their numbers; nothing where there is none."""
        if name in self.arrays:
            rows = self.arrays[name]
            numbers = self.arrays.get(index or f"{name}_index", torch.arange(len(rows)))
            yield from zip(numbers.tolist(), rows, strict=True)


def conditioning(case: EditorCase) -> Iterator[Check]:
    """The text encoder's last hidden states of no prompt, the source and the target."""
    if "p2p/context" in case.arrays:
        found = Conditioning.cat(case.conditioning).hidden
        error = furthest(found, case.arrays["p2p/context"])
        yield Check("SD prompt embeddings", f"{case.key} p2p/context", error, EMBEDDING)


def inversions(case: EditorCase) -> Iterator[Check]:
    """DDIM inversion, and edit-friendly inversion's latents and noise maps."""
    for i, expected in case.stored("p2p/x_stars"):
        error = furthest(case.ddim.x[STEPS - i][0], expected)
        yield Check("DDIM inversion", f"{case.key} p2p/x_stars {i}", error, LATENT)
    method = "edit-friendly-inversion+p2p"
    for i, expected in case.stored(f"{method}/wts"):
        error = furthest(case.edit_friendly.x[STEPS - i][0], expected)
        yield Check("edit-friendly inversion", f"{case.key} {method}/wts {i}", error, LATENT)
    for i, expected in case.stored(f"{method}/zs"):
        step = STEPS - 1 - i
        noise, variance = case.edit_friendly.noise, case.edit_friendly.variance
        assert noise is not None and variance is not None
        error = furthest(noise[step][0] / variance[step].sqrt(), expected)
        yield Check("edit-friendly noise maps", f"{case.key} {method}/zs {i}", error, LATENT)


def direct_offsets(case: EditorCase) -> Iterator[Check]:
    """What PnP Inversion adds to its source branch: x minus the guided step, from stored x."""
    known = dict(case.stored("p2p/x_stars"))
    timesteps = case.arrays.get("p2p/timesteps", torch.empty(0, dtype=torch.long)).tolist()
    alphas = case.backbone.alphas_cumprod[[*timesteps, 0]]
    offsets = case.stored(
        "directinversion+p2p/noise_loss_src", "directinversion+p2p/noise_loss_index"
    )
    for i, expected in offsets:
        # The i-th step leads from x_stars[STEPS - i] to the one below it.
        x, below = (known.get(STEPS - i - low) for low in (0, 1))
        if x is None or below is None:
            continue
        t = torch.full((1,), timesteps[i])
        away, toward = (
            case.backbone.predict_noise(x[None], t, text) for text in case.conditioning[:2]
        )
        guided = away + GUIDANCE * (toward - away)
        error = furthest(below - ddim_step(x, guided[0], alphas[i], alphas[i + 1]), expected)
        yield Check("direct inversion's offsets", f"{case.key} noise_loss {i}", error, NOISE_LOSS)


def null_text_inversion(case: EditorCase) -> Iterator[Check]:
    """The optimised embeddings; the first step of Adam has the size of the rate in any case."""
    for i, expected in case.stored("null-text-inversion+p2p/uncond"):
        error = furthest(case.null_text.negative[i].hidden[0], expected)
        yield Check("null-text embeddings", f"{case.key} uncond {i}", error, OPTIMISED)


Family = Callable[[EditorCase], Iterator[Check]]

EDITOR_FAMILIES: tuple[Family, ...] = (
    conditioning,
    inversions,
    direct_offsets,
    null_text_inversion,
)

SLOW_FAMILIES: tuple[Family, ...] = (null_text_inversion,)
"""Those that cost more than some seconds a pair: left to `make test-all` and to `check.py`."""
