"""What edits and columns are called wherever they are shown: tables, figures, gallery, trackers.

Must not import torch, so that a run can be looked at in a second.
"""

import pandas as pd

SECONDARY = ("NFE", "Mask area", "MSE", "SSIM", "PSNR", "n")
"""How the headers of columns start that a narrow terminal does without."""


def edit_names(rows: pd.DataFrame, *, several: bool | None = None) -> pd.Series:
    """What the edits in rows are called: by their mask method, after the editor if there are
    ``several``; None: if the rows have more than one.
    """
    if several is None:
        several = rows["editor"].nunique() > 1
    return rows["editor"] + ", " + rows["method"] if several else rows["method"]
