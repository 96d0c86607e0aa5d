"""Captions of pictures by BLIP (Li et al., arXiv 2201.12086), for use as source prompts.

Knows pictures and texts; must not know samples, or what the captions are for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.weights import frozen, loading, quiet, sought, weights_folder


@dataclass(frozen=True)
class Blip:
    """The likeliest caption that begins with ``start``, as in diffusers' DiffEdit documentation.

    model: a hub name or a folder of transformers; revision, cache_dir: of the hub; max_tokens:
    that follow the start; rows: pictures in one batch. Loading raises WeightsError.
    """

    version: ClassVar[int] = 1

    model: str = field(default="Salesforce/blip-image-captioning-base", metadata=NO_OUTPUT)
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    start: str = "a photograph of"
    max_tokens: int = 128
    rows: int = field(default=8, metadata=NO_OUTPUT)
    device: str = field(default="cpu", metadata=NO_OUTPUT)

    def identity(self) -> Any:
        """Contents of a folder's files, a hub network's name and commit."""
        return self._source[1]

    def load(self) -> None:
        """Load the network: WeightsError."""
        _ = self._network

    @torch.inference_mode()
    def captions(self, pictures: Sequence[NDArray[np.uint8]]) -> list[str]:
        """A caption of each picture [H, W, 3]; it depends on no other."""
        network, processor = self._network
        pixels = processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        start = processor.tokenizer([self.start], return_tensors="pt")["input_ids"]
        length = start.shape[1] + self.max_tokens

        def tokens(pixels: Tensor) -> Tensor:
            ids = network.generate(
                pixel_values=pixels.to(self.device),
                input_ids=start.repeat(len(pixels), 1).to(self.device),
                max_new_tokens=self.max_tokens,
                do_sample=False,
                num_beams=1,
            )
            end = network.config.text_config.pad_token_id
            return F.pad(ids, (0, length - ids.shape[1]), value=end).cpu()

        ids = self._blocks.map(tokens, pixels)
        texts = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    @cached_property
    def _source(self) -> tuple[Path, str]:
        with self._loading():
            return weights_folder(self.model, revision=self.revision, cache_dir=self.cache_dir)

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        from transformers import BlipForConditionalGeneration, BlipProcessor
        from transformers.utils import logging

        folder, _ = self._source
        with self._loading(), quiet(logging):
            return (
                frozen(BlipForConditionalGeneration, folder, torch.device(self.device)),
                BlipProcessor.from_pretrained(folder, local_files_only=True),
            )

    def _loading(self) -> Any:
        return loading(
            "The model of captions",
            where=sought(self.model, self.revision, self.cache_dir),
            remedy="check the network and the name, or set captions.model to a local folder",
        )

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)
