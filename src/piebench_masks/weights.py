"""Weights of frozen networks, from a folder or the Hugging Face hub; one error where that fails.

Knows no network.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import files_identity

if TYPE_CHECKING:
    import torch

READ = (".json", ".txt", ".model", ".safetensors")
"""Endings of the files that a transformers network and its processor are read from."""


class WeightsError(BenchmarkError):
    """A network's weights could not be loaded; the message says what, where and what to do."""


def sought(id: str, revision: str | None, cache_dir: str | None) -> str:
    """Where a network named by ``id`` is looked for, as `loading` says it."""
    cache = cache_dir or "the Hugging Face default"
    return f"{id}, revision {revision}, in the cache ({cache}), then online"


@contextmanager
def loading(what: str, *, where: str, remedy: str) -> Iterator[None]:
    """Turn what hubs, sockets and files raise into one :class:`WeightsError`."""
    try:
        yield
    except WeightsError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise WeightsError(
            f"{what} could not be loaded.\n  looked for: {where}\n"
            f"  what to do: {remedy}\n  the cause: {first_cause(error)}"
        ) from error


@contextmanager
def quiet(*libraries: Any) -> Iterator[None]:
    """No progress bars or advice while a network is loaded; libraries: their logging modules."""
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


def packaged(name: str | Path) -> str:
    """The folder of weights that this package carries under that name."""
    return str(Path(__file__).parent / "pretrained" / name)


def weights_folder(id: str, *, revision: str | None, cache_dir: str | None) -> tuple[Path, str]:
    """Folder and identity of a transformers network: the content of a local folder's files, or a
    hub name and its commit.

    A hub network is downloaded on first use; later runs find it in ``cache_dir`` (None: the hub's
    default cache). Raises OSError or ValueError for what cannot be found: see `loading`.
    """
    folder = Path(id).expanduser()
    if folder.is_dir():
        files = [path for path in folder.iterdir() if path.suffix in READ]
        return folder, files_identity(folder, files)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", id):
        raise FileNotFoundError(f"there is no folder {id}")
    from huggingface_hub import snapshot_download

    patterns = [f"*{ending}" for ending in READ]
    path = snapshot_download(id, revision=revision, cache_dir=cache_dir, allow_patterns=patterns)
    return Path(path), f"{id}@{Path(path).name}"


def frozen(kind: Any, folder: Path, device: "torch.device", **settings: Any) -> Any:
    """The network of a transformers class in a folder, in float32 whatever it is stored in.

    settings: of the class, beside its config. Raises ValueError where weights are missing:
    transformers draws those at random.
    """
    import torch

    network, report = kind.from_pretrained(
        folder,
        local_files_only=True,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        **settings,
    )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} weights of {kind.__name__}: {missing[0]}")
    return network.eval().requires_grad_(False).to(device)


def first_cause(error: BaseException) -> str:
    """The first error of a chain; those raised on top of it are advice for programmers."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
