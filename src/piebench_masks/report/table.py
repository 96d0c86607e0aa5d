"""The one type of a finished table, which writes it everywhere: page, terminal, csv, md, tex, json.

Gets a frame and how to show it; must not know what the numbers mean, nor import torch: json is
what it is read back from.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.table import Table as RichTable
from rich.text import Text

MISSING = "–"

_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "×": r"$\times$",
        MISSING: "--",
        **{power: f"$^{{{digit}}}$" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    }
)


@dataclass(frozen=True)
class Format:
    """How a column is shown: text as it is (``digits`` None), or ``value * scale`` rounded.

    ``interval`` names two columns of the same frame with the ends of a confidence interval.
    meaning: the heading explained. secondary: a narrow terminal does without the column.
    once: shown in the first row of each section only.
    role, direction: of the column that stands for a role (``metrics.column.Role``), what it stands
    for and which values are better.
    """

    header: str
    digits: int | None = None
    scale: float = 1.0
    interval: tuple[str, str] | None = None
    meaning: str = ""
    secondary: bool = False
    once: bool = False
    role: str | None = None
    direction: Literal["up", "down"] | None = None


@dataclass(frozen=True)
class Table:
    """A finished table: raw numbers in ``frame`` (rows 0..n-1) and how to show them.

    Shown are the columns in ``formats``, in that order; a csv file has all columns, unrounded.
    ``best`` marks cells (row, column); before the rows in ``sections`` a rule is drawn; the rows in
    ``muted`` are there for comparison and stand back on the page.
    """

    title: str
    frame: pd.DataFrame
    formats: Mapping[str, Format]
    notes: tuple[str, ...] = ()
    best: frozenset[tuple[int, str]] = frozenset()
    sections: frozenset[int] = frozenset()
    muted: frozenset[int] = frozenset()

    def noted(self, *notes: str) -> "Table":
        return replace(self, notes=(*self.notes, *notes))

    def column_of(self, role: str) -> str | None:
        """The column that stands for a role, None where the table has none."""
        return next((name for name, shown in self.formats.items() if shown.role == role), None)

    @property
    def secondary(self) -> list[str]:
        """Headers of the columns that a narrow terminal does without."""
        return [shown.header for shown in self.formats.values() if shown.secondary]

    def cells(self) -> list[list[str]]:
        """The shown texts, row by row; a missing number is a dash."""
        return [[self._text(row, name) for name in self.formats] for row in range(len(self.frame))]

    def _text(self, row: int, name: str) -> str:
        shown, values = self.formats[name], self.frame.iloc[row]
        if shown.once and row not in {0, *self.sections}:
            return ""
        if pd.isna(values[name]):
            return MISSING
        if shown.digits is None:
            return str(values[name])
        ends = (name, *(shown.interval or ()))
        number, *interval = (
            f"{values[end] * shown.scale:.{shown.digits}f}" for end in ends if pd.notna(values[end])
        )
        return f"{number} [{', '.join(interval)}]" if interval else number

    def _lines(self, escape: Callable[[str], str], mark: str, between: str) -> list[str]:
        """Header and rows as escaped text; the best cells are put into ``mark``."""
        rows = [
            [
                mark.format(escape(cell)) if (row, name) in self.best else escape(cell)
                for name, cell in zip(self.formats, cells, strict=True)
            ]
            for row, cells in enumerate(self.cells())
        ]
        header = [escape(shown.header) for shown in self.formats.values()]
        return [between.join(cells) for cells in (header, *rows)]

    def to_csv(self) -> str:
        return self.frame.to_csv(index=False)

    def to_markdown(self) -> str:
        """A GitHub table under its title, best values bold, notes as a list."""
        header, *rows = (f"| {line} |" for line in self._lines(_markdown, "**{}**", " | "))
        rule = "".join("| --- " if f.digits is None else "| ---: " for f in self.formats.values())
        notes = [f"- {_markdown(note)}" for note in self.notes]
        text = [f"**{_markdown(self.title)}**", "", header, f"{rule}|", *rows, "", *notes]
        return "\n".join(text).rstrip() + "\n"

    def to_latex(self) -> str:
        """A booktabs table with caption, best values bold, notes in small print below."""
        header, *rows = (rf"{line} \\" for line in self._lines(_latex, r"\textbf{{{}}}", " & "))
        for row in sorted(self.sections, reverse=True):
            rows.insert(row, r"\midrule")
        align = "".join("l" if shown.digits is None else "r" for shown in self.formats.values())
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_latex(self.title)}}}",
                rf"\begin{{tabular}}{{{align}}}",
                *(r"\toprule", header, r"\midrule", *rows, r"\bottomrule"),
                r"\end{tabular}",
                *(rf"\par\footnotesize {_latex(note)}" for note in self.notes),
                r"\end{table}",
                "",
            ]
        )

    def to_rich(self) -> RichTable:
        """For the terminal; contents are plain text, never markup."""
        notes = Text("\n".join(self.notes)) if self.notes else None
        table = RichTable(title=Text(self.title), caption=notes, caption_justify="left")
        for shown in self.formats.values():
            justify: Literal["left", "right"] = "left" if shown.digits is None else "right"
            table.add_column(Text(shown.header), justify=justify)
        for row, cells in enumerate(self.cells()):
            if row in self.sections:
                table.add_section()
            styles = ["bold green" if (row, name) in self.best else "" for name in self.formats]
            table.add_row(*(Text(*cell) for cell in zip(cells, styles, strict=True)))
        return table

    def to_json(self) -> str:
        """All that the table is. Numbers are as precise as they were; missing ones are null."""
        frame = self.frame.astype(object).where(self.frame.notna(), None)
        content = {
            "title": self.title,
            "notes": self.notes,
            "formats": {name: asdict(shown) for name, shown in self.formats.items()},
            "columns": list(map(str, frame)),
            "rows": frame.to_numpy().tolist(),
            "best": sorted(self.best),
            "sections": sorted(self.sections),
            "muted": sorted(self.muted),
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    @staticmethod
    def read(path: Path) -> "Table":
        """The table that ``to_json`` wrote; OSError or ValueError where there is none."""
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            return Table._from_json(content)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is no table ({error!r})") from error

    @staticmethod
    def _from_json(content: dict[str, Any]) -> "Table":
        formats = {
            name: Format(
                **fields | {"interval": tuple(ends) if (ends := fields["interval"]) else None}
            )
            for name, fields in content["formats"].items()
        }
        frame = pd.DataFrame(content["rows"], columns=content["columns"])
        numbers = [n for n, shown in formats.items() if shown.digits is not None and n in frame]
        frame = frame.astype({name: float for name in numbers if frame[name].isna().any()})
        return Table(
            title=content["title"],
            frame=frame,
            formats=formats,
            notes=tuple(content["notes"]),
            best=frozenset((row, name) for row, name in content["best"]),
            sections=frozenset(content["sections"]),
            muted=frozenset(content["muted"]),
        )

    def write(self, folder: Path, stem: str) -> list[Path]:
        """Write ``stem``.csv, .md, .tex and .json into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            ".csv": self.to_csv(),
            ".md": self.to_markdown(),
            ".tex": self.to_latex(),
            ".json": self.to_json(),
        }
        for suffix, text in texts.items():
            (folder / f"{stem}{suffix}").write_text(text, encoding="utf-8")
        return [folder / f"{stem}{suffix}" for suffix in texts]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*|<]|\](?=\()|(?<!\w)_|_(?!\w))", r"\\\1", _one_line(text))


def _latex(text: str) -> str:
    return _one_line(text).translate(_LATEX)
