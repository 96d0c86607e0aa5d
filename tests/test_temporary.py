"""What a killed process was writing is removed at the next run, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from piebench_masks.data.whole import whole_folder
from piebench_masks.store import Folder
from piebench_masks.temporary import sweep_temporaries, temporary_name

DAYS = 2 * 24 * 3600
WRITER = """
import sys
from pathlib import Path
from piebench_masks.data.whole import whole_folder
from piebench_masks.store import Folder
def wait(*_):
    print("writing", flush=True)
    sys.stdin.read()
root = Path(sys.argv[1])
if sys.argv[2] == "data":
    with whole_folder(root / "shapes") as folder:
        (folder / "picture.png").write_bytes(b"half")
        wait()
Path.replace = wait
if sys.argv[2] == "item":
    Folder(root / "edit" / "key").write_bytes("sample/mask.png", b"half")
Folder(root / "edit" / "key").append_rows([{"sample": "a"}])
"""


def writing(root: Path, what: str) -> subprocess.Popen[str]:
    """A process in the middle of writing below ``root``."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def temporaries(root: Path) -> list[Path]:
    return sorted(root.rglob("*~*"))


@pytest.mark.parametrize("what", ["item", "part"])
def test_a_killed_writers_temporaries_are_swept_and_a_living_ones_stay(
    what: str, tmp_path: Path
) -> None:
    process = writing(tmp_path, what)
    [left] = temporaries(tmp_path)
    assert left.parent.name in ("sample", "parts")
    assert sweep_temporaries(tmp_path) == 0
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert temporaries(tmp_path) == [left]
    assert sweep_temporaries(tmp_path) == 1
    assert not temporaries(tmp_path)


def test_a_killed_writers_data_set_is_swept_by_the_next_writer(tmp_path: Path) -> None:
    process = writing(tmp_path, "data")
    process.kill()
    process.communicate()
    assert len(temporaries(tmp_path)) == 1
    with whole_folder(tmp_path / "shapes") as folder:
        (folder / "picture.png").write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_of_other_hosts_and_without_a_writer_only_what_is_old_is_swept(tmp_path: Path) -> None:
    pid, host, number = temporary_name()[1:].split("-")
    names = [f"~{pid}-00000000-{number}", f"~{number}", f"~{pid}-{host}-{number}"]
    paths = [tmp_path / "parts" / name for name in names]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(b"")
    assert sweep_temporaries(tmp_path) == 0
    for path in paths:
        os.utime(path, (time.time() - DAYS,) * 2)
    assert sweep_temporaries(tmp_path) == 3


def test_what_only_looks_like_a_temporary_stays(tmp_path: Path) -> None:
    for name in ("~", "notes~", f"x~{'g' * 32}", "~12-ab", "item.png"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - DAYS,) * 2)
    assert sweep_temporaries(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 5


def test_an_old_lock_goes_unless_somebody_holds_it(tmp_path: Path) -> None:
    Folder(tmp_path).append_rows([{"sample": "a"}])
    Folder(tmp_path).compact(["sample"])
    lock = tmp_path / "~lock"
    assert lock.exists() and sweep_temporaries(tmp_path) == 0
    os.utime(lock, (time.time() - DAYS,) * 2)
    with FileLock(lock):
        assert sweep_temporaries(tmp_path) == 0
    assert sweep_temporaries(tmp_path) == 1 and not lock.exists()


def test_sweeping_where_nothing_is_does_nothing(tmp_path: Path) -> None:
    assert sweep_temporaries(tmp_path / "new") == 0
