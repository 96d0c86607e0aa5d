"""What a benchmark hands out: figures with what they are to reach, as tables and as JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from piebench_masks.provenance import provenance

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Finding:
    """One line: a measure of the reference's flow and of the package's, None where there is none.

    to_reach: the least ratio that is asked for; ``ratio`` is how many times less the package's is.
    at_most: the most that is asked for of the package's.
    """

    what: str
    reference: float | None
    ours: float | None
    unit: str
    to_reach: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        if self.reference is None or not self.ours:
            return None
        return self.reference / self.ours

    def cells(self) -> list[str]:
        return [
            self.what,
            shown(self.reference, self.unit),
            shown(self.ours, self.unit),
            shown(self.ratio, "x"),
            ", ".join(
                part
                for part in (shown(self.to_reach, "x"), shown(self.at_most, f"{self.unit} at most"))
                if part
            ),
        ]


@dataclass(frozen=True)
class Sheet:
    """A table: what is shown, and the figures that it is made of, as JSON has them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, title: str, findings: Sequence[Finding]) -> "Sheet":
        columns = ("What", "Reference's flow", "Ours", "Ratio", "To reach")
        figures = [asdict(finding) | {"ratio": finding.ratio} for finding in findings]
        return cls(title, columns, [finding.cells() for finding in findings], figures)

    def as_markdown(self) -> str:
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines, ""])

    def as_table(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def shown(value: float | None, unit: str) -> str:
    """Three significant digits, or the whole number where it has more; nothing for None."""
    if value is None:
        return ""
    number = f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{number}x" if unit == "x" else f"{number} {unit}".strip()


def about(**more: Any) -> dict[str, Any]:
    """Machine, versions, commit, command and time: what a figure means nothing without."""
    how = provenance()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": how["commit"],
        "command": " ".join(how["argv"]),
        "machine": how["platform"],
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "versions": how["versions"],
        **more,
    }


def cpu_model() -> str:
    """As Linux names it, empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")


def publish(
    path: Path, facts: Mapping[str, Any], sheets: Sequence[Sheet], raw: Any, *, markdown: bool
) -> None:
    """Print the tables, for the terminal or as markdown, and write everything as JSON."""
    figures = {sheet.title: sheet.figures for sheet in sheets}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": facts, "figures": figures, "raw": raw}, indent=1) + "\n")
    console = Console()
    for sheet in sheets:
        if markdown:
            print(sheet.as_markdown())
        else:
            console.print(sheet.as_table())
    print(
        f"{facts['date']}, commit {facts['commit']}, {facts['cpu']}, {facts['cores']} cores, torch "
        f"{facts['versions']['torch']}: `{facts['command']}`"
    )
