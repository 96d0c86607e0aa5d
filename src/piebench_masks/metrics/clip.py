"""Agreement of an edit with the prompt by CLIP (Radford et al., ICML 2021; METHODS.md, section 5).

Any model that open_clip can name or find in a folder. Knows no store.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from piebench_masks.batching import Blocks
from piebench_masks.metrics import loading
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column

LONGEST_PROMPT = 1024
"""So many tokens are taken of a prompt before it is cut to what a model sees."""


class Clip:
    """CLIP score 100 * max(0, cosine), in float32.

    name: prefix of the columns. model, pretrained: as in ``open_clip.create_model``, for example
    ``ViT-L-14-quickgelu`` with ``openai``, or ``local-dir:/a/folder`` with None. Raises
    WeightsError.
    """

    def __init__(
        self,
        name: str = "clip",
        *,
        model: str = "ViT-L-14-quickgelu",
        pretrained: str | None = "openai",
        device: str | torch.device = "cpu",
        rows: int = 8,
    ) -> None:
        self.name, self.device, self.blocks = name, torch.device(device), Blocks(rows)
        with loading(
            f"The CLIP model of '{name}'",
            where=f"{model}, weights {pretrained or 'beside its config'}, through open_clip",
            remedy="connect once so that open_clip can download it, give `pretrained` a local "
            "weight file, or `model` a 'local-dir:' folder with open_clip_config.json",
        ):
            self.model, self.preprocess = open_clip.create_model_from_pretrained(model, pretrained)
            self.tokenizer = open_clip.get_tokenizer(model)
        self.model.eval().requires_grad_(False).to(self.device)
        self._pool = ThreadPoolExecutor()
        label = "CLIP" if name == "clip" else name
        self.columns = {
            f"{name}_whole": Column(f"{label} whole", "up"),
            f"{name}_edited": Column(f"{label} edited", "up"),
            f"{name}_source": Column(f"{label} source", "up", headline=False),
        }

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Score ``edited`` uint8 [V, H, W, 3]: whole and masked image with the target prompt.

        The source image with the source prompt is the same for every variant.
        """
        images = [case.source, *edited]
        if masked := case.mask is not None and bool(case.mask.any()):
            images += list(edited * case.mask[..., None])
        source_text, target_text = self.embed_prompts([case.source_prompt, case.target_prompt])
        source, *others = self.embed_images(images)
        # Products row by row: a matrix product rounds by how many rows it has.
        cosine = (torch.stack(others) * target_text).sum(dim=-1)
        score = 100 * cosine.clamp(min=0).double().cpu().numpy()
        count = len(edited)
        return {
            f"{self.name}_whole": score[:count],
            f"{self.name}_edited": score[count:] if masked else np.full(count, np.nan),
            f"{self.name}_source": np.full(count, 100 * max(0.0, (source @ source_text).item())),
        }

    def embed_images(self, images: Iterable[np.ndarray]) -> Tensor:
        """Unit vectors [N, D] of uint8 [H, W, 3] images, through the model's own preprocessing.

        Resizing happens in Pillow, as where the published figures were made.
        """
        pixels = list(self._pool.map(self.preprocess, map(Image.fromarray, images)))
        return self.blocks.map(
            lambda block: F.normalize(self.model.encode_image(block.to(self.device)), dim=-1),
            torch.stack(pixels),
        )

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D] of prompts.

        A prompt that is longer than the model sees loses its end token, as in torchmetrics. Since
        that is what the model reads a prompt by, its score says nothing about the prompt.
        """
        whole = self.tokenizer(list(prompts), context_length=LONGEST_PROMPT)
        return self.blocks.map(
            lambda block: F.normalize(self.model.encode_text(block.to(self.device)), dim=-1),
            whole[:, : self.tokenizer.context_length],
        )
