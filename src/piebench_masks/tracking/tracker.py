"""What every tracker can do: publish a finished run, once, from finished tables and files.

Trackers never drive a run and never compute.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from piebench_masks.report.gallery import GalleryRow


@dataclass(frozen=True)
class Plot:
    """Columns ``x`` and ``y`` of ``frame``: a line for each ``method``, or points."""

    title: str
    frame: pd.DataFrame
    x: str
    y: str
    lines: bool = True


@dataclass(frozen=True)
class Dataset:
    """What was edited. ``digest`` is of the samples' contents; ``table`` is the parsed Parquet."""

    name: str
    digest: str
    samples: int
    table: Path


@dataclass(frozen=True)
class FinishedRun:
    """All that is published of one run.

    ``key`` is the run's identity: publishing the same key again replaces, never duplicates.
    ``folder`` is its results folder. ``tables`` and ``plots`` are aggregates, of few rows.
    ``samples`` reads the gallery's; ``figures`` PNG files; ``files`` files and folders.
    """

    key: str
    folder: Path
    name: str
    group: str | None
    tags: Sequence[str]
    config: Mapping[str, object]
    commit: str | None
    dataset: Dataset
    summary: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame]
    plots: Mapping[str, Plot]
    samples: Callable[[], Sequence[GalleryRow]]
    figures: Mapping[str, Path]
    files: Sequence[Path]

    def digest(self) -> str:
        """12 hex digits of what the run found and with what; not of when or how it was computed."""
        about = [self.key, self.name, self.group, [*self.tags], self.commit]
        digest = hashlib.sha256(json.dumps(about).encode())
        digest.update(f"{self.dataset.digest} {json.dumps(dict(self.summary))}".encode())
        for name, frame in {**self.tables, **{n: c.frame for n, c in self.plots.items()}}.items():
            digest.update(f"{name}\n{frame.to_csv(index=False)}".encode())
        for path in self.files:
            if path.suffix == ".parquet":
                digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


class Tracker(Protocol):
    def publish(self, run: FinishedRun) -> str | None:
        """Publish one run; returns where it can be seen (an address or a folder), or None.

        What has been published already, unchanged, is not published again.
        """
        ...
