"""The VAE posterior of every source image, encoded once for maps, edits and all their settings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample
from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.run import Run, item_name
from piebench_masks.store import Folder

VERSION = 1


def latents_folder(run: Run) -> Folder:
    parameters = {
        "version": VERSION,
        "model": run.model_source[1],
        "variant": run.cfg.model.variant,  # a folder may hold the weights of several
        "vae_dtype": run.cfg.model.vae_dtype,
    }
    return run.folder("latents", parameters)


def posteriors(run: Run, samples: Sequence[Sample]) -> Posterior:
    """Mean and std, each [B,4,h,w], of the samples' images at the model's image size."""
    folder = latents_folder(run)
    names = [f"{item_name(sample)}.safetensors" for sample in samples]
    stored = {name: tensors for name in names if (tensors := folder.read_tensors(name))}
    missing = {name: s for name, s in zip(names, samples, strict=True) if name not in stored}
    if missing:
        images = np.stack([model_image(run, sample) for sample in missing.values()])
        fresh = run.backbone.encode_images(torch.from_numpy(images))
        for row, name in enumerate(missing):
            stored[name] = {"mean": fresh.mean[row].cpu(), "std": fresh.std[row].cpu()}
            folder.write_tensors(name, stored[name])
    mean, std = (torch.stack([stored[name][part] for name in names]) for part in ("mean", "std"))
    return Posterior(mean.to(run.device), std.to(run.device))


def model_image(run: Run, sample: Sample) -> NDArray[np.uint8]:
    """A sample's source image at the model's size, uint8 [H,W,3]."""
    size, _ = run.sizes
    return load_image(image_file(run, sample.image_path), (size, size))


def image_file(run: Run, image_path: str) -> Path:
    return Path(run.cfg.dataset.root) / run.cfg.dataset.image_dir / image_path
