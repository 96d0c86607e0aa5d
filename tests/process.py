"""The installed command as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``piebench-masks`` with these arguments in a folder."""
    return subprocess.run(
        [Path(sys.executable).parent / "piebench-masks", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
