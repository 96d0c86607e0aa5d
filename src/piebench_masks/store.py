"""Artifacts on disk: every one is a file that is computed once, under a key of its parameters.

A file is complete or not there: it is written beside its place and moved. What does not load
counts as missing and is logged; nothing that reads deletes or writes. Knows tensors, images and
rows; not what they mean.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from piebench_masks.errors import BenchmarkError
from piebench_masks.packing import (
    ORIGIN,
    pack_image,
    pack_part,
    pack_rows,
    pack_tensors,
    read_origin,
    unpack_image,
    unpack_parts,
    unpack_rows,
    unpack_tensors,
    verify,
)
from piebench_masks.temporary import LOCK, temporary_name

log = logging.getLogger(__name__)
NAME_PART = re.compile(r"(?!\.+$)[A-Za-z0-9._-]+")
ORIGIN_ID = re.compile(r"[0-9a-f]{12}")
T = TypeVar("T")


class StoreError(BenchmarkError):
    """An artifact cannot be written or read, or is not what its key says, and what to do then."""


class Overwrite(StrEnum):
    """How a run treats artifacts that are already there."""

    ONLY_MISSING = "only-missing"
    """Compute what is missing or does not load, and take the rest as it is."""
    ALWAYS = "always"
    """Compute everything anew and replace what is there."""
    NEVER = "never"
    """Compute into a new folder only: one that already holds items is an error."""
    ONLY_CACHE = "only-cache"
    """Compute nothing: an item that is missing is an error."""


def artifact_key(parameters: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the sha256 of the parameters as canonical JSON."""
    return hashlib.sha256(_canonical(parameters).encode()).hexdigest()[:12]


class Stamp(NamedTuple):
    """The size and time of a file when it was written: while they are equal, it is not read."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Folder:
    """One stage's artifacts for one key: files by name, and rows.

    A name is one or more parts of letters, digits, ".", "_" and "-" (not dots alone) joined by
    "/": ``sample.safetensors``, ``sample/mask.png``. Any other is a ``ValueError``.
    All writing is atomic and raises ``StoreError`` where the disk refuses it. So does reading,
    except that what is not there is None; what is damaged is None, too, and logged once.

    writer: the provenance of this process, whose id goes into all that it writes.
    """

    path: Path
    writer: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    reported: set[Path] = field(default_factory=set, compare=False, repr=False)
    """Damaged files that were logged."""

    @property
    def key(self) -> str:
        return self.path.name

    def path_of(self, name: str) -> Path:
        """Where the file of that name is or will be, always inside the folder."""
        if not all(NAME_PART.fullmatch(part) for part in name.split("/")):
            raise ValueError(f"{name!r} is no name of an artifact in {self.path}")
        return self.path / name

    @cached_property
    def origin(self) -> str | None:
        """The id of this process's provenance, which from then on lies in the folder; None if it is
        not known. Items written in other ways than by ``write_*`` and ``append_rows`` may carry it.
        """
        if self.writer is None:
            return None
        origin = artifact_key(self.writer)
        if self.provenance(origin) is None:
            data = json.dumps(self.writer, indent=2).encode()
            self.write_bytes(f"{ORIGIN}/{origin}.json", data)
        return origin

    def provenance(self, origin: str) -> dict[str, Any] | None:
        """The provenance of that id; None if its file is missing or damaged."""
        if not ORIGIN_ID.fullmatch(origin):
            return None

        def unpack(data: bytes) -> dict[str, Any]:
            provenance: dict[str, Any] = json.loads(data)
            if artifact_key(provenance) != origin:
                raise ValueError("its id is wrong")
            return provenance

        return self._read(self.path_of(f"{ORIGIN}/{origin}.json"), unpack)

    def made_by(self, name: str) -> str | None:
        """The id of the provenance of who wrote a PNG or safetensors file, from its header; None
        if that is not known.
        """
        path = self.path_of(name)
        try:
            with path.open("rb") as file:
                return read_origin(file)
        except PermissionError as error:
            raise _unreadable(path, error) from error
        except Exception:  # missing or damaged
            return None

    def has(self, name: str) -> bool:
        return self._stat(name) is not None

    def is_whole(self, name: str, size: float | None = None, mtime_ns: float | None = None) -> bool:
        """Whether the PNG or safetensors file is there and as it was written.

        A file with the size and time of its ``Stamp`` is; of any other the checksums are verified.
        """
        stat = self._stat(name)
        if stat is None:
            return False
        if size is not None and mtime_ns is not None:
            # As floats: a column of rows becomes one where some rows have no stamp.
            current = float(stat.st_size), float(stat.st_mtime_ns)
            if current == (float(size), float(mtime_ns)):
                return True
        return self._read(self.path_of(name), _is_sound) or False

    def stamps(self, keys: Sequence[str]) -> dict[tuple[str, ...], Stamp]:
        """Those that were written into the rows, by these columns; NaN where a row has none."""
        rows = self.rows(keys).reindex(columns=[*keys, *Stamp._fields])
        return {
            values[: len(keys)]: Stamp(*values[len(keys) :])
            for values in rows.itertuples(index=False, name=None)
        }

    def write_bytes(self, name: str, data: bytes) -> Stamp:
        target = self.path_of(name)
        # In the same folder, so that the move is atomic; with a "~", which no name has.
        temporary = target.parent / temporary_name()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            stat = temporary.stat()
            temporary.replace(target)
            self.reported.discard(target)
        except OSError as error:
            raise StoreError(
                f"{target} cannot be written ({error}): free space or allow writing there, then "
                "run again; what is finished is kept"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        return Stamp(stat.st_size, stat.st_mtime_ns)

    def remove(self, name: str) -> None:
        """Remove a file that turned out to be of no use, so that it is made anew."""
        try:
            self.path_of(name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.path_of(name)} cannot be removed ({error}): allow writing there, then run "
                "again"
            ) from error

    def read(self, name: str, unpack: Callable[[bytes], T]) -> T | None:
        """What ``unpack`` makes of a file, or None if it is missing, or damaged: it raises then."""
        return self._read(self.path_of(name), unpack)

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> Stamp:
        """Write tensors of any shape as safetensors."""
        return self.write_bytes(name, pack_tensors(tensors, self.origin))

    def read_tensors(self, name: str) -> dict[str, Tensor] | None:
        """The tensors on the CPU, bit for bit as they were written, or None if they are not."""
        return self._read(self.path_of(name), unpack_tensors)

    def write_image(self, name: str, image: NDArray[np.uint8]) -> Stamp:
        """Write an image [H,W,3] in 0..255 as PNG."""
        return self.write_bytes(name, pack_image(image, self.origin))

    def write_images(self, images: Mapping[str, NDArray[np.uint8]]) -> dict[str, Stamp]:
        """Write several images in parallel threads."""
        with ThreadPoolExecutor() as pool:
            stamps = pool.map(self.write_image, images, images.values())
            return dict(zip(images, stamps, strict=True))

    def read_image(self, name: str) -> NDArray[np.uint8] | None:
        """The image [H,W,3] as it was written, or None if the file is missing or damaged."""
        return self._read(self.path_of(name), unpack_image)

    def append_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows as one part file of JSON lines; no rows, no file."""
        if rows:
            data = pack_part(rows, self.origin)
            # Sorted by time of writing; the checksum tells a damaged part.
            name = f"{time.time_ns():020d}-{hashlib.sha256(data).hexdigest()}"
            self.write_bytes(f"parts/{name}.jsonl", data)

    def rows(self, keys: Sequence[str], *, origin: bool = False) -> pd.DataFrame:
        """All rows that are intact; of those with equal ``keys`` columns the last written.

        origin: with the column ``provenance``, the id of who wrote the row (missing: not known).
        Safe while other processes append and compact.
        """
        rows = self._merge(self._parts(), keys)
        if origin:
            return rows if ORIGIN in rows else rows.assign(**{ORIGIN: None})
        return rows.drop(columns=ORIGIN, errors="ignore")

    def compact(self, keys: Sequence[str]) -> None:
        """Merge the parts into ``rows.parquet``, one process at a time."""
        if not self._parts():
            return
        try:
            with FileLock(self.path / LOCK):
                parts = self._parts()
                self.write_bytes("rows.parquet", pack_rows(self._merge(parts, keys)))
                for part in parts:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"The rows in {self.path} cannot be compacted ({error}): allow writing there, then "
                "run again"
            ) from error

    def _parts(self) -> list[Path]:
        folder = self.path / "parts"
        try:
            return sorted(path for path in folder.iterdir() if path.suffix == ".jsonl")
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unreadable(folder, error) from error

    def _merge(self, parts: Sequence[Path], keys: Sequence[str]) -> pd.DataFrame:
        # Parts first: one that is compacted meanwhile is in the table that is read after it.
        new = list(unpack_parts(self._whole(parts)))
        # All bytes at once: a reader that opens the path repeatedly may meet two tables.
        old = self._read(self.path / "rows.parquet", unpack_rows)
        frames = [frame for frame in (old, *new) if frame is not None]
        frames = [frame for frame in frames if len(frame) and {*keys} <= {*frame}]
        if not frames:
            return pd.DataFrame(columns=list(keys))
        rows = pd.concat(frames, ignore_index=True)
        return rows.drop_duplicates(list(keys), keep="last", ignore_index=True)

    def _whole(self, parts: Sequence[Path]) -> Iterator[bytes]:
        """The contents of the parts that are neither damaged nor compacted meanwhile."""
        for part in parts:
            data = _bytes(part)
            if data is not None and part.stem.endswith(hashlib.sha256(data).hexdigest()):
                yield data
            elif data is not None:
                self._report(part, ValueError("its checksum is wrong"))

    def _read(self, path: Path, unpack: Callable[[bytes], T]) -> T | None:
        data = _bytes(path)
        if data is None:
            return None
        try:
            return unpack(data)
        except Exception as error:  # whatever a damaged file makes the reader raise
            self._report(path, error)
            return None

    def _report(self, path: Path, error: Exception) -> None:
        if path not in self.reported:
            self.reported.add(path)
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("%s is damaged (%s): what it held is recomputed", path, reason)

    def _stat(self, name: str) -> os.stat_result | None:
        path = self.path_of(name)
        try:
            return path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreadable(path, error) from error


@dataclass(frozen=True)
class Artifacts:
    """All artifacts, as ``root/<stage>/<key>/``.

    provenance: how what is written now comes about (versions, commit, command, device), which does
    not change it.
    """

    root: Path
    provenance: Mapping[str, Any] | None = None

    def at(self, stage: str, parameters: Mapping[str, Any]) -> Folder:
        """The folder of a stage's parameters, which need not exist yet: for looking only."""
        path = Folder(self.root).path_of(f"{stage}/{artifact_key(parameters)}")
        return Folder(path, self.provenance)

    def folder(self, stage: str, parameters: Mapping[str, Any]) -> Folder:
        """The same folder with its ``stage.json``, which the first to come writes.

        parameters: all that changes the output. Raises ``StoreError`` if the folder was made for
        other parameters.
        """
        folder = self.at(stage, parameters)
        path = folder.path_of("stage.json")
        # A dictionary under another key is none of ours: it was damaged.
        stored = folder._read(path, lambda data: _parameters(data, folder.key))
        if stored is None:
            stored = dict(parameters)
            folder.write_bytes("stage.json", json.dumps({"parameters": stored}, indent=2).encode())
        if _canonical(stored) != _canonical(parameters):
            raise StoreError(
                f"{path} holds other parameters than those asked for under its key: remove that "
                "folder"
            )
        return folder


def _parameters(description: bytes, key: str) -> dict[str, Any]:
    parameters: dict[str, Any] = json.loads(description)["parameters"]
    if artifact_key(parameters) != key:
        raise ValueError("its parameters have another key")
    return parameters


def _is_sound(data: bytes) -> bool:
    verify(data)
    return True


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _bytes(path: Path) -> bytes | None:
    """A file's contents; None if there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be read ({error}): allow reading it, or remove it if it may be computed "
        "anew, then run again"
    )
