"""What the public code of Learnable Regions computed on random models, family by family.

The form of ../shared/goldens_regions/public; its README, one folder above, says what each array is
and what the tolerances are. Whatever a case lacks is not there to be compared.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha1
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from editors_more import Arrays
from families import Check, furthest
from goldens import kind_of
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import ViTModel
from transformers_clip import to_open_clip

from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.editor import decoded
from piebench_masks.editing.inpaint import Inpaint
from piebench_masks.masks.regions_reference import enlarged, enlarged_masks
from piebench_masks.metrics.clip import Clip
from piebench_masks.regions.boxes import anchor_points, pixel_boxes
from piebench_masks.regions.losses import TEMPLATE, Encoders
from piebench_masks.regions.network import Choice, RegionNetwork
from piebench_masks.regions.saliency import (
    IMAGE_SIZE,
    Features,
    features,
    fit_positions,
    saliency,
    square,
)

GRID = 32
SMALL, FEATURES = 1e-5, 1e-5
"""Of saliency, log-probabilities and gradients; of DINO's features, whose size is 4."""
MERSENNE, MULTIPLIER = 2**31 - 1, 1132489760


def intel_exponential(state: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What ``torch.Tensor.exponential_`` draws from a state where torch uses MKL: on Intel's CPUs.

    A multiplicative congruential generator (MCG31m1) starts from 32 bits of the state's Mersenne
    Twister; -log(u) of what it gives. Other CPUs draw otherwise.
    """
    words = np.frombuffer(state.numpy().tobytes()[8:], np.uint32)
    twister = np.random.MT19937()
    key = np.frombuffer(state.numpy().tobytes()[24 : 24 + 8 * 624], np.uint64).astype(np.uint32)
    position = 624 if words[0] == 1 else int(words[2])
    inner: Any = twister.state
    twister.state = {**inner, "state": {"key": key, "pos": position}}
    x, draws = int(twister.random_raw()) % MERSENNE or 1, []
    for _ in range(int(np.prod(shape))):
        draws.append(x / MERSENNE)
        x = x * MULTIPLIER % MERSENNE
    return torch.tensor(draws, dtype=torch.float64).log().neg().view(shape)


@dataclass(frozen=True)
class RegionGoldens:
    """A folder of cases, and the folder that holds the models by their names."""

    folder: Path
    shared: Path

    @staticmethod
    def knows(folder: Path) -> bool:
        return kind_of(folder) == "goldens_regions"

    @cached_property
    def cases(self) -> list["RegionCase"]:
        return [RegionCase(self, path.stem) for path in sorted(self.folder.glob("*.npz"))]

    def model(self, name: str) -> Path:
        """The folder of that model, wherever among the stored cases it lies."""
        return next(self.shared.glob(f"*/model/{name}"))

    @cached_property
    def dino(self) -> Any:
        network = ViTModel.from_pretrained(
            self.model("dino_hf"), add_pooling_layer=False, local_files_only=True
        )
        fit_positions(network, "reference")
        return network.eval().requires_grad_(False)

    @cached_property
    def clip(self) -> Clip:
        with TemporaryDirectory() as folder:
            to_open_clip(self.model("clip_hf"), Path(folder))
            clip = Clip(model=f"local-dir:{folder}", pretrained=None, rows=8)
            clip.load()  # while the folder is there
        return clip

    @cached_property
    def encoders(self) -> Encoders:
        return Encoders(self.clip.network, self.clip.tokenizer)

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(self.model("sd_inpaint_random"), variant="fp16")

    def unseen(self) -> dict[str, list[str]]:
        """Arrays that no family has looked at, by case."""
        found = {case.key: sorted(case.arrays.keys() - case.arrays.seen) for case in self.cases}
        return {key: names for key, names in found.items() if names}


class Watched:
    """A model that keeps what noise is predicted in, and when."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.latents: list[Tensor] = []
        self.timesteps: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict_noise(self, latents: Tensor, timesteps: Tensor, *arguments: Any) -> Any:
        self.latents.append(latents)
        self.timesteps.append(int(timesteps[0]))
        return self.model.predict_noise(latents, timesteps, *arguments)


@dataclass(frozen=True)
class Painting:
    """What is painted under P masks.

    noise, masked_latents: [P, 4, 64, 64]; mask: bool [P, 64, 64]; steps: after each, [K, P, 4, 64,
    64]; timesteps: of each; images: uint8 [P, 512, 512, 3].
    """

    noise: Tensor
    mask: Tensor
    masked_latents: Tensor
    steps: Tensor
    timesteps: list[int]
    images: Tensor


@dataclass(frozen=True)
class RegionCase:
    """A picture with a caption and a prompt; or the collection of units."""

    goldens: RegionGoldens
    key: str
    _paintings: dict[int, Painting] = field(default_factory=dict, compare=False)

    @cached_property
    def arrays(self) -> Arrays:
        return Arrays(self.goldens.folder / f"{self.key}.npz")

    @cached_property
    def facts(self) -> dict[str, Any]:
        path = self.goldens.folder / f"{self.key}.json"
        facts: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return facts

    @property
    def is_pair(self) -> bool:
        return "args" in self.facts and self.png.exists()

    @property
    def png(self) -> Path:
        return self.goldens.folder / "inputs" / f"{self.key}.png"

    @property
    def largest(self) -> int:
        return int(self.facts["args"]["max_window_size"])

    @cached_property
    def calls(self) -> dict[int, dict[str, Any]]:
        """The facts of each pass, by its number."""
        return {call.get("k", i): call for i, call in enumerate(self.facts.get("calls", []))}

    @property
    def last(self) -> int | None:
        """The number of the pass whose pictures are chosen from."""
        return next((k for k, call in self.calls.items() if call.get("training") is False), None)

    @property
    def prompt(self) -> str:
        return str(self.facts["args"]["editing_prompt"])

    @cached_property
    def image(self) -> Tensor:
        """uint8 [256, 256, 3]."""
        return square(picture(self.png).numpy())

    @cached_property
    def features(self) -> Features:
        return features(self.goldens.dino, self.image)

    @cached_property
    def saliency(self) -> Tensor:
        return saliency(self.features.attention)

    @cached_property
    def points(self) -> Tensor:
        count = int(self.facts["args"]["point_number"])
        return anchor_points(self.saliency, count, self.largest, "reference")

    @cached_property
    def network(self) -> RegionNetwork | None:
        """As the public code initialised it."""
        path = self.goldens.folder / f"{self.key}.regionnet.safetensors"
        if not path.exists():
            return None
        return published_network(path, self.largest)

    def choice(self, k: int) -> Choice | None:
        """Of the k-th pass, with its noise; None where neither noise nor network is stored."""
        gumbel = self.gumbel(k)
        if self.network is None or gumbel is None:
            return None
        with torch.no_grad():
            found = self.network.region_features(
                self.network.feature_map(self.features.tokens), self.points
            )
            return self.network.choose(self.points, self.network(found), gumbel, GRID)

    def gumbel(self, k: int) -> Tensor | None:
        if f"call{k}/rng_before" in self.arrays and self.network is not None:
            shape = len(self.points), len(self.network.half_sizes)
            drawn = intel_exponential(self.arrays[f"call{k}/rng_before"], shape)
            return -drawn.float().log()
        return self.arrays.get(f"call{k}/gumbel")

    def boxes(self, k: int) -> Tensor | None:
        """In pixels."""
        choice = self.choice(k)
        if choice is not None:
            return pixel_boxes(choice.boxes, IMAGE_SIZE, GRID)
        stored = self.arrays.get(f"call{k}/bbox_ceil")
        return None if stored is None else stored.long()

    def painting(self, k: int) -> Painting | None:
        """Of the k-th pass; None where its boxes cannot be known."""
        boxes = self.boxes(k)
        if boxes is None:
            return None
        if k not in self._paintings:
            self._paintings[k] = self._paint(k, boxes)
        return self._paintings[k]

    def pictures(self, k: int) -> tuple[Tensor, list[bool]] | None:
        """Painted ones of a pass, uint8 [P, 3, 512, 512]; which of them are to the last pixel as
        they were. Stored ones stand in for our own.
        """
        painting = self.painting(k)
        if painting is None:
            return None
        images = painting.images.clone()
        for i in range(len(images)):
            path = self.goldens.folder / "edited" / f"{self.key}__call{k}_anchor{i}.png"
            if path.exists():
                images[i] = picture(path)
        planes = images.movedim(-1, 1).contiguous()
        stored = self.calls[k].get("edit_sha1_chw_uint8", [])
        same = [digest(plane) in stored[i : i + 1] for i, plane in enumerate(planes)]
        return planes, same

    def _paint(self, k: int, boxes: Tensor) -> Painting:
        count, backbone = len(boxes), self.goldens.backbone
        painter = Inpaint(
            id=str(self.goldens.model("sd_inpaint_random")),
            variant="fp16",
            steps=self.facts["inpainting_steps"],
            guidance=self.facts.get("guidance", 7.5),
            compat="reference",
        )
        pipeline, model = painter.model.loaded(backbone)
        watched: Any = Watched(model)
        painter.model._models[backbone.device] = pipeline, watched
        generator = torch.Generator().manual_seed(0)
        for _ in range(2 * k):  # the passes before
            torch.randn(count, 4, 64, 64, generator=generator)
        draws = [torch.randn(count, 4, 64, 64, generator=generator) for _ in range(2)]
        sampled = painter.inpainted(
            backbone,
            enlarged(self.image, 512).expand(count, -1, -1, -1),
            model.encode_prompts([TEMPLATE.format(self.prompt)] * count),
            enlarged_masks(boxes, 512),
            [generator] * count,
            torch.stack(draws),
        )
        seen = torch.stack([latents[-count:] for latents in watched.latents])
        steps = torch.cat([seen[1:, :, :4], sampled.latents[None]])
        images = decoded(model, sampled).images
        first = seen[0]
        return Painting(
            first[:, :4], first[:, 4] > 0, first[:, 5:], steps, watched.timesteps, images
        )

    def check(self, family: str, name: str, found: Any, tolerance: float) -> Iterator[Check]:
        """Against the array of that name, where it is stored."""
        if name in self.arrays:
            yield self.error(family, name, furthest(found, self.arrays[name]), tolerance)

    def bits(self, family: str, name: str, found: Tensor) -> Iterator[Check]:
        """Pixels of masks [P, side, side] that differ."""
        if name in self.arrays:
            packed = torch.from_numpy(np.packbits(found.flatten(1).numpy(), axis=-1))
            yield self.error(family, name, float((packed != self.arrays[name]).sum()), 0)

    def fact(self, family: str, name: str, found: Any, stored: Any) -> Iterator[Check]:
        """Equal to what the facts say, where they say it."""
        if stored is not None:
            yield self.error(family, name, float(found != stored), 0)

    def error(self, family: str, name: str, error: float, tolerance: float) -> Check:
        return Check(family, f"{self.key} {name}", error, tolerance)


def picture(path: Path) -> Tensor:
    """uint8 [H, W, 3]."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB")))


def digest(tensor: Tensor) -> str:
    return sha1(tensor.contiguous().numpy().tobytes()).hexdigest()


def published_network(path: Path, largest: int) -> RegionNetwork:
    weights = load_file(path)
    network = RegionNetwork(weights["conv.weight"].shape[1], largest)
    network.load_published(weights)
    return network
