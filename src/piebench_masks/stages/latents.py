"""The VAE posterior of every source image, encoded once for maps, edits and all their settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample, item_name
from piebench_masks.data.scene import Scene, scene_of
from piebench_masks.diffusion.backbone import Posterior
from piebench_masks.run import Run, once
from piebench_masks.store import Folder

VERSION = 2
READS = ("image",)


@once
def latents_folder(run: Run) -> Folder:
    parameters = {
        "version": VERSION,
        "model": run.identity("model"),
        "vae_dtype": run.cfg.model.vae_dtype,
    }
    return run.folder("latents", parameters)


@dataclass(frozen=True)
class Source:
    """A sample's scene and, where it is stored, its posterior (mean and std)."""

    name: str
    scene: Scene
    moments: dict[str, Tensor] | None = None


def load_sources(run: Run, samples: Sequence[Sample], *, encoded: bool) -> list[Source]:
    """The samples' scenes and stored posteriors, from files alone.

    encoded: whether posteriors are needed.
    """

    def load(sample: Sample) -> Source:
        name = f"{item_name(sample, READS)}.safetensors"
        moments = latents_folder(run).read_tensors(name) if encoded else None
        return Source(name, model_scene(run, sample), moments)

    return [load(sample) for sample in samples]


def posteriors(run: Run, sources: Sequence[Source]) -> Posterior:
    """Mean and std, each [B,4,h,w]; what is not stored yet is encoded in one batch and stored."""
    moments_by_name = {
        source.name: source.moments for source in sources if source.moments is not None
    }
    images = {
        source.name: source.scene.image for source in sources if source.name not in moments_by_name
    }
    if images:
        posterior = run.backbone.encode_images(torch.stack(list(images.values())))
        for row, name in enumerate(images):
            moments_by_name[name] = {
                "mean": posterior.mean[row].cpu(),
                "std": posterior.std[row].cpu(),
            }
            latents_folder(run).write_tensors(name, moments_by_name[name])
    moments = [moments_by_name[source.name] for source in sources]
    mean, std = (torch.stack([each[part] for each in moments]) for part in ("mean", "std"))
    return Posterior(mean.to(run.device), std.to(run.device))


def model_scene(run: Run, sample: Sample) -> Scene:
    """A sample with its source image at the model's size."""
    size, _ = run.sizes
    return scene_of(sample, load_image(image_file(run, sample.image_path), (size, size)))


def image_file(run: Run, image_path: str) -> Path:
    return Path(run.cfg.dataset.root) / run.cfg.dataset.image_dir / image_path
