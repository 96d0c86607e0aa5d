"""Whether a report is still the one that would be written: a digest of all that it is made from."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from piebench_masks.data.sample import SAMPLE_FIELDS, Sample
from piebench_masks.metrics.column import columns_json
from piebench_masks.report.finished import Scores
from piebench_masks.run import Run
from piebench_masks.runner import Outcome

RUNTIME = (
    *("artifacts_dir", "baseline", "batch_size", "device", "dry_run", "executor", "fail_on_error"),
    *("log", "on_error", "overwrite", "quiet", "results_dir", "stages", "sweep", "threads"),
    "tracker",
)
"""Settings of which nothing is seen in a report."""


def report_digest(
    run: Run,
    samples: Sequence[Sample],
    scores: Scores,
    origin: Mapping[str, Any],
    computed: Outcome,
) -> str:
    """12 hex digits of all that a report is made from, the code that makes it included."""
    content = {
        "code": _code_digest(),
        "config": {key: value for key, value in run.plain.items() if key not in RUNTIME},
        "samples": [[sample.id, sample.fingerprint(SAMPLE_FIELDS)] for sample in samples],
        "edit_types": list(run.edit_types),
        "columns": columns_json(scores.columns),
        "defaults": scores.defaults,
        "told": dict(scores.told),
        "protocol": scores.protocol,
        "artifacts": origin["artifacts"],
        "items": origin["items"],
        "failures": [asdict(failure) for failure in computed.failures],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    others = [protocol.edits for protocol in scores.protocols.values()]
    for frame in (scores.masks, scores.edits, scores.costs, *others):
        digest.update(json.dumps(list(map(str, frame))).encode())
        digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()[:12]


@functools.cache
def _code_digest() -> str:
    digest = hashlib.sha256(version("piebench-masks").encode())
    root = Path(str(resources.files("piebench_masks.report")))
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc"):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def read_index(folder: Path) -> dict[str, Any]:
    """What ``report.json`` says; {} where it is missing or damaged."""
    try:
        index = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return index if {"tables", "comparisons", "pictures", "files"} <= index.keys() else {}
    except (OSError, ValueError, AttributeError):
        return {}


def all_there(folder: Path, files: Mapping[str, int]) -> bool:
    """Whether every file is there in the size in which it was written."""
    try:
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False
