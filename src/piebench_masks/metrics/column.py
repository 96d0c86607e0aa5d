"""What a metric's column means, what it stands for, how it is shown and summed up.

Whoever ranks, plots, searches or explains asks the column, and never reads its name.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from piebench_masks.errors import BenchmarkError

Role = Literal["background", "edit", "target", "cost"]
"""What a column stands for where one number must: how well the background is kept, how well the
edit is done, how near the true edit is, what it cost.
"""
Part = Literal["whole", "outside", "inside"]
"""The whole picture, and what the annotated mask makes of it."""
SUFFIXES: dict[Part, str] = {"whole": "", "outside": "_unedit_part", "inside": "_edit_part"}
"""How the columns of a metric that scores every part are named, after PIE-Bench's evaluator."""
PLACES: dict[Part, str] = {
    "whole": "over the whole picture",
    "outside": "outside the annotated mask",
    "inside": "inside the annotated mask",
}


@dataclass(frozen=True)
class Column:
    """``label`` is the heading, ``direction`` the better one, ``scale`` multiplies shown values.

    role: what the column stands for in plots, sweeps, verdicts and searches, as ``column_of``
    chooses; None: for tables alone. meaning: one sentence for readers of the page.
    ``headline`` columns stand in the tables that people read, csv files have all of them.
    part: which part of the picture is scored, as the annotated mask divides it.
    ``statistic``: how a column is summed up over samples; ratios with long tails by their median.
    infinite: what an edit with an infinite value does ("leave the background as it was").
    bounds: the lowest and the highest value, unscaled, where a search weighs two columns against
    each other; None: the column cannot be weighed.
    """

    label: str
    direction: Literal["up", "down"]
    scale: float = 1.0
    digits: int = 2
    headline: bool = True
    statistic: Literal["mean", "median"] = "mean"
    role: Role | None = None
    meaning: str = ""
    part: Part = "whole"
    infinite: str = ""
    bounds: tuple[float, float] | None = None

    def on(self, part: Part, *, headline: Part = "outside") -> "Column":
        """This column of one part of the picture, of which only one is a headline.

        The label and the meaning, which so far has no full stop, say which part it is. What stands
        for the background does so outside the mask, or on the whole picture where none is known.
        """
        return replace(
            self,
            label=self.label if part == "whole" else f"{self.label} {part}",
            meaning=f"{self.meaning} {PLACES[part]}.",
            headline=part == headline,
            part=part,
            role=None if self.role == "background" and part == "inside" else self.role,
        )

    def summarise(self, values: ArrayLike) -> float:
        """Mean or median of the finite values, NaN where there is none.

        An infinite value has no finite mean, so it is left out, of intervals too; ``note`` says so.
        """
        numbers = np.asarray(values, dtype=float)
        finite = numbers[np.isfinite(numbers)]
        if not len(finite):
            return float("nan")
        if self.statistic == "median":
            return float(np.median(finite))
        return math.fsum(finite) / len(finite)  # whatever their order

    def note(self, values: ArrayLike) -> str:
        """The sentence under a table about infinite values, empty if there are none."""
        numbers = np.asarray(values, dtype=float)
        count, infinite_count = (
            np.count_nonzero(~np.isnan(numbers)),
            np.count_nonzero(np.isinf(numbers)),
        )
        if not infinite_count:
            return ""
        description = f"edits {self.infinite}" if self.infinite else "values are infinite"
        left_out = f"left out of the {self.statistic} and its interval"
        return f"{self.label}: {infinite_count} of {count} {description}; they are {left_out}."


def column_of(role: Role, columns: Mapping[str, Column], valued: Collection[str]) -> str | None:
    """The column that stands for a role: its name, None if no column of the role has values.

    valued: names of the columns that have a value. Headline columns come before others, and among
    them those of a part before those of the whole picture; of equals the first.
    """
    names = [name for name, column in columns.items() if column.role == role and name in valued]
    ranked = sorted(names, key=lambda n: (not columns[n].headline, columns[n].part == "whole"))
    return ranked[0] if ranked else None


def columns_json(columns: Mapping[str, Column]) -> str:
    return json.dumps({name: asdict(column) for name, column in columns.items()}, indent=1)


def write_columns(path: Path, columns: Mapping[str, Column]) -> None:
    """Write all columns of a run, in their order, as plain JSON."""
    path.write_text(columns_json(columns), encoding="utf-8")


def read_columns(path: Path) -> dict[str, Column]:
    """The columns of a finished run; BenchmarkError if the file is missing or damaged."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Column(**fields | {"bounds": fields["bounds"] and tuple(fields["bounds"])})
            for name, fields in entries.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BenchmarkError(
            f"{path} does not say what the metrics' columns mean ({error}): run the report stage "
            "again"
        ) from error
