"""From a model's name to a local folder and an identity that enters artifact keys.

The folder is what ``from_pretrained`` loads, whether it came from the Hugging Face hub or was
always local. Knows nothing of what the model is used for.
"""

import json
import logging
import re
from pathlib import Path

from piebench_masks.errors import BenchmarkError
from piebench_masks.provenance import content_hash


def packaged(name: str | Path) -> str:
    """The folder of weights that this package carries under that name."""
    return str(Path(__file__).parents[1] / "pretrained" / name)


def resolve_model(
    id: str,
    *,
    revision: str | None,
    variant: str | None,
    cache_dir: str | None,
    setting: str = "model",
) -> tuple[Path, str]:
    """Folder and identity of a pipeline: a local folder's content hash, a hub model's commit.

    A hub model is downloaded on first use (only the files of ``variant``), later runs find it in
    ``cache_dir`` (None: the hub's default cache). setting: where the user set it.
    Raises BenchmarkError, naming what was looked for, where, and the remedy.
    """
    folder = Path(id).expanduser()
    if folder.is_dir():
        return folder, content_hash(folder)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", id):
        raise BenchmarkError(
            f"Model folder {id} does not exist. Set {setting}.id to the folder of a diffusers "
            "pipeline (with model_index.json), or to a hub name such as stabilityai/sdxl-turbo."
        )
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity(logging.ERROR)
    try:
        path = DiffusionPipeline.download(
            id, revision=revision, variant=variant, cache_dir=cache_dir, use_safetensors=True
        )
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise BenchmarkError(
            f"Model {id} (revision {revision}, variant {variant}) could not be loaded.\n"
            f"  looked for: in the cache ({cache_dir or 'the Hugging Face default'}), then online\n"
            f"  what to do: check the network and the name, set {setting}.cache_dir to a cache "
            f"that holds it, or {setting}.id to a local folder\n"
            f"  the cause: {_first_cause(error)}"
        ) from error
    return Path(path), f"{id}@{Path(path).name}"


def _first_cause(error: BaseException) -> str:
    """What happened in the end: what is raised on top of it advises programmers."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def model_sizes(folder: Path) -> tuple[int, int]:
    """Sides of the images and of the latents of a pipeline's folder, from its configs alone."""
    try:
        latent = json.loads((folder / "unet" / "config.json").read_text())["sample_size"]
        levels = json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"{folder} is no folder of a diffusers pipeline: unet/config.json with sample_size and "
            f"vae/config.json with block_out_channels were looked for ({error}). Correct model.id."
        ) from error
    return latent * 2 ** (len(levels) - 1), latent
