"""From all scores of a run to what its report shows: tables, figures and sentences.

Gets frames of per-sample rows; must not know stores, stages or models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from piebench_masks.metrics.column import Column
from piebench_masks.report.edit_tables import cost_table, editing_table, editor_table
from piebench_masks.report.leakage import FIXED, SEEN, threshold_choices
from piebench_masks.report.mask_tables import dice_table, method_table, threshold_table
from piebench_masks.report.methods import (
    at_thresholds,
    best_thresholds,
    edited_thresholds,
    editors_of,
    leak_levels,
    learned_methods,
)
from piebench_masks.report.overview import overview_table
from piebench_masks.report.protocol_tables import ProtocolScores, protocol_table
from piebench_masks.report.table import Table
from piebench_masks.report.worth import gains, worth_sentences, worth_table

MEASURED = ("cost", "overview")
"""Tables with seconds, the only numbers that a run does not repeat."""
THRESHOLDS = {
    FIXED: "Fixed thresholds were set in advance.",
    SEEN: "Thresholds chosen on these very samples have the best mean Dice of those edited under "
    "(where no mask was scored, they are the nearest to the method's own).",
}


@dataclass(frozen=True)
class Scores:
    """All scores of a run: a row a sample, method and threshold; costs, map_costs: a row an edit
    and a map.

    ``edit_type`` is an ordered categorical of the data set's labels. columns: what the edits'
    metrics mean; defaults: the methods' own thresholds; knows, told: the leak levels of mask
    methods and editors; masking: how editors that say so keep to masks. protocol: the name and
    digest of that under which all this stands; protocols: the edits under it and under the others,
    where several are compared.
    """

    masks: pd.DataFrame
    edits: pd.DataFrame
    costs: pd.DataFrame
    map_costs: pd.DataFrame
    columns: Mapping[str, Column]
    defaults: Mapping[str, float]
    knows: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    masking: Mapping[str, str] = field(default_factory=dict)
    protocol: str = ""
    protocols: Mapping[str, ProtocolScores] = field(default_factory=dict)

    @cached_property
    def best_thresholds(self) -> dict[str, float]:
        """Each method's threshold of the highest mean Dice, its own where none was scored."""
        best = best_thresholds(self.masks) if len(self.masks) else {}
        return {**self.defaults, **best}

    @cached_property
    def gains(self) -> dict[str, pd.DataFrame]:
        """What masked edits gain over the unmasked one, by column of a role."""
        return gains(self.masks, self.edits, self.columns)

    @cached_property
    def edited_thresholds(self) -> dict[str, float]:
        return edited_thresholds(self.masks, self.edits, self.defaults)


def result_tables(scores: Scores) -> dict[str, Table]:
    """By file name; a table without scores is left out. The Dice table is the last."""
    edits, columns, thresholds = scores.edits, scores.columns, scores.edited_thresholds
    tables = {}
    if len(edits):
        chosen = {*threshold_choices(edits).values()}
        how = [note for choice, note in THRESHOLDS.items() if choice in chosen]
        if scores.gains:
            tables["worth"] = worth_table(scores.gains, columns)
        editing = editing_table(
            edits, columns, thresholds, scores.knows, scores.told, scores.masking
        )
        tables["editing"] = editing.noted(*how)
        if len(scores.costs):
            tables["cost"] = cost_table(scores.costs)
        if len(editors_of(edits)) > 1:
            tables["editors"] = editor_table(edits, columns, thresholds).noted(*how)
        if len(scores.protocols) > 1:
            tables["protocols"] = protocol_table(scores.protocols, thresholds)
    if len(scores.masks):
        tables["thresholds"] = threshold_table(scores.masks, scores.defaults)
        tables["mask_methods"] = method_table(scores.masks, knows=scores.knows)
        tables["overview"] = overview_table(scores.masks, scores.knows, scores.map_costs)
        tables["dice_by_edit_type"] = dice_table(scores.masks, knows=scores.knows)
    levels = leak_levels(scores.knows)
    if scores.protocol:
        levels.append(f"Protocol: {scores.protocol}.")
    return {
        name: table.noted(*levels) if name not in ("cost", "protocols") else table
        for name, table in tables.items()
    }


def summary(scores: Scores, samples: int) -> list[str]:
    """What was run, and which method's masks are best."""
    masks, edits = scores.masks, scores.edits
    learned = learned_methods(scores.defaults)
    editors = ", ".join(editors_of(edits)) if len(edits) else ""
    scored = [f"the masks of {', '.join(learned)}"] if learned else []
    scored += [f"edits by {editors}{' under these masks' if learned else ''}"] if editors else []
    sentences = [f"This run scores {' and '.join(scored)} on {samples} samples."] if scored else []
    rows = masks[masks["method"].isin(learned)] if len(masks) else masks
    if len(rows):
        dice = at_thresholds(rows, scores.best_thresholds).groupby("method")["dice"].mean()
        (first, value), *others = dice.sort_values(ascending=False, kind="stable").items()
        then = ", ".join(f"{name} {value:.2f}" for name, value in others)
        threshold = scores.best_thresholds[str(first)]
        sentences.append(
            f"Closest to the annotated masks is {first}, with a mean Dice of {value:.2f} at "
            f"threshold {threshold:.3g}{f' (then {then})' if then else ''}."
        )
    if scores.gains:
        sentences += worth_sentences(scores.gains, scores.columns)
    return sentences
