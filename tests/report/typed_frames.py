"""Frames of per-sample rows as a run has them: edit types are ordered categories of labels."""

from collections.abc import Sequence

import pandas as pd

EDIT_TYPES = (
    "Random",
    "Change Object",
    "Add Object",
    "Delete Object",
    "Change Attribute Content",
)
"""Of the data set that the fixtures are of; two types have no sample."""


def typed(frame: pd.DataFrame, types: Sequence[str] = EDIT_TYPES) -> pd.DataFrame:
    """Codes as the ordered categories that the frames of a run have."""
    codes = pd.Categorical.from_codes(frame["edit_type"], list(types), ordered=True)
    return frame.assign(edit_type=codes)
