"""What every tracker can do: publish a finished run, once, from finished tables and files.

Trackers never drive a run and never compute.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd


class Tracker(Protocol):
    def publish(
        self,
        *,
        key: str,
        folder: Path,
        name: str,
        group: str | None,
        tags: Sequence[str],
        config: Mapping[str, object],
        summary: Mapping[str, float],
        tables: Mapping[str, pd.DataFrame],
        figures: Mapping[str, Path],
        files: Sequence[Path],
    ) -> str | None:
        """Publish one run; returns where it can be seen (an address or a folder), or None.

        ``key`` is the run's identity: publishing the same key again replaces, never duplicates.
        ``folder`` is the run's results folder, in which a tracker keeps its local files in a folder
        of its own. ``figures`` are PNG files.
        """
        ...
