"""Artifacts on disk: every one is a file that is computed once, under a key of its parameters.

A file is complete or not there: it is written beside its place and moved. What does not load
counts as missing. Knows tensors, images and rows; not what they mean.
"""

import hashlib
import io
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from piebench_masks.errors import BenchmarkError

ROWS_AT_ONCE = 20_000
NAME_PART = re.compile(r"(?!\.+$)[A-Za-z0-9._-]+")


class StoreError(BenchmarkError):
    """An artifact cannot be written, or is not what its key says; the message has the remedy."""


class Overwrite(StrEnum):
    """What a run does about artifacts that are already there."""

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


@dataclass(frozen=True)
class Folder:
    """One stage's artifacts for one key: files by name, and rows.

    A name is one or more parts of letters, digits, ".", "_" and "-" (not dots alone) joined by
    "/": ``sample.safetensors``, ``sample/mask.png``. Any other is a ``ValueError``.
    All writing is atomic and raises ``StoreError`` where the disk refuses it.
    """

    path: Path

    @property
    def key(self) -> str:
        return self.path.name

    def path_of(self, name: str) -> Path:
        """Where the file of that name is or will be, always inside the folder."""
        if not all(NAME_PART.fullmatch(part) for part in name.split("/")):
            raise ValueError(f"{name!r} is no name of an artifact in {self.path}")
        return self.path / name

    def has(self, name: str) -> bool:
        return self.path_of(name).is_file()

    def write_bytes(self, name: str, data: bytes) -> None:
        target = self.path_of(name)
        # In the same folder, so that the move is atomic; with a "~", which no name has.
        temporary = target.parent / f"~{uuid.uuid4().hex}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(target)
        except OSError as error:
            raise StoreError(
                f"{target} cannot be written ({error}): free space or allow writing there, then "
                "run again; what is finished is kept"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink()

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors of any shape as safetensors with a checksum of their contents."""
        own = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        self.write_bytes(name, save(own, metadata={"sha256": _checksum(own)}))

    def read_tensors(self, name: str) -> dict[str, Tensor] | None:
        """The tensors on the CPU, bit for bit as they were written, or None if they are not."""
        try:
            with safe_open(self.path_of(name), framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return tensors if file.metadata()["sha256"] == _checksum(tensors) else None
        except Exception:  # whatever a damaged file makes the reader raise, the item is missing
            return None

    def write_image(self, name: str, image: NDArray[np.uint8]) -> None:
        """Write an image [H,W,3] in 0..255 as PNG."""
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG", compress_level=1)
        self.write_bytes(name, png.getvalue())

    def write_images(self, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write several at a time, which packing them is worth."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.write_image, images, images.values()))

    def read_image(self, name: str) -> NDArray[np.uint8] | None:
        """The image [H,W,3] as it was written, or None if the file is missing or damaged."""
        try:
            png = io.BytesIO(self.path_of(name).read_bytes())
            Image.open(png, formats=["PNG"]).verify()  # the checksums, which loading skips
            return np.array(Image.open(png, formats=["PNG"]))
        except Exception:  # as above
            return None

    def has_image(self, name: str) -> bool:
        """Whether the PNG is there and its checksums are right; its pixels are not unpacked."""
        try:
            png = io.BytesIO(self.path_of(name).read_bytes())
            Image.open(png, formats=["PNG"]).verify()
        except Exception:  # as above
            return False
        return True

    def append_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows as one part file of JSON lines; no rows, no file."""
        if rows:
            data = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
            # Sorted by time of writing; the checksum tells a damaged part.
            name = f"{time.time_ns():020d}-{hashlib.sha256(data).hexdigest()}"
            self.write_bytes(f"parts/{name}.jsonl", data)

    def rows(self, keys: Sequence[str]) -> pd.DataFrame:
        """All rows that are intact; of those with equal ``keys`` columns the last written.

        Safe while other processes append and compact.
        """
        return self._merge(self._parts(), keys)

    def compact(self, keys: Sequence[str]) -> None:
        """Merge the parts into ``rows.parquet``, one process at a time."""
        if not self._parts():
            return
        try:
            with FileLock(self.path / "~lock"):
                parts = self._parts()
                table = self._merge(parts, keys)
                self.write_bytes("rows.parquet", _packed(table))
                for part in parts:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"The rows in {self.path} cannot be compacted ({error}): allow writing there, then "
                "run again"
            ) from error

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("parts/*.jsonl"))

    def _merge(self, parts: Sequence[Path], keys: Sequence[str]) -> pd.DataFrame:
        # Parts first: one that is compacted meanwhile is in the table that is read after it.
        new = list(_frames(parts))
        try:
            # All bytes at once: a reader that opens the path repeatedly may meet two tables.
            table = io.BytesIO((self.path / "rows.parquet").read_bytes())
            old = _unpacked(table)
        except Exception:  # missing or damaged, in whatever way
            old = pd.DataFrame()
        frames = [frame for frame in (old, *new) if len(frame) and {*keys} <= {*frame}]
        if not frames:
            return pd.DataFrame(columns=list(keys))
        rows = pd.concat(frames, ignore_index=True)
        return rows.drop_duplicates(list(keys), keep="last", ignore_index=True)


@dataclass(frozen=True)
class Artifacts:
    """All artifacts, as ``root/<stage>/<key>/``."""

    root: Path

    def at(self, stage: str, parameters: Mapping[str, Any]) -> Folder:
        """The folder of a stage's parameters, which need not exist yet: for looking only."""
        return Folder(Folder(self.root).path_of(f"{stage}/{artifact_key(parameters)}"))

    def folder(
        self, stage: str, parameters: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> Folder:
        """The same folder with its ``stage.json``, which the first to come writes.

        parameters: all that changes the output. provenance: how it came about (versions, device),
        which does not. Raises ``StoreError`` if the folder was made for other parameters.
        """
        folder = self.at(stage, parameters)
        description = _read_json(folder.path / "stage.json")
        if description is None or artifact_key(description.get("parameters", {})) != folder.key:
            description = {"parameters": dict(parameters), "provenance": dict(provenance)}
            folder.write_bytes("stage.json", json.dumps(description, indent=2).encode())
        if _canonical(description.get("parameters")) != _canonical(parameters):
            raise StoreError(
                f"{folder.path / 'stage.json'} holds other parameters than those asked for under "
                "its key: remove that folder"
            )
        return folder


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_part(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError:  # another process has just compacted it
        return []
    if not path.stem.endswith(hashlib.sha256(data).hexdigest()):
        return []
    return [json.loads(line) for line in data.splitlines()]


def _frames(parts: Sequence[Path]) -> Iterator[pd.DataFrame]:
    """The parts' rows, so many at a time that few of them are Python objects at once."""
    rows: list[dict[str, Any]] = []
    for place, part in enumerate(parts, 1):
        rows += _read_part(part)
        if len(rows) >= ROWS_AT_ONCE or place == len(parts):
            frame = pd.DataFrame(rows)
            # A column without a value is one of numbers, so that it goes with the other frames'.
            empty = [n for n, t in frame.dtypes.items() if t.kind == "O" and frame[n].isna().all()]
            yield frame.astype(dict.fromkeys(empty, float)) if empty else frame
            rows = []


def _packed(rows: pd.DataFrame) -> bytes:
    """Parquet with a checksum of its values: those of its pages leave headers out."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    known = {**(table.schema.metadata or {}), b"sha256": _rows_checksum(table.to_pandas())}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(known), file, write_page_checksum=True)
    return file.getvalue()


def _unpacked(file: io.BytesIO) -> pd.DataFrame:
    table = pq.read_table(file, page_checksum_verification=True)
    rows = table.to_pandas()
    if table.schema.metadata[b"sha256"] != _rows_checksum(rows):
        raise ValueError("its checksum is wrong")
    return rows


def _rows_checksum(rows: pd.DataFrame) -> bytes:
    sha = hashlib.sha256(json.dumps([*rows.columns]).encode())
    sha.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    return sha.hexdigest().encode()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()
