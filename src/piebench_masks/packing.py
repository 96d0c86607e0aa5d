"""Tensors, images and rows as bytes that tell whether they are whole and who made them.

Every kind carries a checksum of its contents and the id of its maker's provenance. Knows no file
and no stage. What is damaged makes ``unpack_*`` and ``verify`` raise, whatever type of exception.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load, save
from torch import Tensor

ROWS_AT_ONCE = 20_000
ORIGIN = "provenance"
"""Under which a file's metadata and a row's column hold the id of their maker's provenance."""
FACTS = "facts"
PNG = b"\x89PNG\r\n\x1a\n"


def pack_tensors(tensors: Mapping[str, Tensor], origin: str | None, facts: str = "") -> bytes:
    """Safetensors of tensors of any shape. facts: a text that goes with them, such as JSON."""
    copies = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    metadata = {"sha256": _checksum(copies, origin, facts)}
    metadata |= {ORIGIN: origin} if origin else {}
    return save(copies, metadata=metadata | ({FACTS: facts} if facts else {}))


def unpack_tensors(data: bytes) -> dict[str, Tensor]:
    """The tensors on the CPU, bit for bit."""
    return unpack_facts(data)[1]


def unpack_facts(data: bytes) -> tuple[str, dict[str, Tensor]]:
    """The text that goes with the tensors, and these on the CPU, bit for bit."""
    metadata = _header(io.BytesIO(data))["__metadata__"]
    tensors, facts = load(data), metadata.get(FACTS, "")
    if metadata["sha256"] != _checksum(tensors, metadata.get(ORIGIN), facts):
        raise ValueError("its checksum is wrong")
    return facts, tensors


def pack_image(
    image: NDArray[np.uint8], origin: str | None, facts: Mapping[str, str] | None = None
) -> bytes:
    """PNG of an image [H,W,3] in 0..255. facts: further texts that go with it, by their keys."""
    png, text = io.BytesIO(), PngInfo()
    for key, value in {**(facts or {}), **({ORIGIN: origin} if origin else {})}.items():
        text.add_text(key, value)
    Image.fromarray(image).save(png, "PNG", compress_level=1, pnginfo=text)
    return png.getvalue()


def unpack_image(data: bytes) -> NDArray[np.uint8]:
    """The image [H,W,3]."""
    verify(data)  # the checksums, which loading skips
    return np.array(Image.open(io.BytesIO(data), formats=["PNG"]))


def verify(data: bytes) -> None:
    """Raise if a PNG's or a safetensors file's checksum is wrong; pixels are not unpacked."""
    if data.startswith(PNG):
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
    else:
        unpack_tensors(data)


def read_origin(file: BinaryIO) -> str | None:
    """The id of the maker's provenance in an open PNG's or safetensors file's header."""
    if file.read(len(PNG)) == PNG:
        file.seek(0)
        return Image.open(file, formats=["PNG"]).info.get(ORIGIN)
    file.seek(0)
    origin: str | None = _header(file)["__metadata__"].get(ORIGIN)
    return origin


def pack_part(rows: Sequence[Mapping[str, Any]], origin: str | None) -> bytes:
    """Rows as JSON lines, each with its maker."""
    maker = {ORIGIN: origin} if origin else {}
    return "".join(f"{json.dumps({**row, **maker})}\n" for row in rows).encode()


def unpack_parts(parts: Iterable[bytes]) -> Iterator[pd.DataFrame]:
    """The parts' rows, so many at a time that few of them are Python objects at once."""
    rows: list[dict[str, Any]] = []
    for part in parts:
        rows += (json.loads(line) for line in part.splitlines())
        if len(rows) >= ROWS_AT_ONCE:
            yield _frame(rows)
            rows = []
    if rows:
        yield _frame(rows)


def pack_rows(rows: pd.DataFrame) -> bytes:
    """Parquet with a checksum of its values: those of its pages leave headers out."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), b"sha256": _rows_checksum(table.to_pandas())}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), file, write_page_checksum=True)
    return file.getvalue()


def unpack_rows(data: bytes) -> pd.DataFrame:
    table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    rows = table.to_pandas()
    if table.schema.metadata[b"sha256"] != _rows_checksum(rows):
        raise ValueError("its checksum is wrong")
    return rows


def _header(file: BinaryIO) -> dict[str, Any]:
    """The JSON at the start of a safetensors file, behind its length."""
    length = int.from_bytes(file.read(8), "little")
    if length > 2**27:
        raise ValueError(f"a header of {length} bytes")
    header: dict[str, Any] = json.loads(file.read(length))
    return header


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    # A column without a value is one of numbers, so that it goes with the other frames'.
    empty = [name for name, t in frame.dtypes.items() if t.kind == "O" and frame[name].isna().all()]
    return frame.astype(dict.fromkeys(empty, float)) if empty else frame


def _rows_checksum(rows: pd.DataFrame) -> bytes:
    sha = hashlib.sha256(json.dumps([*rows.columns]).encode())
    sha.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
    return sha.hexdigest().encode()


def _checksum(tensors: Mapping[str, Tensor], origin: str | None, facts: str) -> str:
    sha = hashlib.sha256((origin or "").encode() + facts.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()
