"""A fitted picture: the tokens of its items, what was trained of the U-Net, and the file of both.

Knows no loss and no sampler. The file is safetensors; nothing of the model is in it but what a fit
has changed (D-Edit, arXiv 2403.04880).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.diffusion.stable_diffusion import StableDiffusion
from piebench_masks.errors import BenchmarkError
from piebench_masks.items import adapters
from piebench_masks.items.attention import ItemTexts
from piebench_masks.items.partition import Partition
from piebench_masks.items.tokens import ItemPrompt, item_texts
from piebench_masks.packing import pack_tensors, unpack_facts
from piebench_masks.temporary import write_whole

FORMAT = "fitted items 1"
REFERENCE_SIZE = 1024
"""The side of pictures that the public code tells SDXL, whatever it is."""


@dataclass(frozen=True)
class FitSettings:
    """How a picture is fitted.

    tokens: of each item; embedding_steps, unet_steps: forward and backward passes of the two
    phases, multiples of ``accumulation``, whose passes make one step of AdamW; batch: draws of
    noise in each pass; lora_rank: 0 trains query, key and value of the cross-attention, another
    LoRA of that rank and of ``lora_alpha`` on all attention. compat: reference has the quirks of
    the public code in the fit and in all edits; there, passes beyond the last step are thrown away.
    Raises BenchmarkError for values out of range.
    """

    tokens: int = 5
    embedding_steps: int = 500
    unet_steps: int = 500
    embedding_learning_rate: float = 1e-4
    unet_learning_rate: float = 5e-5
    batch: int = 2
    accumulation: int = 5
    lora_rank: int = 0
    lora_alpha: float = 4.0
    seed: int = 42
    compat: Compat = "exact"

    def __post_init__(self) -> None:
        steps = self.embedding_steps, self.unet_steps
        wrong = [
            (min(self.tokens, self.batch, self.accumulation) < 1, "tokens, batch and accumulation"),
            (min(*steps, self.lora_rank) < 0, "embedding_steps, unet_steps and lora_rank"),
            (min(self.embedding_learning_rate, self.unet_learning_rate) <= 0, "learning rates"),
            (self.compat not in ("exact", "reference"), "compat"),
        ]
        if names := [name for is_wrong, name in wrong if is_wrong]:
            raise BenchmarkError(f"{', '.join(names)} of a fit out of range: correct {self}")
        if self.compat == "exact" and any(each % self.accumulation for each in steps):
            raise BenchmarkError(
                f"a fit of {steps[0]} and {steps[1]} passes, of which {self.accumulation} make one "
                "step: give multiples of accumulation"
            )

    @property
    def told_size(self) -> int | None:
        return REFERENCE_SIZE if self.compat == "reference" else None


@dataclass(frozen=True, eq=False)
class Fitted:
    """One or several pictures that one model was fitted to.

    model: the identity of that model; images: `image_identity` of every picture; items: of every
    picture; rows: of every text encoder the embeddings of all tokens [items tokens, d], those of
    the first picture's first item first; parameters: of the U-Net, by name, weights or LoRA factors
    (see `adapters`); losses: by phase, float32 [passes, pictures]. All tensors are float32 on the
    CPU.
    """

    model: str
    images: tuple[str, ...]
    items: tuple[Partition, ...]
    settings: FitSettings
    rows: Sequence[Tensor]
    parameters: Mapping[str, Tensor]
    losses: Mapping[str, Tensor] = field(default_factory=dict)

    def prompts(self, picture: int = 0) -> list[ItemPrompt]:
        """What the items of a picture attended to in the fit: their own tokens alone."""
        first = sum(len(items.names) for items in self.items[:picture])
        return [ItemPrompt(item=first + i) for i in range(len(self.items[picture].names))]

    def adapted(self, backbone: StableDiffusion) -> StableDiffusion:
        """The backbone with the weights of the fit. Raises BenchmarkError for another."""
        try:
            weights: Mapping[str, Tensor] = {k: w.to(backbone.device) for k, w in self._checked()}
            if self.settings.lora_rank:
                scale = self.settings.lora_alpha / self.settings.lora_rank
                weights = adapters.merged(backbone, weights, scale)
            for name, weight in weights.items():
                if weight.shape != backbone.unet.get_parameter(name).shape:
                    raise ValueError(f"{name} has the shape {list(weight.shape)}")
            for encoder, rows in zip(backbone.text.encoders, self.rows, strict=True):
                if rows.shape[1] != encoder.config.hidden_size:
                    raise ValueError(f"its tokens are {rows.shape[1]} wide")
        except (AttributeError, KeyError, RuntimeError, ValueError) as error:
            raise BenchmarkError(
                f"the fitted picture is of the model {self.model}, not of this one ({error}): give "
                "that model, or fit the picture to this one"
            ) from error
        return backbone.adapted(weights, told_size=self.settings.told_size)

    def _checked(self) -> list[tuple[str, Tensor]]:
        tensors = [*self.rows, *self.parameters.values()]
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise ValueError("its weights are not finite")
        return list(self.parameters.items())

    def texts(
        self, backbone: StableDiffusion, prompts: Sequence[ItemPrompt], masks: Tensor
    ) -> ItemTexts:
        """What n items with masks [n, H, W] attend to, given prompts of which some are others'."""
        device = backbone.device
        with torch.no_grad():
            return item_texts(
                backbone.text,
                [rows.to(device) for rows in self.rows],
                prompts,
                masks,
                tokens=self.settings.tokens,
                compat=self.settings.compat,
            )

    def check_image(self, image: Tensor, picture: int = 0) -> None:
        """Raise BenchmarkError unless uint8 [H, W, 3] is that picture of the fit."""
        if image_identity(image) != self.images[picture]:
            raise BenchmarkError(
                f"the picture of {image.shape[1]}x{image.shape[0]} pixels is not the one of this "
                f"fit, whose items are {', '.join(self.items[picture].names)}: give that picture, "
                "at the size of the fit"
            )

    def pack(self, origin: str | None = None) -> bytes:
        """A safetensors file. origin: as in `packing`."""
        facts = {
            "format": FORMAT,
            "model": self.model,
            "settings": asdict(self.settings),
            "pictures": [
                {"image": image, "names": items.names}
                for image, items in zip(self.images, self.items, strict=True)
            ],
        }
        tensors = {f"rows/{i}": rows for i, rows in enumerate(self.rows)}
        tensors |= {f"items/{i}": items.labels for i, items in enumerate(self.items)}
        tensors |= {f"unet/{name}": tensor for name, tensor in self.parameters.items()}
        tensors |= {f"losses/{phase}": losses for phase, losses in self.losses.items()}
        return pack_tensors(tensors, origin, json.dumps(facts))

    @classmethod
    def unpack(cls, data: bytes) -> "Fitted":
        """What ``pack`` gave; anything else makes it raise, whatever type of exception."""
        text, tensors = unpack_facts(data)
        facts: dict[str, Any] = json.loads(text)
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}")
        groups: dict[str, dict[str, Tensor]] = {"rows": {}, "items": {}, "unet": {}, "losses": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor
        pictures = facts["pictures"]
        items = tuple(
            Partition.from_labels(groups["items"][str(i)], picture["names"])
            for i, picture in enumerate(pictures)
        )
        settings = FitSettings(**facts["settings"])
        rows = [groups["rows"][str(i)] for i in range(len(groups["rows"]))]
        tokens = settings.tokens * sum(len(each.names) for each in items)
        if not rows or any(each.ndim != 2 or len(each) != tokens for each in rows):
            raise ValueError(f"there are not {tokens} tokens")
        images = tuple(str(picture["image"]) for picture in pictures)
        return cls(
            str(facts["model"]), images, items, settings, rows, groups["unet"], groups["losses"]
        )


def image_identity(image: Tensor) -> str:
    """12 hex digits of a picture, uint8 [H, W, 3]."""
    return hashlib.sha256(
        json.dumps(list(image.shape)).encode() + image.cpu().contiguous().numpy().tobytes()
    ).hexdigest()[:12]


def posterior(backbone: StableDiffusion, image: Tensor) -> Posterior:
    """The VAE's over latents of a picture, uint8 [H, W, 3], as a fit and its edits need it.

    The picture is laid out channel by channel, as the public code has it, where the sums of some
    processors' group norm are a hundred times as exact.
    """
    planes = image.permute(2, 0, 1).contiguous()
    found = backbone.encode_images(planes.permute(1, 2, 0)[None])
    return Posterior(found.mean.clone(), found.std.clone())  # of use with gradients


def save_fitted(fitted: Fitted, path: Path) -> None:
    """Write the file of a fitted picture at once. Raises BenchmarkError."""
    write_whole(path, fitted.pack())


def load_fitted(path: Path, model: str) -> Fitted:
    """Read the file of a fitted picture. model: the identity of the model that is to have it.

    Raises BenchmarkError for a file that is missing, damaged or of another model.
    """
    try:
        fitted = Fitted.unpack(path.read_bytes())
    except Exception as error:  # whatever a damaged file makes the reader raise
        reason = "there is none" if isinstance(error, FileNotFoundError) else str(error)
        raise BenchmarkError(
            f"{path} cannot be read as a fitted picture ({reason}): fit the picture anew"
        ) from error
    if fitted.model != model:
        raise BenchmarkError(
            f"{path} was fitted to the model {fitted.model}, not to {model}: give that model, or "
            "fit the picture to this one"
        )
    return fitted
