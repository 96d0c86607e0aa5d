"""``piebench-masks show``: finished runs on the terminal, one in full or several side by side.

Reads results folders only; must not import torch.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from piebench_masks.console import print_table
from piebench_masks.errors import BenchmarkError
from piebench_masks.report.names import SECONDARY, edit_names
from piebench_masks.report.results import Results, read_run

USAGE = """piebench-masks show results/RUN [results/RUN ...]

One run: its tables. Several: their Dice and edits beside each other."""
IN_FULL = ("editing", "cost", "editors", "thresholds", "mask_methods", "dice_by_edit_type")
"""Tables of one run, the most important last: a terminal is read from its end."""
COMPARED = {
    "lpips": ("_unedit_part", min),
    "psnr": ("_unedit_part", max),
    "clip": ("_edited", max),
    "target_error": ("", min),
}
"""Of the editing table: start and end of the columns that are compared, and which is better."""


def show_runs(folders: Sequence[Path], console: Console) -> None:
    """Print these runs; BenchmarkError if one of the folders holds none, or none is given."""
    if not folders:
        raise BenchmarkError("show which run? For example: piebench-masks show results/RUN")
    runs = [read_run(folder) for folder in folders]
    names = _names(folders)
    if len(runs) == 1:
        for stem in IN_FULL:
            if (path := runs[0].folder / "tables" / f"{stem}.md").is_file():
                print_table(console, _read_table(path.read_text(encoding="utf-8")), SECONDARY)
    else:
        for table in _side_by_side(dict(zip(names, runs, strict=True))):
            print_table(console, table)
    for name, run in zip(names, runs, strict=True):
        console.print(Text(f"{name}: {_about(run)}"), soft_wrap=True)
    if len(runs) == 1 and (page := runs[0].folder / "report.html").is_file():
        console.print(Text(f"report: {page}"), soft_wrap=True)


def _read_table(markdown: str) -> Table:
    """A table that ``report.table.Table`` has written, its best values green."""
    lines = markdown.splitlines()
    header, rule, *rows = (_cells(line) for line in lines if line.startswith("|"))
    notes = [_plain(line.removeprefix("- ")) for line in lines if line.startswith("- ")]
    table = Table(title=Text(_plain(lines[0].strip("*"))), caption_justify="left")
    table.caption = Text("\n".join(notes)) if notes else None
    for name, ruled in zip(header, rule, strict=True):
        table.add_column(Text(_plain(name)), justify="right" if ruled.endswith(":") else "left")
    for cells in rows:
        table.add_row(
            *(
                Text(_plain(cell[2:-2]), "bold green") if cell[:2] == "**" else Text(_plain(cell))
                for cell in cells
            )
        )
    return table


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _plain(markdown: str) -> str:
    return re.sub(r"\\(.)", r"\1", markdown)


def _about(run: Results) -> str:
    how = run.provenance
    settings = f"{how['samples']} samples of {how['dataset']}, {how['model']}, {how['compat']}"
    return f"{settings}, commit {how['commit']}, {len(run.failures)} items failed"


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders without what they have in common."""
    paths = [folder.resolve() for folder in folders]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(common).as_posix() for path in paths]


def _side_by_side(runs: dict[str, Results]) -> list[Table]:
    """A row a method, a column a run: Dice, then the edits' scores; the best of a row is bold."""
    tables = []
    none = pd.DataFrame(columns=["editor", "method"])
    edits = {n: run.tables.get("editing", none) for n, run in runs.items()}
    several = any(frame["editor"].nunique() > 1 for frame in edits.values())
    frames = {n: f.assign(method=edit_names(f, several=several)) for n, f in edits.items()}
    for column in dict.fromkeys(str(c) for frame in frames.values() for c in frame):
        for start, (end, better) in COMPARED.items():
            if column.startswith(start) and column.endswith(end):
                tables.append(_compared(f"Edits: {column}", frames, column, better))
    masks = {n: run.tables.get("mask_methods", pd.DataFrame()) for n, run in runs.items()}
    tables.append(_compared("Dice, at each run's best threshold", masks, "dice", max))
    return [table for table in tables if table.row_count]


def _compared(
    title: str,
    frames: dict[str, pd.DataFrame],
    column: str,
    better: Callable[[Sequence[float]], float],
) -> Table:
    values = {
        name: frame.set_index("method")[column].groupby(level=0, sort=False).first()
        for name, frame in frames.items()
        if column in frame
    }
    methods = dict.fromkeys(str(method) for of_run in values.values() for method in of_run.index)
    table = Table(title=Text(title))
    table.add_column("Mask")
    for name in frames:
        table.add_column(Text(name), justify="right")
    for method in methods:
        known = {n: float(v[method]) for n, v in values.items() if pd.notna(v.get(method))}
        best = better(list(known.values())) if known else None
        cells = [
            Text(f"{known[n]:.4f}", "bold green" if known[n] == best else "")
            if n in known
            else Text("–")
            for n in frames
        ]
        table.add_row(Text(method), *cells)
    return table
