"""``piebench-masks show``: finished runs on the terminal, one in full or several side by side.

Reads results folders only; must not import torch.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from piebench_masks.console import print_table
from piebench_masks.errors import BenchmarkError
from piebench_masks.protocol import OFFICIAL
from piebench_masks.report.methods import editors_of
from piebench_masks.report.names import edit_names
from piebench_masks.report.results import Results, for_terminal, read_run
from piebench_masks.report.table import Format, Table

USAGE = """piebench-masks show results/RUN [results/RUN ...]

One run: its tables. Several: their Dice and edits beside each other."""
ROLES = ("background", "edit", "target")
"""What is compared of the edits of several runs."""
DICE = Format("Dice", digits=3)


def show_runs(folders: Sequence[Path], console: Console) -> None:
    """Print these runs; BenchmarkError if one of the folders holds none, or none is given, or if
    their tables are of several protocols.
    """
    if not folders:
        raise BenchmarkError("show which run? For example: piebench-masks show results/RUN")
    runs = [read_run(folder) for folder in folders]
    names = _names(folders)
    protocols = {name: _protocol(run) for name, run in zip(names, runs, strict=True)}
    if len({protocol for protocol, _ in protocols.values()}) > 1:
        listed = ", ".join(f"{name} {protocol}" for name, (protocol, _) in protocols.items())
        raise BenchmarkError(
            f"these runs were scored under several protocols ({listed}): their numbers do not "
            "compare. Score them with the same protocol=, or one of them with protocols=[...]"
        )
    if len(runs) == 1:
        for table in for_terminal(runs[0].tables):
            print_table(console, table.to_rich(), table.secondary)
    else:
        for compared in _side_by_side(dict(zip(names, runs, strict=True))):
            print_table(console, compared)
    for name, run in zip(names, runs, strict=True):
        console.print(Text(f"{name}: {_about(run)}"), soft_wrap=True)
    if len(set(protocols.values())) > 1:
        warning = "WARNING: switches of the protocol, or metrics, are not the same in these runs"
        console.print(Text(warning), soft_wrap=True)
    if len(runs) == 1 and (page := runs[0].folder / "report.html").is_file():
        console.print(Text(f"report: {page}"), soft_wrap=True)


def _about(run: Results) -> str:
    facts = run.provenance
    commits = facts.get("items", {}).get("commit") or [facts["commit"]]
    settings = f"{facts['samples']} samples of {facts['dataset']}, {facts['model']}, "
    settings += f"{facts['compat']}, protocol {' '.join(_protocol(run))}, "
    settings += f"commit {', '.join(map(str, commits))}"
    return f"{settings}, {len(run.failures)} items failed"


def _protocol(run: Results) -> tuple[str, str]:
    """Name and digest of the one that the tables are of."""
    protocols: Mapping[str, str] = run.provenance.get("protocol", {})
    return next(iter(protocols.items()), (OFFICIAL, ""))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders without what they have in common."""
    paths = [folder.resolve() for folder in folders]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(common).as_posix() for path in paths]


def _side_by_side(runs: Mapping[str, Results]) -> list[RichTable]:
    """A row a method, a column a run: the edits' scores by role, then Dice; the best is bold."""
    edits = {name: run.tables["editing"] for name, run in runs.items() if "editing" in run.tables}
    several = any(len(editors_of(table.frame)) > 1 for table in edits.values())
    methods = {name: edit_names(table.frame, several=several) for name, table in edits.items()}
    tables = []
    for role in ROLES:
        columns = {name: table.column_of(role) for name, table in edits.items()}
        for column in dict.fromkeys(name for name in columns.values() if name is not None):
            scored = {name: table for name, table in edits.items() if column in table.formats}
            values = {n: _values(table, column, methods[n]) for n, table in scored.items()}
            shown = next(iter(scored.values())).formats[column]
            tables.append(_compared(f"Edits: {shown.header}", list(runs), values, shown))
    masks = {
        n: run.tables["mask_methods"] for n, run in runs.items() if "mask_methods" in run.tables
    }
    values = {name: _values(table, "dice", table.frame["method"]) for name, table in masks.items()}
    title = "Dice ↑, at each run's best threshold"
    tables.append(_compared(title, list(runs), values, DICE))
    return [table for table in tables if table.row_count]


def _values(table: Table, column: str, methods: pd.Series) -> pd.Series:
    """A column's values by method, of equal methods the first."""
    return table.frame[column].groupby(methods, sort=False).first()


def _compared(
    title: str, runs: Sequence[str], values: Mapping[str, pd.Series], shown: Format
) -> RichTable:
    methods = dict.fromkeys(str(method) for of_run in values.values() for method in of_run.index)
    table = RichTable(title=Text(title))
    table.add_column("Mask")
    for name in runs:
        table.add_column(Text(name), justify="right")
    digits = (shown.digits or 0) + 1  # runs differ by less than methods do
    for method in methods:
        row = {n: float(v[method]) for n, v in values.items() if pd.notna(v.get(method))}
        best = (min if shown.direction == "down" else max)(row.values(), default=None)
        cells = [
            Text(f"{row[name] * shown.scale:.{digits}f}", "bold green" if row[name] == best else "")
            if name in row
            else Text("–")
            for name in runs
        ]
        table.add_row(Text(method), *cells)
    return table
