"""Compare this project with a folder of the reference's or the official evaluator's figures.

    python tests/parity/check.py DIR [--model ../shared/goldens/model] [--weights ../shared/weights]

DIR has the form of ../shared/goldens/public, ../shared/goldens_editors/public,
../shared/goldens_editors_more/public, ../shared/goldens_masks/public,
../shared/goldens_regions/public or ../shared/goldens_items/public (described in the READMEs
beside them; newer forms say in kind.json which they are), or that of ../shared/data/piebench_mini,
which has an official_metrics.json. Models are looked for in $PIEBENCH_SHARED, if set.
Exit status 1: something is out. What DIR holds beyond what is compared is listed, and is no fault.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from editors import EDITOR_FAMILIES, EditorGoldens
from editors_ledits import LEDITS_FAMILIES
from editors_masactrl import FEATURE_FAMILIES
from editors_more import MORE_FAMILIES, MoreGoldens
from editors_published import PUBLISHED_FAMILIES
from families import FAMILIES, Check, official_scores
from goldens import SHARED, THREADS, Goldens, kind_of
from items import ItemGoldens
from items_fit import ITEM_FIT_FAMILIES
from items_masks import ITEM_MASK_FAMILIES
from masks import MASK_FAMILIES, MaskGoldens
from regions import RegionGoldens
from regions_families import REGION_FAMILIES
from rich.console import Console
from rich.table import Table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--model", type=Path, help="default: the model that DIR was made with")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    unseen: dict[str, list[str]] = {}
    if (asked.folder / "official_metrics.json").exists():
        checks = list(
            _safely("official scores", lambda: official_scores(asked.folder, asked.weights))
        )
    elif MaskGoldens.knows(asked.folder):
        cases = MaskGoldens(asked.folder, SHARED).cases
        checks = _compared((*MASK_FAMILIES, *LEDITS_FAMILIES), cases)
        seen = {check.case.split()[0] for check in checks}
        strange = [case.key for case in cases if case.key not in seen]
        checks += [Check("nobody looked at", f"{key}.npz", 1, 0) for key in strange]
    elif MoreGoldens.knows(asked.folder):
        goldens = MoreGoldens(asked.folder, asked.model or SHARED)
        checks = _compared((*PUBLISHED_FAMILIES, *MORE_FAMILIES), goldens.cases)
        unseen = goldens.unseen()
    elif ItemGoldens.knows(asked.folder):
        items = ItemGoldens(asked.folder, asked.model or SHARED)
        checks = _compared((*ITEM_MASK_FAMILIES, *ITEM_FIT_FAMILIES), items.cases)
        unseen = items.unseen()
    elif RegionGoldens.knows(asked.folder):
        regions = RegionGoldens(asked.folder, asked.model or SHARED)
        checks = _compared(REGION_FAMILIES, regions.cases)
        unseen = regions.unseen()
    elif (kind := kind_of(asked.folder)) not in (None, "goldens", "goldens_editors"):
        line = f"{asked.folder} is of the kind {kind}, which nothing here compares yet"
        Console().print(line, markup=False)
        return 1
    elif EditorGoldens.knows(asked.folder):
        models = asked.model or SHARED / "goldens_editors" / "model"
        families = (*EDITOR_FAMILIES, *FEATURE_FAMILIES)
        checks = _compared(families, EditorGoldens(asked.folder, models).cases)
    else:
        models = asked.model or SHARED / "goldens" / "model"
        checks = _compared(FAMILIES, Goldens(asked.folder, models).pairs)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_table(checks))
    for check in (out := [check for check in checks if not check.ok])[:50]:
        console.print(f"out: {check.family}: {check.case}: {check.error:.3g}", markup=False)
    for part, arrays in unseen.items():
        console.print(f"not compared: {part}: {', '.join(arrays)}", markup=False)
    if not checks:
        console.print(f"{asked.folder} holds nothing that can be compared", markup=False)
    return int(bool(out) or not checks)


def _compared(families: Sequence[Callable[[Any], Iterator[Check]]], cases: Any) -> list[Check]:
    return [
        check
        for family in families
        for case in cases
        for check in _safely(f"{family.__name__} of {case.key}", lambda: family(case))  # noqa: B023
    ]


def _safely(what: str, checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks; what stops them is one more, which is out."""
    try:
        yield from checks()
    except Exception as error:
        yield Check("could not be compared", f"{what}: {type(error).__name__}: {error}", 1, 0)


def _table(checks: Sequence[Check]) -> Table:
    table = Table("Family", "Cases", "Worst error", "Tolerance", "OK")
    for family in dict.fromkeys(check.family for check in checks):
        rows = [check for check in checks if check.family == family]
        tight = max(rows, key=lambda c: (not c.ok, c.error / c.tolerance if c.tolerance else 0))
        ok = "yes" if all(check.ok for check in rows) else "NO"
        table.add_row(family, str(len(rows)), f"{tight.error:.2g}", f"{tight.tolerance:g}", ok)
    return table


if __name__ == "__main__":
    sys.exit(main())
