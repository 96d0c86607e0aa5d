"""What rows know, how thresholds were chosen, and who ranks against whom."""

import numpy as np
import pandas as pd

from piebench_masks.report.leakage import (
    FIXED,
    SEEN,
    edit_levels,
    level_marks,
    most,
    threshold_choices,
)
from piebench_masks.report.ranking import best_cells
from piebench_masks.report.table import Format


def test_a_row_knows_the_most_of_its_mask_and_its_editor() -> None:
    rows = pd.DataFrame(
        [
            ("turbo_edit", "none", "none"),
            ("turbo_edit", "instant", "predicted"),
            ("prompt_to_prompt", "ours", "predicted"),
            ("turbo_edit", "oracle", "oracle"),
            ("mine", "none", "none"),
            ("theirs", "predicted", "predicted"),
            ("bound", "oracle", "oracle"),
        ],
        columns=["editor", "method", "mask_source"],
    )
    methods = {"instant": "instruction", "ours": "prompts", "oracle": "annotation"}
    editors = {"turbo_edit": "prompts", "prompt_to_prompt": "word", "mine": "type"}
    assert list(edit_levels(rows, methods, editors)) == [
        *("prompts", "instruction", "word", "annotation", "type", "unknown", "unknown"),
    ]
    assert most("word", "prompts") == "word" and most("annotation", "unknown") == "unknown"


def test_thresholds_are_fixed_or_chosen_on_the_samples() -> None:
    rows = pd.DataFrame(
        [("ours", 0.1), ("ours", 0.2), ("casa", 0.5), ("none", np.nan), ("oracle", 0.5)],
        columns=["method", "threshold"],
    )
    assert threshold_choices(rows) == {"ours": SEEN, "casa": FIXED}


def test_marks_stand_only_where_levels_differ() -> None:
    assert level_marks({"ours": "prompts", "oracle": "annotation"}) == {}
    marks = level_marks({"ours": "prompts", "word": "word", "full": "nothing"})
    assert marks == {"ours": " (prompts)", "word": " (word)"}


def test_the_best_are_marked_within_a_level() -> None:
    frame = pd.DataFrame(
        {
            "method": ["a", "b", "c", "d", "e"],
            "knows": ["prompts", "prompts", "word", "word", "unknown"],
            "dice": [0.2, 0.3, 0.8, 0.9, 0.95],
        }
    )
    best = best_cells(frame, {"dice": Format("Dice", digits=2)}, {"dice": "up"})
    assert best == {(1, "dice"), (3, "dice")}
    alone = best_cells(frame.drop(columns="knows"), {"dice": Format("D", digits=2)}, {"dice": "up"})
    assert alone == {(4, "dice")}
