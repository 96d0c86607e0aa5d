"""The command as a process of its own that is stopped while its workers work."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from executors.conftest import SMALL
from executors.processes import alive, descendants, until, workers


def stopped(how: signal.Signals, data: Path, folder: Path, *overrides: str) -> None:
    """Send the signal (SIGINT as a terminal does, to all) and check that nobody is left."""
    command = Path(sys.executable).parent / "piebench-masks"
    process = subprocess.Popen(
        [command, *SMALL, f"dataset.root={data}", *overrides],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        # In a background job of a shell Ctrl-C is ignored, and so it would be in all below.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        working = until(lambda: any(folder.glob("artifacts/maps/*/*.safetensors")))
        assert working, process.communicate(timeout=1)
        below = workers(process.pid)
        assert len(below) == 2, below
        if how is signal.SIGINT:
            below = descendants(process.pid)
            os.killpg(process.pid, how)
        else:  # Ray's own agents take a minute to see it
            process.kill()
        assert until(lambda: not any(alive(pid) for pid in below)), "processes are left"
        output, _ = process.communicate()
        assert "Traceback" not in output, output
        if how is signal.SIGINT:
            assert process.returncode == 130 and "Interrupted" in output
    finally:  # what is left of a failure would count as workers of the next test
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
