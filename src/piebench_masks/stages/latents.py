"""The VAE posterior of every source image, encoded once for maps, edits and all their settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample
from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.run import Run, item_name, once
from piebench_masks.store import Folder

VERSION = 1


@once
def latents_folder(run: Run) -> Folder:
    parameters = {
        "version": VERSION,
        "model": run.model_source[1],
        "variant": run.cfg.model.variant,  # a folder may hold the weights of several
        "vae_dtype": run.cfg.model.vae_dtype,
    }
    return run.folder("latents", parameters)


@dataclass(frozen=True)
class Source:
    """A sample's stored posterior (mean and std), or its image [H,W,3] where none is stored."""

    name: str
    moments: dict[str, Tensor] | None
    image: NDArray[np.uint8] | None


def load_sources(run: Run, samples: Sequence[Sample]) -> list[Source]:
    """What there is of the samples in files; network and device are left alone."""
    folder = latents_folder(run)

    def load(sample: Sample) -> Source:
        name = f"{item_name(sample)}.safetensors"
        moments = folder.read_tensors(name)
        return Source(name, moments, model_image(run, sample) if moments is None else None)

    return [load(sample) for sample in samples]


def posteriors(run: Run, sources: Sequence[Source]) -> Posterior:
    """Mean and std, each [B,4,h,w]; what is not stored yet is encoded in one batch and stored."""
    stored = {source.name: source.moments for source in sources if source.moments is not None}
    images = {source.name: source.image for source in sources if source.image is not None}
    if images:
        fresh = run.backbone.encode_images(torch.from_numpy(np.stack(list(images.values()))))
        for row, name in enumerate(images):
            stored[name] = {"mean": fresh.mean[row].cpu(), "std": fresh.std[row].cpu()}
            latents_folder(run).write_tensors(name, stored[name])
    moments = [stored[source.name] for source in sources]
    mean, std = (torch.stack([each[part] for each in moments]) for part in ("mean", "std"))
    return Posterior(mean.to(run.device), std.to(run.device))


def model_image(run: Run, sample: Sample) -> NDArray[np.uint8]:
    """A sample's source image at the model's size, uint8 [H,W,3]."""
    size, _ = run.sizes
    return load_image(image_file(run, sample.image_path), (size, size))


def image_file(run: Run, image_path: str) -> Path:
    return Path(run.cfg.dataset.root) / run.cfg.dataset.image_dir / image_path
