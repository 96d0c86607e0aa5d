"""DreamSim (Fu et al., NeurIPS 2023), by its authors' package. Chosen only on purpose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from piebench_masks.batching import Blocks
from piebench_masks.identity import NO_OUTPUT
from piebench_masks.metrics.case import EditCase
from piebench_masks.metrics.column import Column
from piebench_masks.weights import WeightsError, loading


@dataclass(frozen=True, kw_only=True)
class DreamSim:
    """Perceptual distance of the whole picture to the source.

    kind: of the package's models; cache_dir: where the package puts or finds their files. Loading
    raises WeightsError.
    """

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("image", "mask")
    columns: ClassVar[Mapping[str, Column]] = {
        "dreamsim": Column("DreamSim", "down", 1e3, meaning="Perceptual distance to the source.")
    }
    kind: str = "ensemble"
    cache_dir: str = field(default="models", metadata=NO_OUTPUT)
    device: str | torch.device = field(default="cpu", metadata=NO_OUTPUT)
    rows: int = field(default=8, metadata=NO_OUTPUT)

    def load(self) -> None:
        """Load the network: WeightsError."""
        _ = self._model

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        try:
            from dreamsim import dreamsim
        except ImportError as error:
            raise WeightsError(
                "the metric DreamSim needs its package: pip install 'piebench-masks[dreamsim]'"
            ) from error
        with loading(
            "DreamSim",
            where=f"{self.kind}, in {self.cache_dir}, then on the package's release page",
            remedy="connect once so that the package can download it, or set cache_dir to where "
            "its files are",
        ):
            network, preprocess = dreamsim(
                dreamsim_type=self.kind, cache_dir=self.cache_dir, device=str(self.device)
            )
        return network, preprocess

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.rows)

    @torch.inference_mode()
    def __call__(self, case: EditCase, edited: np.ndarray) -> dict[str, np.ndarray]:
        """Distance of ``edited`` uint8 [V, H, W, 3] to the source."""
        network, preprocess = self._model
        source, *images = (preprocess(Image.fromarray(one)) for one in (case.source, *edited))

        def distances(block: Tensor) -> Tensor:
            block = block.to(self.device)
            distance: Tensor = network(source.to(self.device).expand_as(block), block)
            return distance

        found = self._blocks.map(distances, torch.cat(images))
        return {"dreamsim": found.double().cpu().numpy()}
