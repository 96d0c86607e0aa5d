"""Agreement of an edit with the prompt by CLIP (Radford et al., ICML 2021; methods.md, section 5).

Any model that open_clip can name or find in a folder. Knows no store.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.batching import Blocks
from piebench_masks.identity import NO_OUTPUT, files_identity
from piebench_masks.metrics.case import EditCase, Known, content
from piebench_masks.metrics.column import Column
from piebench_masks.weights import loading

LONGEST_PROMPT = 1024
"""So many tokens are taken of a prompt before it is cut to what a model sees."""
LOCAL = "local-dir:"
"""What open_clip has before the name of a folder."""
LOADED = (".json", ".txt", ".model", ".safetensors", ".bin", ".pt", ".pth")
"""Endings of the files in such a folder that a model, its tokenizer and weights are read from."""


@dataclass(frozen=True)
class Clip:
    """CLIP score 100 * max(0, cosine), its gain over the source's, and CLIP directional similarity
    (Gal et al., SIGGRAPH 2022), in float32.

    name: prefix of the columns. happened_at: the gain from which an edit has happened. model,
    pretrained: as in ``open_clip.create_model``, for example ``ViT-L-14-quickgelu`` with
    ``openai``, or ``local-dir:/a/folder`` with None. Loading raises WeightsError.
    """

    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("image", "prompts", "mask")
    name: str = "clip"
    _: KW_ONLY
    happened_at: float = 1.0
    model: str = field(default="ViT-L-14-quickgelu", metadata=NO_OUTPUT)
    pretrained: str | None = field(default="openai", metadata=NO_OUTPUT)
    device: str | torch.device = field(default="cpu", metadata=NO_OUTPUT)
    rows: int = field(default=8, metadata=NO_OUTPUT)

    @property
    def columns(self) -> Mapping[str, Column]:
        published = self.name == "clip"
        label = "CLIP" if published else self.name
        qualifier = (
            "" if published else ", by encoders of the data set's own, not comparable with CLIP"
        )
        agreement = f"agreement with the target prompt{qualifier}, 0 to 100."
        return {
            f"{self.name}_whole": Column(
                f"{label} whole",
                "up",
                role="edit",
                meaning=f"The whole picture's {agreement}",
                bounds=(0, 100),
            ),
            f"{self.name}_edited": Column(
                f"{label} edited",
                "up",
                role="edit",
                meaning=f"The annotated part's {agreement}",
                part="inside",
                bounds=(0, 100),
            ),
            f"{self.name}_source": Column(
                f"{label} source",
                "up",
                headline=False,
                meaning=f"The unedited picture's agreement with the source prompt{qualifier}, 0 to "
                "100.",
            ),
            f"{self.name}_gain": Column(
                f"{label} gain",
                "up",
                meaning="The whole picture's agreement with the target prompt, less that of the "
                f"unedited picture{qualifier}; 0 is doing nothing.",
                headline=False,
                bounds=(-100, 100),
            ),
            f"{self.name}_direction": Column(
                f"{label} direction",
                "up",
                100,
                meaning="Cosine between the change of the picture and that of the prompt (CLIP "
                f"directional similarity{qualifier}); 0 is doing nothing.",
                bounds=(-1, 1),
            ),
            f"{self.name}_happened": Column(
                f"{label} happened",
                "up",
                100,
                digits=1,
                meaning=f"Share of edits whose {label} gain is at least {self.happened_at:g}.",
                headline=False,
                bounds=(0, 1),
            ),
        }

    def identity(self) -> dict[str, Any]:
        """Contents of the files that the model is read from; names of what is downloaded."""
        names = {"model": self.model, "pretrained": self.pretrained}
        with self._loading():
            if self.model.startswith(LOCAL):
                folder = Path(self.model.removeprefix(LOCAL))
                files = [path for path in folder.iterdir() if path.suffix in LOADED]
                names["model"] = files_identity(folder, files)
            if self.pretrained and (path := Path(self.pretrained)).is_file():
                names["pretrained"] = files_identity(path.parent, [path])
        return names

    def load(self) -> None:
        """Load model and tokenizer: WeightsError."""
        _ = self._open_clip

    @property
    def network(self) -> Any:
        """open_clip's model on the device."""
        return self._open_clip[0]

    @property
    def tokenizer(self) -> Any:
        """open_clip's tokenizer of the model."""
        return self._open_clip[2]

    @cached_property
    def _open_clip(self) -> tuple[Any, Any, Any]:
        """Model, preprocessing of images and tokenizer."""
        import open_clip  # importing it takes seconds, which a cached run need not wait

        with self._loading():
            self._download()
            network, preprocess = open_clip.create_model_from_pretrained(
                self.model, self.pretrained
            )
            tokenizer = open_clip.get_tokenizer(self.model)
        return network.eval().requires_grad_(False).to(self.device), preprocess, tokenizer

    def _download(self) -> None:
        """The weights, where they are the hub's, into its cache. It fails at once where open_clip's
        own requests are repeated for minutes.
        """
        from huggingface_hub import snapshot_download
        from open_clip.pretrained import HF_SAFE_WEIGHTS_NAME, get_pretrained_cfg

        tag = get_pretrained_cfg(self.model, self.pretrained) if self.pretrained else {}
        repository, _, file = tag.get("hf_hub", "").rpartition("/")
        if repository:
            name = f"{Path(file).stem}.safetensors" if file else HF_SAFE_WEIGHTS_NAME
            snapshot_download(repository, allow_patterns=[name])

    def _loading(self) -> Any:
        return loading(
            f"The CLIP model of '{self.name}'",
            where=f"{self.model}, weights {self.pretrained or 'beside its config'}, through "
            "open_clip",
            remedy="connect once so that open_clip can download it, give `pretrained` a local "
            "weight file, or `model` a 'local-dir:' folder with open_clip_config.json",
        )

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)

    @cached_property
    def _known(self) -> Known:
        return Known()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor()

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` uint8 [V, H, W, 3]: whole and masked image with the target prompt.

        The source image with the source prompt is the same for every variant.
        """
        images = [case.source, *edited]
        if has_mask := case.mask is not None and bool(case.mask.any()):
            images += list(edited * case.mask[..., None])
        source_text, target_text = self.embed_prompts([case.source_prompt, case.target_prompt])
        source, *embeddings = self.embed_images(images)
        # Products row by row: a matrix product rounds by how many rows it has.
        stacked = torch.stack([source, *embeddings])
        score = 100 * (stacked * target_text).sum(dim=-1).clamp(min=0).double().cpu().numpy()
        count = len(edited)
        whole = score[1 : count + 1]
        gain = whole - score[0]
        moved, told = stacked[1 : count + 1] - source, target_text - source_text
        direction = F.cosine_similarity(moved, told.expand_as(moved), dim=-1).double().cpu().numpy()
        return {
            f"{self.name}_whole": whole,
            f"{self.name}_edited": score[count + 1 :] if has_mask else np.full(count, np.nan),
            f"{self.name}_source": np.full(count, 100 * max(0.0, (source @ source_text).item())),
            f"{self.name}_gain": gain,
            f"{self.name}_direction": direction if told.any() else np.full(count, np.nan),
            f"{self.name}_happened": (gain >= self.happened_at).astype(float),
        }

    def embed_images(self, images: Iterable[np.ndarray]) -> Tensor:
        """Unit vectors [N, D] of uint8 [H, W, 3] images, through the model's own preprocessing.

        Resizing happens in Pillow, as where the published figures were made.
        """
        images = list(images)

        def results(places: list[int]) -> Sequence[Tensor]:
            chosen = (Image.fromarray(images[place]) for place in places)
            pixels = torch.stack(list(self._pool.map(self._open_clip[1], chosen)))
            return self._blocks.map(
                lambda block: F.normalize(self.network.encode_image(block.to(self.device)), dim=-1),
                pixels,
            ).unbind()

        keys = [(content(image),) for image in images]
        return torch.stack(self._known.fill(keys, results))

    @torch.inference_mode()
    def tokens(self, images: Iterable[np.ndarray]) -> Tensor:
        """The tokens [N, T, D] of uint8 [H, W, 3] images behind a ViT's last normalisation."""
        tokens: list[Tensor] = []
        handle = self.network.visual.ln_post.register_forward_hook(
            lambda module, arguments, output: tokens.append(output)
        )
        try:
            for image in images:
                pixels = self._open_clip[1](Image.fromarray(image))[None]
                self.network.encode_image(pixels.to(self.device))
        finally:
            handle.remove()
        return torch.cat(tokens).float()

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D] of prompts.

        A prompt that is longer than the model sees loses its end token, as in torchmetrics. Since
        that is what the model reads a prompt by, its score says nothing about the prompt.
        """

        def results(places: list[int]) -> Sequence[Tensor]:
            tokenizer = self._open_clip[2]
            chosen = [prompts[place] for place in places]
            tokens = tokenizer(chosen, context_length=LONGEST_PROMPT)
            return self._blocks.map(
                lambda block: F.normalize(self.network.encode_text(block.to(self.device)), dim=-1),
                tokens[:, : tokenizer.context_length],
            ).unbind()

        keys = [(b"text", prompt.encode()) for prompt in prompts]
        return torch.stack(self._known.fill(keys, results))
