"""Publishes a finished run to Weights & Biases, or to its offline files where there is no key.

Must not drive a run; the network is touched only with a key.
"""

import hashlib
import json
import netrc
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from piebench_masks.report.gallery import GalleryRow
from piebench_masks.tracking.tracker import FinishedRun, Plot

if TYPE_CHECKING:
    import wandb

CLASSES = {0: "keep", 1: "edit"}
MOST_ROWS = 10_000


@dataclass(frozen=True)
class WandbTracker:
    """``entity`` None is the account's default one."""

    project: str = "piebench-masks"
    entity: str | None = None

    def publish(self, run: FinishedRun) -> str | None:
        """See ``Tracker.publish``; returns the run's address, or its offline folder to sync later.

        The mode is W&B's own choice (``WANDB_MODE``) where there is a key and offline otherwise.
        """
        offline = not _has_key() or os.environ.get("WANDB_MODE") == "offline"
        folder = run.folder.resolve() / "wandb"
        marker = folder / "published.json"
        target = [self.entity, self.project, "offline" if offline else "online"]
        mark = {"digest": run.digest(), "target": target}
        if place := _published(marker, mark, folder):
            return place
        # Only the environment reaches W&B's own process: no crash reports over the network, and
        # staged tables in the results folder, not in the home folder.
        os.environ.update(WANDB_ERROR_REPORTING="false", WANDB_DATA_DIR=str(folder))
        import wandb  # half a second that runs without a tracker do not pay

        identity = hashlib.sha256(run.key.encode()).hexdigest()[:12]
        for earlier in folder.glob(f"offline-run-*-{identity}"):
            shutil.rmtree(earlier)
        folder.mkdir(parents=True, exist_ok=True)
        session = wandb.init(
            entity=self.entity,
            project=self.project,
            id=identity,
            name=run.name,
            group=run.group,
            tags=list(run.tags),
            config=dict(run.config) | {"commit": run.commit, "dataset_digest": run.dataset.digest},
            dir=run.folder,
            mode="offline" if offline else None,
            resume=None if offline else "allow",  # offline it is ignored, with a warning
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                git_commit=run.commit.removesuffix("-dirty") if run.commit else None,
                x_disable_stats=True,
            ),
        )
        with session:
            _use_dataset(session, run, offline)
            logged: dict[str, Any] = {
                name: wandb.Table(**_contents(frame)) for name, frame in run.tables.items()
            }
            logged |= {f"chart/{name}": _chart(chart) for name, chart in run.plots.items()}
            logged |= {f"figure/{name}": wandb.Image(str(p)) for name, p in run.figures.items()}
            if samples := run.samples():
                logged["samples"] = _sample_table(samples)
            session.log(logged)
            session.summary.update(dict(run.summary))
            results = wandb.Artifact(
                f"results-{identity}",
                type="results",
                metadata={"commit": run.commit, "dataset_digest": run.dataset.digest},
            )
            for path in run.files:  # by reference: no copies
                inside = [path] if path.is_file() else sorted(path.rglob("*"))
                for file in (file for file in inside if file.is_file()):
                    name = file.relative_to(path.parent).as_posix()
                    results.add_file(str(file), name=name, policy="immutable")
            session.log_artifact(results)
        place = str(Path(session.dir).parent) if offline else session.url
        marker.write_text(json.dumps(mark | {"place": Path(place).name if offline else place}))
        return place


def _published(marker: Path, mark: dict[str, Any], folder: Path) -> str | None:
    """Where this very content was published to this very target before, if that is still there."""
    try:
        stored = json.loads(marker.read_text())
        place = str(stored.pop("place"))
    except (OSError, ValueError, KeyError):
        return None
    if stored != mark:
        return None
    if mark["target"][-1] == "online":
        return place
    return str(folder / place) if (folder / place).is_dir() else None


def _use_dataset(session: "wandb.Run", run: FinishedRun, offline: bool) -> None:
    """Declare the data set as what the run was made from; equal data is one version of it."""
    import wandb

    data = run.dataset
    about = {"digest": data.digest, "samples": data.samples}
    artifact = wandb.Artifact(f"dataset-{data.name}", type="dataset", metadata=about)
    artifact.add_file(str(data.table), policy="immutable")
    if offline:
        # What use_artifact does online; it refuses offline only because it waits for an answer.
        session._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        session.use_artifact(artifact)


def _chart(chart: Plot) -> Any:
    """A chart of W&B's own, which it draws from a table of few rows."""
    import wandb

    if not chart.lines:
        return wandb.plot.scatter(
            wandb.Table(**_contents(chart.frame)), chart.x, chart.y, title=chart.title
        )
    curves = dict(list(chart.frame.groupby("method", sort=False)))
    return wandb.plot.line_series(
        xs=[curve[chart.x].tolist() for curve in curves.values()],
        ys=[curve[chart.y].tolist() for curve in curves.values()],
        keys=list(map(str, curves)),
        title=chart.title,
        xname=chart.x,
    )


def _sample_table(samples: Sequence[GalleryRow]) -> "wandb.Table":
    """A row a sample: the source under all masks, which can be switched on, and the edits."""
    import wandb

    def overlay(mask: np.ndarray) -> dict[str, Any]:
        return {"mask_data": mask.astype(np.uint8), "class_labels": CLASSES}

    methods = list(dict.fromkeys(name for row in samples for name in row.masks))
    edited = list(dict.fromkeys(name for row in samples for name in row.edits))
    about = ["sample", "edit_type", "pick", "source_prompt", "target_prompt", "masks"]
    scores, edits = [f"dice/{name}" for name in methods], [f"edit/{name}" for name in edited]
    table = wandb.Table(columns=[*about, *scores, *edits])
    for row in samples:
        masks = {} if row.annotated is None else {"annotated": overlay(row.annotated)}
        masks |= {name: overlay(mask) for name, mask in row.masks.items()}
        table.add_data(
            row.sample_id,
            row.edit_type,
            row.pick,
            row.source_prompt,
            row.target_prompt,
            wandb.Image(row.source, masks=masks or None),
            *(_dice(row, name) for name in methods),
            *(wandb.Image(row.edits[n]) if n in row.edits else None for n in edited),
        )
    return table


def _dice(row: GalleryRow, method: str) -> float | None:
    """Of the mask that is shown."""
    return row.dice[method][row.cut[method]] if method in row.dice else None


def _contents(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns and rows, with None for missing numbers: NaN is not JSON.

    Raises ValueError for more rows than W&B shows: it would drop the others.
    """
    if len(frame) > MOST_ROWS:
        raise ValueError(f"a table of {len(frame)} rows, W&B shows {MOST_ROWS}")
    rows = frame.astype(object).where(frame.notna(), None)
    return {"columns": [str(name) for name in frame], "data": rows.to_numpy().tolist()}


def _has_key() -> bool:
    """Whether W&B would find credentials by itself; never asks for them."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    path = os.environ.get("NETRC", Path.home() / ".netrc")
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
