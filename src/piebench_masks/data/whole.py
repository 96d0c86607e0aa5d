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
    """A new folder to write into; it is renamed to ``root`` if nothing is raised.

    A ``root`` that another process has made meanwhile stays, and the temporary folders of killed
    processes are removed. Raises BenchmarkError where the disk refuses to be written.
    """
    sweep(root.parent.glob(f"{glob.escape(root.name)}~*"))
    temporary = root.with_name(temporary_name(root.name))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        try:
            temporary.rename(root)
        except OSError:
            if not (root.is_dir() and any(root.iterdir())):
                raise
    except OSError as error:
        raise BenchmarkError(
            f"{root} cannot be written ({error}): free space or allow writing there, or set "
            "data_dir to another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
