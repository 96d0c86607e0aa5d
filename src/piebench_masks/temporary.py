"""What is being written has a temporary name, and what a dead process left behind is removed.

The name tells the writer: its process id, and a hash of the host and of its process id namespace.
Knows neither artifacts nor data sets.
"""

import os
import re
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from piebench_masks.errors import BenchmarkError

LOCK = "~lock"
MAX_AGE = 24 * 3600.0
"""Seconds after which a temporary counts as left behind, whoever wrote it."""
NAME = re.compile(r"[^/]*~(?:(?P<pid>\d{1,7})-(?P<host>[0-9a-f]{8})-)?[0-9a-f]{32}")


def temporary_name(start: str = "") -> str:
    """A new name for a file or folder that this process is about to write."""
    return f"{start}~{os.getpid()}-{_host()}-{uuid.uuid4().hex}"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there, so that nobody sees a part of it.

    Raises BenchmarkError.
    """
    temporary = path.parent / temporary_name()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise BenchmarkError(
            f"{path} cannot be written ({error}): free space or allow writing there, or "
            "shorten the name"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sweep_temporaries(root: Path) -> int:
    """Remove what dead processes left anywhere below ``root``; returns how many entries.

    Removed are temporaries whose writer was a process of this host that is dead, temporaries older
    than a day, and lock files older than a day that nobody holds.
    """
    return sweep(_entries(root))


def sweep(paths: Iterable[Path]) -> int:
    """The same for these paths, of which all others are left alone."""
    removed = 0
    for path in paths:
        with suppress(OSError):  # another process was faster, or may not be written
            if path.name == LOCK:
                removed += _remove_lock(path)
            elif _is_left(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed += 1
    return removed


def _entries(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *files) if "~" in name)


def _is_left(path: Path) -> bool:
    name = NAME.fullmatch(path.name)
    if name is None:
        return False
    if name["host"] == _host() and not _alive(int(name["pid"])):
        return True
    return _age(path) > MAX_AGE


def _remove_lock(path: Path) -> bool:
    if _age(path) <= MAX_AGE:
        return False
    with suppress(Timeout), FileLock(path, timeout=0):
        path.unlink()  # while it is held: who waits for it sees that and makes a new one
        return True
    return False


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    return True


@cache
def _host() -> str:
    """8 hex digits of where a process id means this very process."""
    namespace = ""
    with suppress(OSError):  # where there are none
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(f'{socket.gethostname()} {namespace}'.encode()):08x}"
