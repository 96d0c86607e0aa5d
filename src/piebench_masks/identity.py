"""What a part of the benchmark (a method, editor, metric, loader) is, as it enters artifact keys.

A key changes if and only if the output can: a part of this package says so by its hand-bumped
``version``, a part from elsewhere also by the source of its module and its distribution's version.
Settings enter as their values; files enter as their content and never as their place.
"""

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Iterable, Mapping
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

from piebench_masks.errors import BenchmarkError

PACKAGE = __name__.partition(".")[0]
NO_OUTPUT = {"identity": False}
"""``field(metadata=NO_OUTPUT)`` marks a setting that does not change what a part gives."""


def part_identity(part: Any, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The identity of a part, as JSON: it differs where the output can.

    part: an instance, a class, a function or a ``functools.partial``. Its settings are the fields
    of a dataclass except those marked ``NO_OUTPUT``, the arguments of a partial, or ``settings``
    for any other instance. A part whose settings name weights has a method ``identity()``, whose
    result is added.
    """
    if isinstance(part, functools.partial):
        bound = inspect.signature(part.func).bind_partial(*part.args, **part.keywords)
        return {**_code(part.func), "settings": canonical(bound.arguments)}
    is_value = not (inspect.isclass(part) or inspect.isroutine(part))
    if is_value and dataclasses.is_dataclass(part):
        settings = {
            field.name: getattr(part, field.name)
            for field in dataclasses.fields(part)
            if field.metadata.get("identity", True)
        }
    description = _code(type(part) if is_value else part)
    description |= {"settings": canonical(settings)} if settings else {}
    weights_identity = getattr(part, "identity", None)
    return description | (
        {"weights": canonical(weights_identity())}
        if is_value and callable(weights_identity)
        else {}
    )


def canonical(value: Any) -> Any:
    """A setting's value as JSON: parts by their identity, existing files by their content."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str | Path):
        return _text_or_content(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): canonical(entry) for key, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(canonical, value))
    if isinstance(value, list | tuple):
        return [canonical(entry) for entry in value]
    if callable(value) or dataclasses.is_dataclass(value):
        return part_identity(value)
    return str(value)  # a torch dtype or device


def files_identity(root: Path, files: Iterable[Path]) -> str:
    """12 hex digits of these files' names below ``root`` and contents, and of no other file."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in files):
        digest.update(name.encode() + b"\0")
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def _text_or_content(value: str | Path) -> Any:
    text = str(value)
    if "/" not in text or not (path := Path(text)).exists():
        return text
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {"content": files_identity(path.parent if path.is_file() else path, files)}


def _code(target: Any) -> dict[str, Any]:
    """Import path and version of a class or function; of code from elsewhere its source too."""
    module = target.__module__
    description = {
        "part": f"{module}.{target.__qualname__}",
        "version": getattr(target, "version", 1),
    }
    if module.partition(".")[0] == PACKAGE:
        return description
    return description | _source(module, target)


def _source(module: str, target: Any) -> dict[str, Any]:
    try:
        source = Path(inspect.getfile(target)).read_bytes()
    except (OSError, TypeError) as error:
        raise BenchmarkError(
            f"{module}.{target.__qualname__} has no source file ({error}), so that nothing could "
            "tell when it changes: put it into a module of its own"
        ) from error
    origin = {"source": hashlib.sha256(source).hexdigest()[:12]}
    for distribution in _distributions().get(module.partition(".")[0], ()):
        origin["distribution"] = f"{distribution}=={metadata.version(distribution)}"
    return origin


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
