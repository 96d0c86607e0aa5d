"""From a model's name to a local folder and an identity that enters artifact keys.

The folder is what ``from_pretrained`` loads, whether it came from the Hugging Face hub or was
always local. Knows nothing of what the model is used for.
"""

import json
import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from piebench_masks.diffusion.pipelines import INDEX, read_index
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import files_identity
from piebench_masks.weights import WeightsError, first_cause, sought

UNUSED = {"safety_checker", "feature_extractor", "image_encoder"}
"""Parts of a pipeline that no backbone and no editor looks at."""
DESCRIPTIONS = (
    "config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
)
"""Files of a part that are loaded beside its weights."""
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""The stem of a part's weights, by library."""


def resolve_model(
    id: str,
    *,
    revision: str | None,
    variant: str | None,
    cache_dir: str | None,
    setting: str = "model",
    unused: Collection[str] = UNUSED,
) -> tuple[Path, str]:
    """Folder and identity of a pipeline: the content of a local folder's files that are loaded, or
    a hub model's commit and variant.

    A hub model is downloaded on first use (only the files of ``variant``), later runs find it in
    ``cache_dir`` (None: the hub's default cache). setting: where the user set it; unused: parts of
    the pipeline that are not loaded.
    Raises BenchmarkError, naming what was looked for, where, and the remedy; WeightsError where
    the hub does not give it.
    """
    folder = Path(id).expanduser()
    if folder.is_dir():
        return folder, files_identity(folder, loaded_files(folder, variant, unused))
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
        raise WeightsError(
            f"Model {id} (variant {variant}) could not be loaded.\n"
            f"  looked for: {sought(id, revision, cache_dir)}\n"
            f"  what to do: check the network and the name, set {setting}.cache_dir to a cache "
            f"that holds it, or {setting}.id to a local folder\n"
            f"  the cause: {first_cause(error)}"
        ) from error
    return Path(path), f"{id}@{Path(path).name}{f', {variant}' if variant else ''}"


def loaded_files(folder: Path, variant: str | None, unused: Collection[str] = UNUSED) -> list[Path]:
    """The files of a pipeline's folder that ``from_pretrained`` reads with that variant.

    A part that is of neither diffusers nor transformers, and a folder that lists no parts, count
    with all files that are not hidden. Raises BenchmarkError where the folder is no pipeline's.
    """
    index = read_index(folder)
    libraries = {
        name: str(entry[0])
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[0] and name not in unused
    }
    if not any(isinstance(entry, list) for entry in index.values()):
        return _visible(folder)
    files = [folder / INDEX]
    for name, library in libraries.items():
        part = folder / name
        if (stem := STEMS.get(library.partition(".")[0])) is None:
            files += _visible(part)
        else:
            files += [part / file for file in DESCRIPTIONS if (part / file).is_file()]
            files += _weights(part, stem, variant)
    return files


def _weights(part: Path, stem: str, variant: str | None) -> list[Path]:
    """The weights of a part: of the variant where it has any, in one file or in several."""
    for infix in (f".{variant}", "") if variant else ("",):
        files = [part / f"{stem}{infix}.safetensors"]
        table = part / f"{stem}.safetensors.index{infix}.json"
        if table.is_file():
            files += [table, *(part / name for name in _shards(table))]
        if present := [path for path in files if path.is_file()]:
            return present
    return []


def _shards(table: Path) -> Iterable[str]:
    try:
        return sorted(set(json.loads(table.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BenchmarkError(f"{table} cannot be read ({error}): replace it") from error


def _visible(folder: Path) -> list[Path]:
    """All files below a folder but for hidden ones and texts for people."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    return [p for p in files if not any(n.startswith(".") for n in p.relative_to(folder).parts)]
