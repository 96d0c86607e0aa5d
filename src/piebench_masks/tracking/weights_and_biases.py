"""Publishes a finished run to Weights & Biases, or to its offline files where there is no key.

Must not drive a run; the network is touched only with a key.
"""

import hashlib
import netrc
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd


@dataclass(frozen=True)
class WandbTracker:
    """``entity`` None is the account's default one."""

    project: str = "piebench-masks"
    entity: str | None = None

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
        """See ``Tracker.publish``; returns the run's address, or its offline folder to sync later.

        The mode is W&B's own choice (``WANDB_MODE``) where there is a key and offline otherwise.
        """
        # Only the environment reaches W&B's own process: no crash reports over the network, and
        # staged tables in the results folder, not in the home folder.
        os.environ.update(
            WANDB_ERROR_REPORTING="false", WANDB_DATA_DIR=str((folder / "wandb").resolve())
        )
        import wandb  # half a second that runs without a tracker do not pay

        offline = not _has_key() or os.environ.get("WANDB_MODE") == "offline"
        identity = hashlib.sha256(key.encode()).hexdigest()[:12]
        for earlier in (folder / "wandb").glob(f"offline-run-*-{identity}"):
            shutil.rmtree(earlier)
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            entity=self.entity,
            project=self.project,
            id=identity,
            name=name,
            group=group,
            tags=list(tags),
            config=dict(config),
            dir=folder,
            mode="offline" if offline else None,
            resume=None if offline else "allow",  # offline it is ignored, with a warning
            settings=wandb.Settings(
                silent=True, console="off", disable_code=True, x_disable_stats=True
            ),
        )
        with run:
            run.log(
                {name: wandb.Table(**_contents(frame)) for name, frame in tables.items()}
                | {name: wandb.Image(str(path)) for name, path in figures.items()}
            )
            run.summary.update(dict(summary))
            artifact = wandb.Artifact(f"results-{identity}", type="results")
            for path in files:
                artifact.add_file(str(path), policy="immutable")  # by reference: no copies
            run.log_artifact(artifact)
        return str(Path(run.dir).parent) if offline else run.url


def _contents(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns and rows, with None for missing numbers: NaN is not JSON."""
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
