"""All stored scores of a run as frames: a row for every sample, method and threshold."""

from collections.abc import Callable, Sequence

import pandas as pd

from piebench_masks.data.sample import EDIT_TYPES, Sample
from piebench_masks.run import Run, item_name
from piebench_masks.settings import EXTERNAL
from piebench_masks.stages.edit import COSTS, edit_costs
from piebench_masks.stages.score_edits import EDIT_KEYS, edit_score_folder, score_item
from piebench_masks.stages.score_masks import MASK_KEYS, mask_score_folder, scored_thresholds
from piebench_masks.stages.variants import variants

EDIT_COLUMNS = ["editor", "method", "threshold", "mask_source", "mask_area", "mask"]
NFE = [name for name in COSTS if name.startswith("nfe_")]


def mask_scores(
    run: Run, samples: Sequence[Sample], edit_types: Sequence[str] = EDIT_TYPES
) -> pd.DataFrame:
    """One row for every sample, method and threshold of this configuration that was scored.

    edit_types: the data set's, in its order; ``edit_type`` is a categorical of them.
    """
    frames = [pd.DataFrame(columns=[*MASK_KEYS, "method"])]
    for name, method in run.methods.items():
        rows = mask_score_folder(run, method).rows(MASK_KEYS).assign(method=name)
        frames.append(rows[rows["threshold"].isin(scored_thresholds(run, method))])
    rows = _joined(frames)
    known = _samples(samples, edit_types, item_name)
    return known.merge(rows, on="item").drop(columns="item")


def edit_scores(
    run: Run, samples: Sequence[Sample], edit_types: Sequence[str] = EDIT_TYPES
) -> pd.DataFrame:
    """One row for every sample, method and threshold edited under that any metric has scored.

    Equal masks share their scores. ``edit_type`` as in ``mask_scores``; ``mask_source`` is "none"
    for the unmasked edit, "oracle" where the mask is made from the annotation, otherwise
    "predicted"; ``mask_area`` is the edited share of the latents, NaN where it is not known.
    ``nfe_inverse``, ``nfe_forward``: U-Net evaluations for the edit, NaN likewise.
    """
    frames = [_edit_scores(run, samples, edit_types, editor) for editor in run.section("editor")]
    types = pd.CategoricalDtype(list(edit_types), ordered=True)
    empty = pd.DataFrame(columns=["sample", "edit_type", *EDIT_COLUMNS, *NFE])
    return _joined([empty.astype({"edit_type": types}), *frames])


def _edit_scores(
    run: Run, samples: Sequence[Sample], edit_types: Sequence[str], editor: str
) -> pd.DataFrame:
    used = [
        {
            "item": item_name(sample),
            "editor": variant.editor,
            "method": variant.method,
            "threshold": variant.threshold,
            "mask_source": variant.mask_source,
            "mask_area": float(variant.mask.mean()) if variant.mask.size else float("nan"),
            "mask": variant.name,
        }
        for sample in samples
        for variant in variants(run, sample, editor)
    ]
    edits = pd.DataFrame(used, columns=["item", *EDIT_COLUMNS])
    if editor == EXTERNAL:
        edits[NFE] = float("nan")
    else:
        edits = edits.merge(edit_costs(run, editor)[[*EDIT_KEYS, *NFE]], on=EDIT_KEYS, how="left")
    edits = _samples(samples, edit_types, item_name).merge(edits, on="item").drop(columns="item")
    scored = pd.Series(False, edits.index)
    for name, metric in run.metrics.items():
        rows = edit_score_folder(run, editor, name).rows(EDIT_KEYS)
        rows = rows.reindex(columns=[*EDIT_KEYS, *metric.columns])
        rows = rows.astype(dict.fromkeys(metric.columns, float))
        items = {sample.id: score_item(run, sample, editor, name) for sample in samples}
        edits["item"] = edits["sample"].map(items).astype(object)
        edits = edits.merge(rows, on=EDIT_KEYS, how="left", indicator="scored")
        scored |= edits["scored"] == "both"
        edits = edits.drop(columns=["item", "scored"])
    return edits[scored].reset_index(drop=True)


def measured_costs(
    run: Run,
    samples: Sequence[Sample],
    edits: pd.DataFrame,
    edit_types: Sequence[str] = EDIT_TYPES,
) -> pd.DataFrame:
    """``COSTS`` of each edit in ``edit_scores`` that was painted here; equal edits have one row."""
    painted = edits[["editor", "sample", "mask"]].drop_duplicates()
    known = _samples(samples, edit_types, item_name)
    costs = [
        known.merge(edit_costs(run, name).assign(editor=name), on="item").drop(columns="item")
        for name in run.editors
    ]
    return painted.merge(pd.concat(costs), on=[*painted]) if costs else painted.iloc[:0]


def _samples(
    samples: Sequence[Sample], edit_types: Sequence[str], item: Callable[[Sample], str]
) -> pd.DataFrame:
    """``item``, ``sample`` and ``edit_type`` of every sample."""
    labels = [EDIT_TYPES[sample.edit_type] for sample in samples]  # -> sample.edit_type
    types = pd.CategoricalDtype(list(edit_types), ordered=True)
    return pd.DataFrame(
        {
            "item": [item(sample) for sample in samples],
            "sample": [sample.id for sample in samples],
            "edit_type": pd.Series(labels, dtype=types),
        }
    )


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One below the other; of the first, which has the columns, only if all others are empty."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
