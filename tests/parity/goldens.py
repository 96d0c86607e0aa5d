"""What the reference implementation computed on a random SDXL: the cases of one folder.

Whatever a case lacks is not there to be compared; nothing here knows a tolerance.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers_clip import to_open_clip

from piebench_masks.audit import Tokenize, load_tokenizers
from piebench_masks.data.pie_bench import load_pie_bench
from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Conditioning, Posterior
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.diffusion.prompt_diff import PromptDiff, PromptError, prompt_diff
from piebench_masks.editing.turbo_edit import edited, invert
from piebench_masks.masks import METHODS
from piebench_masks.masks.binarize import nearest_exact, rescale, upsample
from piebench_masks.masks.soft_maps import soft_maps
from piebench_masks.metrics import Metric
from piebench_masks.metrics.clip import Clip
from piebench_masks.metrics.lpips import Lpips
from piebench_masks.metrics.pixel import Pixel

SHARED = Path(os.environ.get("PIEBENCH_SHARED", Path(__file__).parents[3] / "shared"))
THREADS = 1
"""As the stored cases were made: torch's group norm of a 512x512 image rounds by 1e-4 relative with
one thread and by 2e-5 with two, so that the VAE's latents differ by more than the tolerance."""
METHOD_NAMES = ("ours", "attn_based", "noise_based")
NEAR = 1e-5
"""A pixel this close to its cut may fall on either side of it."""
ONE = torch.zeros(1, dtype=torch.long)


def kind_of(folder: Path) -> str | None:
    """The form of a folder by its own word, whatever the folder is called; older ones say none."""
    path = folder / "kind.json"
    return json.loads(path.read_text()).get("kind") if path.is_file() else None


@dataclass(frozen=True)
class Goldens:
    """A folder of cases, and the folder of the models that they were made with."""

    folder: Path
    models: Path

    @cached_property
    def pairs(self) -> list["Pair"]:
        """Every case that has arrays, or facts with prompts in them."""
        keys = {path.stem for path in self.folder.glob("*.npz")}
        keys |= {p.stem for p in self.folder.glob("*.json") if "source_prompt" in p.read_text()}
        return [Pair(self, key) for key in sorted(keys)]

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(self.models / "sdxl_random", variant="fp16", rows=3, vae_rows=1)

    @cached_property
    def tokenizers(self) -> tuple[Tokenize, Tokenize]:
        return load_tokenizers(self.models / "sdxl_random")[:2]

    @cached_property
    def samples(self) -> dict[str, Sample]:
        root = self.folder / "inputs" / "pie"
        if not root.exists():
            return {}
        parsed = load_pie_bench(root, mask_size=512, border=1, on_error="skip")
        return {sample.id: sample for sample in parsed.samples}

    @cached_property
    def metrics(self) -> list[Metric]:
        """The editing metrics with the random networks that the reference used for its figures."""
        with TemporaryDirectory() as folder:
            to_open_clip(self.models / "clip_random", Path(folder))
            clip = Clip(model=f"local-dir:{folder}", pretrained=None, rows=4)
            clip.load()  # while the folder is there
        backbone = self.models / "squeezenet_random_features.safetensors"
        return [clip, Lpips(backbone=backbone, rows=4), Pixel(rows=4)]


@dataclass(frozen=True)
class Pair:
    """One picture with two prompts: what the reference made of it, and what this project does."""

    goldens: Goldens
    key: str

    @cached_property
    def arrays(self) -> dict[str, Tensor]:
        path = self.goldens.folder / f"{self.key}.npz"
        if not path.exists():
            return {}
        with np.load(path) as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored}

    @cached_property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.goldens.folder / f"{self.key}.json").read_text())

    @property
    def backbone(self) -> Backbone:
        return self.goldens.backbone

    @cached_property
    def image(self) -> Image.Image:
        return Image.open(self.goldens.folder / "inputs" / self.facts["png"]).convert("RGB")

    @property
    def size(self) -> tuple[int, int]:
        return self.image.height, self.image.width

    @cached_property
    def posterior(self) -> Posterior:
        pixels = np.array(self.image.resize((512, 512), Image.Resampling.BICUBIC))
        return self.backbone.encode_images(torch.from_numpy(pixels)[None])

    @property
    def prompts(self) -> tuple[str, str]:
        return self.facts["source_prompt"], self.facts["target_prompt"]

    @cached_property
    def conditioning(self) -> tuple[Conditioning, Conditioning]:
        both = self.backbone.encode_prompts(self.prompts)
        return both[:1], both[1:]

    @cached_property
    def diff(self) -> PromptDiff | None:
        """None where the prompts are the same to the tokenizer."""
        source, target = map(self.backbone.tokenize, self.prompts)
        try:
            return prompt_diff(source, target, max_tokens=77, compat="reference")
        except PromptError:
            return None

    @cached_property
    def annotation(self) -> Tensor | None:
        """The annotated mask, bool [512, 512], as our parser reads it where the folder has it."""
        sample = self.goldens.samples.get(self.key)
        if sample is not None and sample.mask is not None:
            return torch.from_numpy(from_coco(sample.mask))
        return self.mask("gt_mask_packed", 512) if "gt_mask_packed" in self.arrays else None

    def mask(self, name: str, side: int = 64) -> Tensor:
        """A stored mask, bool [..., side, side]."""
        bits = np.unpackbits(self.arrays[name].numpy(), axis=-1)
        return torch.from_numpy(bits).bool().unflatten(-1, (side, side))

    @cache  # noqa: B019
    def maps(
        self, num_repeat: int = 1, strength: float = 0.5, sample_mode: Any = "argmax"
    ) -> dict[str, Tensor]:
        """Our raw maps; NaN where ``compat: reference`` says that there is none."""
        found = soft_maps(
            self.backbone,
            self.posterior,
            [Scene(self.key, torch.from_numpy(np.array(self.image)), *self.prompts)],
            {name: METHODS[name] for name in METHOD_NAMES},
            num_repeat=num_repeat,
            strength=strength,
            sample_mode=sample_mode,
            compat="reference",
        )
        nothing = torch.full((self.backbone.map_size,) * 2, torch.nan)
        return {
            name: soft_map if isinstance(soft_map, Tensor) else nothing
            for name, (soft_map,) in found.items()
        }

    def cut(
        self, name: str, thresholds: Sequence[float], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Our masks of the default map, and which of their pixels lie at the cut: [T, H, W]."""
        soft_map = self.maps()[name]
        masks = METHODS[name].cutter.masks(soft_map, thresholds, size, "reference")
        cuts = torch.tensor(thresholds)[:, None, None]
        if name == "noise_based":
            shown = upsample(soft_map, size, "reference")
            cuts = cuts * shown.mean() / 2
        else:
            shown = upsample(rescale(soft_map), size, "reference")
        return masks, (shown - cuts).abs() <= NEAR

    def script_masks(self, name: str, thresholds: Sequence[float]) -> tuple[Tensor, Tensor]:
        """As `cut`, at the picture's size and brought to the latents', as the edit script does."""
        masks, near = self.cut(name, thresholds, self.size)
        return nearest_exact(masks, 64), nearest_exact(near, 64)

    @cached_property
    def edits(self) -> dict[str, Tensor]:
        """Our final latents by label (``steps4/w1.5/ours``, ``api/ours``), under stored masks."""
        labels = [*self.facts.get("edits", ()), *self.arrays]
        runs: dict[tuple[int, float], dict[str, Tensor]] = defaultdict(dict)
        for label in labels:
            if found := re.fullmatch(r"(?:edit/)?(steps(\d)/w([\d.]+)/(\w+))(?:/latent)?", label):
                name, steps, w, mask = found.groups()
                runs[int(steps), float(w)][name] = self.edit_mask(mask)
            elif found := re.fullmatch(r"edit_api/(\w+)/latent", label):
                runs[4, 1.5][f"api/{found[1]}"] = self.edit_mask(found[1], "api")
        return {
            name: latent
            for (steps, w), masks in runs.items()
            for name, latent in self._edited(masks, steps=steps, w=w).items()
        }

    def _edited(self, masks: dict[str, Tensor], steps: Any, w: float) -> dict[str, Tensor]:
        distinct, which = torch.stack(list(masks.values())).unique(dim=0, return_inverse=True)
        latents = self.turbo_edit(distinct, steps, w)
        return dict(zip(masks, latents[which], strict=True))

    def turbo_edit(self, masks: Tensor, steps: Any = 4, w: float = 1.5) -> Tensor:
        """Our final latents under masks [N, h, w]."""
        model, prompts, x0 = self.backbone, self.conditioning, self.posterior.mean
        inversion = invert(model, x0, *prompts, steps=steps, seed=8128)
        owner = ONE.expand(len(masks))
        *_, latents = edited(model, inversion, *prompts, masks, owner, steps=steps, w=w)
        return latents

    def edit_mask(self, name: str, kind: str = "script") -> Tensor:
        if name in ("none", "ones", "zeros"):
            return torch.full((64, 64), name != "zeros")
        stored = f"mask64/{name}" if name == "gt" else f"mask64/{kind}/{name}"
        if stored in self.arrays:
            return self.mask(stored)
        if name == "gt":
            assert self.annotation is not None
            return nearest_exact(self.annotation[None], 64)[0]
        threshold = [METHODS[name].threshold]
        masks, _ = (
            self.cut(name, threshold, (64, 64))
            if kind == "api"
            else self.script_masks(name, threshold)
        )
        return masks[0]
