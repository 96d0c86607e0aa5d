"""What Hydra calls after a sweep (``-m``). Knows of a sweep no more than its folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from piebench_masks.console import open_console, say


class CollectSweep(Callback):
    """Collects the runs of a sweep; exit status 1 if an item of any run failed."""

    def __init__(self) -> None:
        self.runs: list[Path] = []  # an earlier sweep may have left others in the folder

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        self.runs.append(Path(config.hydra.runtime.output_dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if collect(Path(config.hydra.sweep.dir), self.runs, open_console(config)):
            sys.exit(1)


def collect(folder: Path, runs: Sequence[Path], console: Console) -> int:
    """Collect these runs into a folder, print the table; how many items failed in all of them."""
    from piebench_masks.report.sweep import collect_sweep  # only sweeps pay for it

    collected = collect_sweep(folder, runs)
    if collected is None:
        return 0
    table, failed = collected
    console.print(table.to_rich())
    place = folder / "sweep.md"
    say(console, "sweep", f"sweep: {escape(str(place))}", place=place, failed=failed)
    return failed
