"""A data set's folder that is there completely or not at all. Knows no format."""

import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from piebench_masks.errors import BenchmarkError
from piebench_masks.temporary import sweep, temporary_name


@contextmanager
def whole_folder(root: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes ``root`` when all went well.

    A ``root`` that another process has made meanwhile is left as it is, and what killed processes
    left beside it is removed. Raises BenchmarkError where the disk refuses to be written.
    """
    sweep(root.parent.glob(f"{glob.escape(root.name)}~*"))
    unfinished = root.with_name(temporary_name(root.name))
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        try:
            unfinished.rename(root)
        except OSError:
            if not (root.is_dir() and any(root.iterdir())):
                raise
    except OSError as error:
        raise BenchmarkError(
            f"{root} cannot be written ({error}): free space or allow writing there, or set "
            "data_dir to another folder"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
