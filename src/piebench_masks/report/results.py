"""A finished run read back from its results folder: rows, tables, settings, provenance.

Reads files only; must not import torch, so that a run can be looked at in a second.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from piebench_masks.errors import BenchmarkError


@dataclass(frozen=True)
class Results:
    """``masks`` and ``edits`` have a row a sample, method and threshold; ``tables`` are by file
    name; ``failures`` are what could not be computed, as dicts.
    """

    folder: Path
    masks: pd.DataFrame
    edits: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    config: DictConfig
    provenance: dict[str, Any]
    failures: list[dict[str, Any]]


def read_run(folder: Path | str) -> Results:
    """The run in ``folder`` (``results/<name>``); BenchmarkError if there is no finished one."""
    folder = Path(folder)
    try:
        config = OmegaConf.load(folder / "config.yaml")
        assert isinstance(config, DictConfig)
        lines = (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()
        return Results(
            folder=folder,
            masks=pd.read_parquet(folder / "mask_scores.parquet"),
            edits=pd.read_parquet(folder / "edit_scores.parquet"),
            tables={path.stem: pd.read_csv(path) for path in sorted(folder.glob("tables/*.csv"))},
            config=config,
            provenance=json.loads((folder / "provenance.json").read_text(encoding="utf-8")),
            failures=[json.loads(line) for line in lines],
        )
    except (OSError, ValueError) as error:
        raise BenchmarkError(
            f"{folder} is no finished run ({error}): give a folder that a run with the report "
            "stage has written, such as results/shapes-shapes_turbo"
        ) from error
