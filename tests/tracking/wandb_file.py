"""Reads an offline run file (``run-<id>.wandb``): the only place that knows W&B's file format."""

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _FILE_HEADER, _CHUNK_HEADER = 32768, 7, 7
_FULL, _LAST = 1, 4


def read_records(path: Path) -> Iterator[Record]:
    """Records of a LevelDB log: blocks of chunks (checksum, length, kind), a record in 1..n."""
    data, position, record = path.read_bytes(), _FILE_HEADER, b""
    while position + _CHUNK_HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _CHUNK_HEADER:  # no chunk starts in a block's last bytes
            position += _BLOCK - position % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        position += _CHUNK_HEADER
        record += data[position : position + length]
        position += length
        if kind in (_FULL, _LAST):
            yield Record.FromString(record)
            record = b""
