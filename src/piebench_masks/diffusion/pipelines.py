"""Folders that diffusers' save_pretrained wrote: loading them without noise, and with clear errors.

Knows no backbone and no method.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piebench_masks.errors import BenchmarkError

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
    try:
        with _quiet():
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


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice from diffusers and transformers while a model is loaded."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    settings = [
        (library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries
    ]
    try:
        for library in libraries:
            library.set_verbosity_error()
            library.disable_progress_bar()
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for library, (verbosity, bars) in zip(libraries, settings, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
