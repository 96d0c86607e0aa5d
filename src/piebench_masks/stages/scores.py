"""All stored scores of a run as frames: a row for every sample, method and threshold."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from piebench_masks.data.sample import Sample
from piebench_masks.metrics import texts_of
from piebench_masks.run import Run
from piebench_masks.settings import EXTERNAL, LEVELS, RECONSTRUCTION, Knows
from piebench_masks.stages.edit import COSTS, edit_costs, edit_folder, edit_item
from piebench_masks.stages.fits import FIT_KEYS, fit_folder, fit_item
from piebench_masks.stages.maps import COSTS as MAP_COSTS
from piebench_masks.stages.maps import has_map, map_costs, map_folder, map_item, map_name
from piebench_masks.stages.score_edits import EDIT_KEYS, edit_score_folder, score_item
from piebench_masks.stages.score_masks import (
    MASK_KEYS,
    mask_score_folder,
    mask_score_item,
    scored_thresholds,
)
from piebench_masks.stages.variants import Variants, others
from piebench_masks.stages.written import WRITTEN_KEYS, written_folder, written_item
from piebench_masks.store import Folder

PROTOCOL = ["protocol", "protocol_digest"]
EDIT_COLUMNS = ["editor", "method", "threshold", "mask_source", "mask_area", "mask"]
NFE = [name for name in COSTS if name.startswith("nfe_")]
Item = Callable[[Sample], str]
"""What a sample is called in one artifact folder."""


def mask_scores(run: Run, samples: Sequence[Sample]) -> pd.DataFrame:
    """One row for every sample, method and threshold of this configuration that was scored.

    ``edit_type`` is a categorical of the data set's types in their order. Of the samples that the
    first protocol scores.
    """
    samples = scored_samples(run, samples, run.protocol)
    frames = []
    for name in run.methods:
        rows = mask_score_folder(run, name).rows(MASK_KEYS)
        rows = rows[rows["threshold"].isin(scored_thresholds(run, name))]
        sample_rows = _samples(run, samples, lambda sample: mask_score_item(run, name, sample))  # noqa: B023
        method_rows = sample_rows.merge(rows, on="item").drop(columns="item")
        frames.append(method_rows.assign(method=name))
    return _by_sample(frames, samples) if frames else _empty(run, ["threshold", "method"])


def edit_scores(run: Run, samples: Sequence[Sample], protocol: str | None = None) -> pd.DataFrame:
    """One row for every sample, method and threshold edited under that any metric has scored, under
    a protocol, by default the first.

    Equal masks share their scores. ``edit_type`` as in ``mask_scores``; ``mask_source`` is "none"
    for the unmasked edit, "oracle" where the mask is made from the annotation, otherwise
    "predicted"; ``mask_area`` is the edited share of the latents, NaN where it is not known.
    ``nfe_inverse``, ``nfe_forward``: U-Net evaluations for the edit, NaN likewise.
    """
    name = protocol or run.protocol
    samples = scored_samples(run, samples, name)
    variants = Variants(run)
    frames = [_edit_scores(run, samples, variants, editor, name) for editor in run.scored_editors]
    scored = [frame for frame in frames if len(frame)]
    if not scored:
        return _empty(run, [*PROTOCOL, *EDIT_COLUMNS, *NFE])
    return pd.concat(scored, ignore_index=True)


def scored_samples(run: Run, samples: Sequence[Sample], protocol: str) -> list[Sample]:
    """Those of the edit types that a protocol scores."""
    types = run.protocols[protocol].scored_types(run.edit_types, protocol)
    return [sample for sample in samples if sample.edit_type in types]


def _edit_scores(
    run: Run, samples: Sequence[Sample], variants: Variants, editor: str, protocol: str
) -> pd.DataFrame:
    digest = run.protocol_digest(protocol)
    variant_rows = [
        {
            "sample": sample.id,
            "protocol": protocol,
            "protocol_digest": digest,
            "editor": variant.editor,
            "method": variant.method,
            "threshold": variant.threshold,
            "mask_source": variant.mask_source,
            "mask_area": variant.mask_area,
            "mask": variant.name,
        }
        for sample in samples
        for variant in variants.of(sample, editor)
    ]
    edits = pd.DataFrame(variant_rows, columns=["sample", *PROTOCOL, *EDIT_COLUMNS])
    edits = _samples(run, samples, lambda sample: sample.id).merge(edits, on="sample")
    if editor not in run.editors:
        edits[NFE] = float("nan")
    else:
        edits["item"] = edits["sample"].map({s.id: edit_item(run, editor, s) for s in samples})
        edits = edits.merge(edit_costs(run, editor)[[*EDIT_KEYS, *NFE]], on=EDIT_KEYS, how="left")
    undefined = 0.0 if run.protocols[protocol].undefined == "zero" else float("nan")
    scored = pd.Series(False, edits.index)
    for scorer in run.scorers_under(protocol).values():
        metric = run.scorers[scorer].metric
        columns = [*metric.columns]
        rows = edit_score_folder(run, editor, scorer).rows(EDIT_KEYS)
        rows = rows.reindex(columns=[*EDIT_KEYS, *columns, *texts_of(metric)])
        rows = rows.astype(dict.fromkeys(columns, float)).fillna(dict.fromkeys(columns, undefined))
        items = {sample.id: score_item(run, sample, editor, scorer) for sample in samples}
        edits["item"] = edits["sample"].map(items).astype(object)
        edits = edits.merge(rows, on=EDIT_KEYS, how="left", indicator="scored")
        scored |= edits["scored"] == "both"
        edits = edits.drop(columns="scored")
    return edits[scored].drop(columns="item").reset_index(drop=True)


def editor_levels(run: Run) -> dict[str, str]:
    """What each editor is told beside its mask; of those made elsewhere what their user states."""
    levels: dict[str, str] = {}
    for name, editor in run.editors.items():
        told = [level for field, level in TOLD.items() if field in editor.reads]
        levels[name] = max(["nothing", *told], key=LEVELS.index)
    if external := run.section("editor").get(EXTERNAL):
        methods = others(run)[1]
        stated = external.get("knows") or {}
        levels |= {name: stated.get(name, "unknown") for name in methods}
    return levels


TOLD: dict[str, Knows] = {
    "prompts": "prompts",
    "blended_word": "word",
    "instruction": "instruction",
    "mask": "annotation",
}
"""The leak level of an editor that reads a field."""


def editor_masking(run: Run) -> dict[str, str]:
    """How those editors that say so keep to masks."""
    ways = {name: getattr(editor, "masking", "") for name, editor in run.editors.items()}
    return {name: way for name, way in ways.items() if way}


def measured_costs(run: Run, samples: Sequence[Sample], edits: pd.DataFrame) -> pd.DataFrame:
    """``COSTS`` of each edit in ``edit_scores`` that was painted here; equal edits have one row."""
    painted = edits[["editor", "sample", "mask"]].drop_duplicates()
    costs = [
        _samples(run, samples, lambda sample: edit_item(run, name, sample))  # noqa: B023
        .merge(edit_costs(run, name).assign(editor=name), on="item")
        .drop(columns="item")
        for name in run.editors
        if name != RECONSTRUCTION
    ]
    return painted.merge(pd.concat(costs), on=[*painted]) if costs else painted.iloc[:0]


def measured_map_costs(run: Run, samples: Sequence[Sample]) -> pd.DataFrame:
    """``method`` and costs of each map of this configuration."""
    costs = [
        _samples(run, samples, lambda sample: map_item(run, name, sample))  # noqa: B023
        .merge(map_costs(run, name), on="item")
        .drop(columns="item")
        .assign(method=name)
        for name in run.methods
    ]
    return pd.concat(costs) if costs else _empty(run, ["method", *MAP_COSTS])


def origins(run: Run, samples: Sequence[Sample]) -> list[dict[str, Any] | None]:
    """The provenances of the processes that made this run's maps, edits and scores, each once."""
    provenances: dict[str | None, dict[str, Any] | None] = {}
    for folder, ids in _origins(run, samples):
        for origin in ids:
            if origin not in provenances:
                provenances[origin] = None if origin is None else folder.provenance(origin)
    return list(provenances.values())


def _origins(run: Run, samples: Sequence[Sample]) -> Iterator[tuple[Folder, list[str | None]]]:
    for writer in run.writers:
        items = {written_item(writer, sample) for sample in samples}
        yield _makers(written_folder(run, writer), WRITTEN_KEYS, items)
    for name in run.methods:
        folder = map_folder(run, name)
        mapped_samples = [sample for sample in samples if has_map(run, name, sample)]
        yield folder, [folder.made_by(map_name(run, name, sample)) for sample in mapped_samples]
        items = {mask_score_item(run, name, sample) for sample in samples}
        yield _makers(mask_score_folder(run, name), MASK_KEYS, items)
    for editor in run.scored_editors:
        if editor in run.editors:
            items = {edit_item(run, editor, sample) for sample in samples}
            yield _makers(edit_folder(run, editor), EDIT_KEYS, items)
        if editor in run.fittings:
            items = {fit_item(run, editor, sample) for sample in samples}
            yield _makers(fit_folder(run, editor), FIT_KEYS, items)
        for scorer in run.scorers:
            items = {score_item(run, sample, editor, scorer) for sample in samples}
            yield _makers(edit_score_folder(run, editor, scorer), EDIT_KEYS, items)


def _makers(
    folder: Folder, keys: Sequence[str], items: set[str]
) -> tuple[Folder, list[str | None]]:
    rows = folder.rows(keys, origin=True)
    ids = rows.loc[rows["item"].isin(items), "provenance"].unique()
    return folder, [None if pd.isna(origin) else str(origin) for origin in ids]


def _samples(run: Run, samples: Sequence[Sample], item: Item) -> pd.DataFrame:
    """``item``, ``sample`` and ``edit_type`` of every sample."""
    types = pd.CategoricalDtype(list(run.edit_types), ordered=True)
    return pd.DataFrame(
        {
            "item": [item(sample) for sample in samples],
            "sample": [sample.id for sample in samples],
            "edit_type": pd.Series([sample.edit_type for sample in samples], dtype=types),
        }
    )


def _by_sample(frames: Sequence[pd.DataFrame], samples: Sequence[Sample]) -> pd.DataFrame:
    """One frame, its rows in the order of the samples and then of the frames."""
    places = {sample.id: place for place, sample in enumerate(samples)}
    rows = pd.concat(frames, ignore_index=True)
    order = rows["sample"].map(places).argsort(kind="stable")
    return rows.iloc[order].reset_index(drop=True)


def _empty(run: Run, columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(columns=["sample", "edit_type", *columns])
    return frame.astype({"edit_type": pd.CategoricalDtype(list(run.edit_types), ordered=True)})
