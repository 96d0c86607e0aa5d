"""Captions that contain a concept, by Flan-T5 (Chung et al., arXiv 2210.11416).

Knows texts; must not know samples, or what the captions are for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from piebench_masks.identity import NO_OUTPUT
from piebench_masks.weights import frozen, loading, quiet, sought, weights_folder


@dataclass(frozen=True)
class FlanT5:
    """Draws ``count`` captions of each concept, as in diffusers' DiffEdit documentation.

    model: a hub name or a folder of transformers; revision, cache_dir: of the hub; request: what it
    is asked, with {concept} in it; temperature, top_k: of the draws; max_tokens: of a caption. The
    draws of every concept are seeded with ``seed``. Loading raises WeightsError.
    """

    version: ClassVar[int] = 1

    model: str = field(default="google/flan-t5-xl", metadata=NO_OUTPUT)
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    count: int = 16
    request: str = (
        "Provide a caption for images containing a {concept}. The captions should be in English "
        "and should be no longer than 150 characters."
    )
    temperature: float = 0.8
    top_k: int = 10
    max_tokens: int = 128
    seed: int = 8128
    device: str = field(default="cpu", metadata=NO_OUTPUT)

    def identity(self) -> Any:
        """Contents of a folder's files, a hub network's name and commit."""
        return self._source[1]

    def load(self) -> None:
        """Load the network: WeightsError."""
        _ = self._network

    @torch.inference_mode()
    def captions(self, concepts: Sequence[str]) -> list[tuple[str, ...]]:
        """The captions of each concept, without empty ones; they depend on no other concept."""
        network, tokenizer = self._network
        captions = []
        for concept in concepts:
            request = self.request.replace("{concept}", concept)
            ids = tokenizer([request], return_tensors="pt").input_ids
            with torch.random.fork_rng(_generators(self.device)):
                torch.manual_seed(self.seed)
                drawn = network.generate(
                    ids.to(self.device),
                    do_sample=True,
                    num_return_sequences=self.count,
                    temperature=self.temperature,
                    top_k=self.top_k,
                    max_new_tokens=self.max_tokens,
                )
            texts = tokenizer.batch_decode(drawn, skip_special_tokens=True)
            captions.append(tuple(" ".join(text.split()) for text in texts if text.strip()))
        return captions

    @cached_property
    def _source(self) -> tuple[Path, str]:
        with self._loading():
            return weights_folder(self.model, revision=self.revision, cache_dir=self.cache_dir)

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        from transformers import AutoTokenizer, T5ForConditionalGeneration
        from transformers.utils import logging

        folder, _ = self._source
        with self._loading(), quiet(logging):
            return (
                frozen(T5ForConditionalGeneration, folder, torch.device(self.device)),
                AutoTokenizer.from_pretrained(folder, local_files_only=True),
            )

    def _loading(self) -> Any:
        return loading(
            "The model of captions about concepts",
            where=sought(self.model, self.revision, self.cache_dir),
            remedy="check the network and the name, or set concepts.model to a local folder",
        )


def _generators(device: str) -> list[torch.device]:
    """Of a device, beside the CPU's: what drawing changes."""
    return [torch.device(device)] if device != "cpu" else []
