"""Folders that diffusers' save_pretrained wrote: loading them without noise, and with clear errors.

Knows no backbone and no method.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piebench_masks.errors import BenchmarkError
from piebench_masks.weights import quiet

if TYPE_CHECKING:
    import torch

INDEX = "model_index.json"


def read_index(folder: Path) -> dict[str, Any]:
    """What a pipeline's folder says it consists of. Raises BenchmarkError where it is none."""
    try:
        index = json.loads((folder / INDEX).read_text())
    except FileNotFoundError as error:
        raise BenchmarkError(
            f"no diffusion model: looked for {folder / INDEX}; give a folder that diffusers' "
            "save_pretrained wrote, for SDXL-Turbo: hf download stabilityai/sdxl-turbo "
            "--local-dir <folder>"
        ) from error
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{folder / INDEX} cannot be read ({error}): replace it") from error
    if not isinstance(index, dict):
        raise BenchmarkError(f"{folder / INDEX} is no table of a pipeline's parts: replace it")
    return index


def load_pipeline(
    kind: Any,
    folder: Path,
    wanted: str,
    *,
    variant: str | None,
    dtype: "torch.dtype",
    vae_dtype: "torch.dtype",
    **parts: Any,
) -> Any:
    """A diffusers pipeline of that kind. ``wanted``: what the folder should be, in words.

    Raises BenchmarkError where it does not load.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    try:
        with quiet(diffusers_logging, transformers_logging):
            return kind.from_pretrained(
                folder,
                variant=variant,
                # Without an explicit dtype the text encoders may come up in another precision.
                dtype={"vae": vae_dtype, "default": dtype},
                use_safetensors=True,
                local_files_only=True,
                **parts,
            )
    except Exception as error:  # three libraries raise a dozen unrelated types
        raise BenchmarkError(
            f"the diffusion model in {folder} does not load with variant={variant}: {error}; "
            f"give {wanted}, with the weights of that variant as safetensors"
        ) from error
