"""What a data set holds, by edit type, and where two data sets differ.

Gets parsed samples, returns finished tables; must not know stages or models.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.report.table import Format, Table

TINY = 0.01
"""Share of the picture below which an annotated mask is called tiny."""
COUNTS = {
    "n": Format("n", digits=0, meaning="number of samples"),
    "no_mask": Format("No mask", digits=0, meaning="without an annotated mask"),
    "full": Format(
        "Full mask",
        digits=0,
        meaning="the mask is the whole picture: nothing of the background can be scored",
    ),
    "empty": Format(
        "Empty mask",
        digits=0,
        meaning="the mask has no pixel: nothing of the edit can be scored",
    ),
    "tiny": Format(
        "Tiny mask",
        digits=0,
        meaning=f"the mask covers less than {TINY:.0%} of the picture, and something",
    ),
    "brackets": Format("Brackets", digits=0, meaning="a prompt marks changed words by brackets"),
    "long": Format("Long prompt", digits=0, meaning="a prompt is longer than the model sees"),
    "no_word": Format("No blended word", digits=0, meaning="without blended words"),
}
AREA = Format("Mask area %", digits=1, scale=100, meaning="mean share of the picture")


def contents_table(
    name: str, samples: Sequence[Sample], edit_types: Sequence[str], long: Collection[str]
) -> Table:
    """Counts of ``COUNTS`` and the mean area of masks, as annotated, by edit type and overall.

    long: ids of the samples with a prompt that is longer than the model sees.
    """
    facts = pd.DataFrame([_facts(sample, long) for sample in samples])
    groups = {label: facts[facts["edit_type"] == label] for label in edit_types}
    rows = [
        {"edit_type": label, **group[[*COUNTS]].sum().to_dict(), "area": group["area"].mean()}
        for label, group in {**groups, "Overall": facts}.items()
        if len(group)
    ]
    return Table(
        title=f"What {name} holds",
        frame=pd.DataFrame(rows),
        formats={
            "edit_type": Format("Edit type"),
            **COUNTS,
            "area": AREA,
        },
        notes=("Masks are as annotated, without the frame that the benchmark sets.",),
        sections=frozenset({len(rows) - 1}),
    )


def difference_table(names: tuple[str, str], tables: tuple[Table, Table]) -> Table:
    """Two of ``contents_table`` beside each other: a row an edit type and what is counted."""
    one, two = (table.frame.set_index("edit_type") for table in tables)
    formats = {**COUNTS, "area": AREA}
    rows = [
        {
            "edit_type": label,
            "what": formats[key].header,
            "first": _value(one, label, key),
            "second": _value(two, label, key),
        }
        for label in dict.fromkeys([*one.index, *two.index])
        for key in (formats if label in one.index and label in two.index else ("n",))
        if not _same(_value(one, label, key), _value(two, label, key))
    ]
    frame = pd.DataFrame(rows, columns=["edit_type", "what", "first", "second"])
    first = frame["edit_type"] != frame["edit_type"].shift()
    sections = frozenset(int(row) for row in frame.index[first][1:])
    return Table(
        title=f"Where {names[0]} and {names[1]} differ",
        frame=frame,
        formats={
            "edit_type": Format("Edit type", once=True),
            "what": Format("What"),
            "first": Format(names[0], digits=1),
            "second": Format(names[1], digits=1),
        },
        notes=() if len(frame) else ("All these counts are equal.",),
        sections=sections,
    )


def shared_samples(one: Sequence[Sample], two: Sequence[Sample]) -> str:
    """A sentence on the samples of the same id in two data sets: what of them differs."""
    by_id: Mapping[str, Sample] = {sample.id: sample for sample in two}
    pairs = [(sample, by_id[sample.id]) for sample in one if sample.id in by_id]
    if not pairs:
        return "They have no sample id in common."
    differing = {
        "picture": sum(a.image_digest != b.image_digest for a, b in pairs),
        "source prompt": sum(a.source_prompt != b.source_prompt for a, b in pairs),
        "target prompt": sum(a.target_prompt != b.target_prompt for a, b in pairs),
        "edit type": sum(a.edit_type != b.edit_type for a, b in pairs),
        "blended words": sum(a.blended_word != b.blended_word for a, b in pairs),
        "mask": sum(a.annotated != b.annotated for a, b in pairs),
    }
    counts = ", ".join(f"{what} of {n}" for what, n in differing.items())
    return f"Of {len(pairs)} samples with the same id differ: {counts}."


def _facts(sample: Sample, long: Collection[str]) -> dict[str, Any]:
    rle = sample.annotated or sample.mask
    area = np.nan if rle is None else float(from_coco(rle).mean())
    return {
        "edit_type": sample.edit_type,
        "n": 1,
        "no_mask": rle is None,
        "full": area == 1,
        "empty": area == 0,
        "tiny": 0 < area < TINY,
        "brackets": any(bracket in text for text in sample.texts for bracket in "[]"),
        "long": sample.id in long,
        "no_word": not sample.blended_word.strip(),
        "area": area,
    }


def _value(counts: pd.DataFrame, label: str, key: str) -> float:
    if label not in counts.index:
        return np.nan
    value: Any = counts.loc[label, key]
    return float(value) * (100 if key == "area" else 1)


def _same(one: float, two: float) -> bool:
    return one == two or (np.isnan(one) and np.isnan(two))
