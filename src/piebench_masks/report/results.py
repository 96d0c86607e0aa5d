"""A finished run read back from its results folder: rows, tables, settings, provenance.

Reads files only; must not import torch, so that a run can be looked at in a second.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from piebench_masks.errors import BenchmarkError
from piebench_masks.report.table import Table

if TYPE_CHECKING:
    from piebench_masks.metrics.column import Column

_MANY = 12  # methods, the trivial ones among them


@dataclass(frozen=True)
class Results:
    """``tables`` are by file name; ``failures`` are what could not be computed, as dicts."""

    folder: Path
    tables: dict[str, Table]
    config: DictConfig
    provenance: dict[str, Any]
    failures: list[dict[str, Any]]

    @cached_property
    def masks(self) -> pd.DataFrame:
        """The masks' scores: a row a sample, method and threshold."""
        return pd.read_parquet(self.folder / "mask_scores.parquet")

    @cached_property
    def edits(self) -> pd.DataFrame:
        """The edits' scores: a row a sample, editor, method and threshold."""
        return pd.read_parquet(self.folder / "edit_scores.parquet")

    @cached_property
    def columns(self) -> dict[str, "Column"]:
        """What the columns of ``edits`` mean."""
        from piebench_masks.metrics.column import read_columns  # its package imports torch

        return read_columns(self.folder / "columns.json")


def read_run(folder: Path | str) -> Results:
    """The run in ``folder`` (``results/<name>``); BenchmarkError if there is no finished one."""
    folder = Path(folder)
    try:
        config = OmegaConf.load(folder / "config.yaml")
        assert isinstance(config, DictConfig)
        lines = (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()
        return Results(
            folder=folder,
            tables={path.stem: Table.read(path) for path in sorted(folder.glob("tables/*.json"))},
            config=config,
            provenance=json.loads((folder / "provenance.json").read_text(encoding="utf-8")),
            failures=[json.loads(line) for line in lines],
        )
    except (OSError, ValueError) as error:
        raise BenchmarkError(
            f"{folder} is no finished run ({error}): give a folder that a run with the report "
            "stage has written, such as results/shapes-shapes_turbo"
        ) from error


def for_terminal(tables: Mapping[str, Table]) -> list[Table]:
    """The tables that people read first, the most important last: a terminal is read from its end.

    Dice by edit type has a column for every method: of many, it is only in the files.
    """
    stems = ["protocols", "editing", "cost", "editors", "overview", "dice_by_edit_type"]
    overview = tables.get("overview")
    if overview is not None and len(overview.frame) > _MANY:
        stems.remove("dice_by_edit_type")
    return [tables[stem] for stem in stems if stem in tables]
