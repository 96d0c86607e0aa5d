"""Publishes a finished run to MLflow, by default to an SQLite file on this machine.

Must not drive a run. No server is needed to write, ``mlflow ui`` shows it.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piebench_masks.errors import BenchmarkError
from piebench_masks.tracking.tracker import FinishedRun

LONGEST_VALUE = 6000
"""Of a parameter, in characters: what MLflow's stores take."""


@dataclass(frozen=True)
class MlflowTracker:
    """``folder`` gets ``mlflow.db`` and the runs' files, for all runs together."""

    folder: str
    project: str = "piebench-masks"

    def publish(self, run: FinishedRun) -> str | None:
        """See ``Tracker.publish``; returns the database and the run's id.

        Raises BenchmarkError where MLflow is not installed.
        """
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
        except ImportError as error:
            raise BenchmarkError(
                "tracker=mlflow needs the optional dependency: pip install 'piebench-masks[mlflow]'"
            ) from error
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        folder = Path(self.folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        existing = client.get_experiment_by_name(self.project)
        files = (folder / "mlflow").as_uri()
        experiment = (
            existing.experiment_id if existing else client.create_experiment(self.project, files)
        )
        digest = run.digest()
        for earlier in client.search_runs([experiment], f"tags.key = '{run.key}'"):
            if earlier.data.tags.get("digest") == digest and earlier.info.status == "FINISHED":
                return _place(self.folder, earlier.info.run_id)
            client.delete_run(earlier.info.run_id)
            shutil.rmtree(folder / "mlflow" / earlier.info.run_id, ignore_errors=True)
        tags = {
            "key": run.key,
            "digest": digest,
            "group": run.group or "",
            "tags": ",".join(run.tags),
            "mlflow.source.git.commit": (run.commit or "").removesuffix("-dirty"),
            "commit": run.commit or "",
        }
        created = client.create_run(experiment, run_name=run.name)
        identity, at = created.info.run_id, created.info.start_time
        data = Dataset(run.dataset.name, run.dataset.digest, "local", str(run.dataset.table))
        client.log_inputs(identity, [DatasetInput(data, [])])
        client.log_batch(
            identity,
            metrics=[Metric(_allowed(name), value, at, 0) for name, value in run.summary.items()],
            params=[Param(_allowed(k), v[:LONGEST_VALUE]) for k, v in _flat("", run.config)],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        for name, frame in run.tables.items():
            client.log_table(identity, frame, f"shown/{name}.json")
        for path in run.files:  # the figures are among them
            if path.is_dir():
                client.log_artifacts(identity, str(path), path.name)
            else:
                client.log_artifact(identity, str(path))
        client.set_terminated(identity)
        return _place(self.folder, identity)


def _place(folder: str, identity: str) -> str:
    return f"{Path(folder) / 'mlflow.db'}, run {identity}"


def _allowed(name: str) -> str:
    """With ``_`` for what MLflow has in no name, as the + of ``ddim+p2p``."""
    return re.sub(r"[^/\w.\- :]", "_", name)


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested settings as ``a/b`` names and texts."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(f"{name}/", value)
        else:
            yield name, value if isinstance(value, str) else json.dumps(value, default=str)
