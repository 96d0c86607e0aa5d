"""What a data set's loader gives: its samples, its edit types, and what it could not use.

Knows no file format.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from piebench_masks.data.sample import Sample
from piebench_masks.errors import BenchmarkError

LISTED = 50
"""The most rejections in a message; ``DataError.rejections`` holds all."""

OVERALL = "Overall"
"""The tables' name of all edit types together, which no type can have."""


@dataclass(frozen=True)
class Rejection:
    """An entry that was not taken into the samples, and all that is wrong with it."""

    sample_id: str
    reason: str


class DataError(BenchmarkError):
    """A data set cannot be used; the message says why and what to do about it."""

    def __init__(self, message: str, rejections: Sequence[Rejection] = ()) -> None:
        lines = [f"  {item.sample_id}: {item.reason}" for item in rejections]
        if len(lines) > LISTED:
            lines[LISTED:] = [f"  ... and {len(lines) - LISTED} more"]
        # File names and ids come from others: control characters would act on the terminal.
        super().__init__("\n".join(map(_printable, [message, *lines])))
        self.rejections = tuple(rejections)


@dataclass(frozen=True)
class Parsed:
    """A data set: the sound samples and the rejected entries, both in the data set's order.

    edit_types: the labels of the data set's edit types in the order of the tables; a type may be
    one that no sample has. Raises ``DataError`` for a label that tables cannot show, and for a
    sample whose type is none of them.
    """

    samples: list[Sample]
    rejections: list[Rejection]
    edit_types: tuple[str, ...]

    def __post_init__(self) -> None:
        problems = [problem for label in self.edit_types if (problem := label_problem(label))]
        if len(set(self.edit_types)) < len(self.edit_types):
            problems.append("a label is given twice")
        labels = ", ".join(map(repr, self.edit_types))
        problems += [
            f"sample {sample.id} has the type {sample.edit_type!r}, which is none of {labels}"
            for sample in self.samples
            if sample.edit_type not in self.edit_types
        ][:1]
        if problems:
            raise DataError(f"The edit types of the data set cannot be used: {'; '.join(problems)}")


def label_problem(label: str) -> str | None:
    """Why a text cannot be an edit type's label in tables, or None."""
    if label == OVERALL:
        return f"{OVERALL!r} is the tables' name of all types: choose another label"
    if not label.isprintable() or label != label.strip() or not 0 < len(label) <= 60:
        return f"{label[:80]!r} is no label: write 1 to 60 characters without blanks around them"
    return None


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
