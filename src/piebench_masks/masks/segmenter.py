"""Segmenters that look for words on the source picture, without the diffusion model.

What their kinds have in common: which words, the network, and batches of pictures. Knows no kind.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.data.scene import Knows, Scene
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.record import Record
from piebench_masks.weights import frozen, loading, quiet, sought, weights_folder

Words = Literal["blended", "changed", "prompt"]
"""What is looked for: the half of PIE-Bench's blended words that names the source; the words of the
source prompt that the target prompt changes; the whole source prompt."""


@dataclass(frozen=True)
class Segmenter(MapMethod):
    """The share of every pixel that shows the words.

    model: a hub name or a folder of transformers; revision, cache_dir: of the hub; rows: pictures
    in one batch. Where an edit only inserts words the source shows nothing of it: the map is 0.
    Loading raises WeightsError.
    """

    forwards: ClassVar[int] = 1

    binarizer: str = "above"
    words: Words = "changed"
    model: str = field(default="", metadata=NO_OUTPUT)
    revision: str | None = field(default=None, metadata=NO_OUTPUT)
    cache_dir: str | None = field(default=None, metadata=NO_OUTPUT)
    rows: int = field(default=8, metadata=NO_OUTPUT)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words not in get_args(Words):
            raise BenchmarkError(
                f"{type(self).__name__}.words is {self.words!r}: choose one of "
                f"{', '.join(get_args(Words))}"
            )

    @property
    def knows(self) -> Knows:  # type: ignore[override]
        return "word" if self.words == "blended" else "prompts"

    def identity(self) -> Any:
        """Contents of a folder's files, a hub network's name and commit."""
        return self._folder(self.model)[1]

    def load(self, device: torch.device) -> None:
        """Load the networks: WeightsError."""
        _ = self._networks(device)

    def __call__(self, record: Record) -> Tensor:
        found = self.maps([record])[0]
        if isinstance(found, Exception):
            raise found
        return found

    def maps(self, records: Iterable[Record]) -> list[Tensor | Exception]:
        """[g, g] each, on the network's own grid; of pictures in batches."""
        records = list(records)
        answers: list[Tensor | Exception] = []
        asked: list[tuple[int, str]] = []
        for row, record in enumerate(records):
            answers.append(torch.zeros(record.map_size, record.map_size))
            try:
                words = self.sought(record.scene)
            except BenchmarkError as error:
                answers[row] = error
            else:
                asked += [(row, words)] if words else []
        if asked:
            pictures = [records[row].scene.image.numpy() for row, _ in asked]
            found = self.found(pictures, [words for _, words in asked], records[0].device)
            for (row, _), one in zip(asked, found, strict=True):
                answers[row] = one
        return answers

    def sought(self, scene: Scene) -> str:
        """The words to look for; none where the edit only inserts some."""
        if self.words == "prompt":
            return scene.source_prompt
        if self.words == "blended":
            return scene.blended_source
        return " ".join(scene.source_changed)

    @abstractmethod
    def found(
        self, pictures: Sequence[NDArray[np.uint8]], words: Sequence[str], device: torch.device
    ) -> list[Tensor]:
        """Where each picture [H, W, 3] shows its words: float32 [h, w] on the CPU, in [0, 1]."""

    @abstractmethod
    def _load(self, device: torch.device) -> Any:
        """The networks and their processors; raises what they raise."""

    def _networks(self, device: torch.device) -> Any:
        if device not in self._loaded:
            from transformers.utils import logging

            with self._loading(self.model), quiet(logging):
                self._loaded[device] = self._load(device)
        return self._loaded[device]

    def _folder(self, model: str) -> tuple[Path, str]:
        with self._loading(model):
            return weights_folder(model, revision=self.revision, cache_dir=self.cache_dir)

    def _loading(self, model: str) -> Any:
        return loading(
            f"The segmenter of {type(self).__name__}",
            where=sought(model, self.revision, self.cache_dir),
            remedy="check the network and the name; where the hub asks for it, accept the model's "
            "terms on its page and log in (hf auth login); or give a local folder in its place",
        )

    @cached_property
    def _loaded(self) -> dict[torch.device, Any]:
        return {}

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)


class TextSegmenter(Segmenter):
    """One network that takes a batch of pictures and a text of each."""

    @abstractmethod
    def classes(self) -> tuple[Any, Any]:
        """The network and its processor, of transformers."""

    @abstractmethod
    def shares(self, output: Any) -> Tensor:
        """The share of every pixel, [B, h, w] in [0, 1], from what the network returns."""

    def found(
        self, pictures: Sequence[NDArray[np.uint8]], words: Sequence[str], device: torch.device
    ) -> list[Tensor]:
        network, processor = self._networks(device)
        pixels = processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        tokens = processor.tokenizer(
            list(words),
            padding="max_length",
            truncation=True,
            max_length=network.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )

        def shares(pixels: Tensor, ids: Tensor, attended: Tensor) -> Tensor:
            output = network(
                pixel_values=pixels.to(device),
                input_ids=ids.to(device),
                attention_mask=attended.to(device),
            )
            return self.shares(output).cpu()

        ids, attended = tokens["input_ids"], tokens["attention_mask"]
        return list(self._blocks.map(shares, pixels, ids, attended))

    def _load(self, device: torch.device) -> tuple[Any, Any]:
        network, processor = self.classes()
        folder = self._folder(self.model)[0]
        return (
            frozen(network, folder, device),
            processor.from_pretrained(folder, local_files_only=True),
        )
