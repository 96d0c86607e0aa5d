from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typed_frames import EDIT_TYPES, typed

from piebench_masks.masks.method import CandidateBoxes
from piebench_masks.metrics.column import Column
from piebench_masks.report.charts import dice_figure, pareto_figure
from piebench_masks.report.draw import PAGE_COLOURS, draw, save, svg
from piebench_masks.report.edit_tables import editing_table
from piebench_masks.report.gallery import GalleryRow
from piebench_masks.report.html import Drawn, Sweep, write_html
from piebench_masks.report.inline import inlined
from piebench_masks.report.mask_tables import dice_table
from piebench_masks.report.methods import best_thresholds

SWEEPS = {
    "ours": np.linspace(0, 1, 21),
    "signed": np.linspace(0, 5, 21),
    "full": [0.5],
    "oracle": [0.5],
}


@pytest.fixture(scope="session")
def columns() -> dict[str, Column]:
    return {
        "lpips_unedit_part": Column(
            "LPIPS outside", "down", 1e3, role="background", part="outside"
        ),
        "clip_edited": Column(
            "CLIP edited",
            "up",
            role="edit",
            part="inside",
            meaning="agreement with the target prompt, 0 to 100; of the annotated part",
        ),
        "mse": Column("MSE", "down", 1e4),
    }


@pytest.fixture(scope="session")
def segmentation() -> pd.DataFrame:
    """Scores of 24 samples of edit types 0, 1 and 4; the oracle comes first and is best."""
    draw = np.random.default_rng(1)
    rows = [
        (f"s{sample:02d}", [0, 1, 1, 4][sample % 4], method, threshold)
        for method in ("oracle", "full", "ours", "signed")
        for sample in range(24)
        for threshold in SWEEPS[method]
    ]
    frame = pd.DataFrame(rows, columns=["sample", "edit_type", "method", "threshold"])
    for score in ("dice", "precision", "recall", "iou", "area", "dice_inner", "boundary_f"):
        frame[score] = draw.random(len(frame))
    frame["annotated"] = frame.groupby("sample")["area"].transform("first")
    frame["boundary_iou"], frame["constant"] = draw.random(len(frame)), 0.0
    frame.loc[frame["method"] == "oracle", "dice"] = 0.99
    frame.loc[frame["method"] == "full", "area"] = 1.0
    return typed(frame)


@pytest.fixture(scope="session")
def editing() -> pd.DataFrame:
    """Edits of 6 samples; LPIPS of one is missing, and the oracle's rows come first."""
    draw = np.random.default_rng(2)
    variants = [
        ("oracle", 0.5, "oracle"),
        ("none", np.nan, "none"),
        *(("ours", threshold, "predicted") for threshold in SWEEPS["ours"]),
    ]
    rows = [
        (f"s{sample:02d}", 0, "turbo_edit", *variant, 0.25, *draw.random(2))
        for variant in variants
        for sample in range(6)
    ]
    keys = ["sample", "edit_type", "editor", "method", "threshold", "mask_source", "mask_area"]
    frame = pd.DataFrame(rows, columns=[*keys, "lpips_unedit_part", "clip_edited"])
    frame[["nfe_inverse", "nfe_forward"]] = 5, 6
    frame.loc[frame["mask_source"] == "oracle", "lpips_unedit_part"] = 0.0
    frame.loc[frame["sample"] == "s03", "lpips_unedit_part"] = np.nan
    return typed(frame)


@pytest.fixture(scope="session")
def gallery_row() -> GalleryRow:
    picture = np.zeros((32, 32, 3), np.uint8)
    annotated = np.zeros((32, 32), bool)
    annotated[8:24, 8:24] = True
    predicted = np.zeros((32, 32), bool)
    predicted[8:24, 16:32] = True
    return GalleryRow(
        sample_id="a/../b <i>",
        edit_type="Delete Object",
        pick="best",
        source_prompt="a <script>alert('x')</script> & a cat",
        target_prompt='a dog" onload="alert(1)',
        source=picture,
        annotated=annotated,
        target=None,
        maps={"ours": np.eye(8)},
        levels={"ours": [0.0, 0.5]},
        masks={"ours": predicted},
        cut={"ours": 1},
        dice={"ours": [0.25, 0.5]},
        edits={"none": picture, "ours": picture + np.uint8(255)},
        scores={"ours": {"clip_edited": 20.5}},
    )


BOXES = CandidateBoxes(
    points=torch.tensor([[0.25, 0.5], [0.75, 0.5]]),
    boxes=torch.tensor(
        [
            [[0.125, 0.25, 0.375, 0.75], [0.0, 0.0, 0.5, 1.0]],
            [[0.625, 0.25, 0.875, 0.75], [0.5, 0.0, 1.0, 1.0]],
        ]
    ),
    values=torch.tensor([[1.5, 1.25], [0.75, 1.0]]),
    best=torch.tensor([1, 0]),
    kept=2,
    by="loss",
)
"""Two points with two boxes each; the first box of the second point is kept."""


HOSTILE = """<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>"""
HOSTILE += '<!-- \u2028 & "quotes"'


@pytest.fixture(scope="session")
def rows(segmentation, editing) -> list[GalleryRow]:
    """The 24 samples of the scores: random maps, one hostile, one without a map of ``signed``."""
    draw = np.random.default_rng(3)
    dice = segmentation.set_index(["method", "sample", "threshold"])["dice"].sort_index()
    annotated = np.zeros((64, 48), bool)
    annotated[16:40, 12:36] = True
    found = []
    for sample, edit_type in segmentation.groupby("sample")["edit_type"].first().items():
        number = int(str(sample)[1:])
        maps = {"ours": draw.random((16, 16)), "signed": draw.random((32, 24))}
        if number == 2:
            del maps["signed"]
        edits = {name: draw.integers(0, 255, (64, 48, 3), np.uint8) for name in ("none", "ours")}
        found.append(
            GalleryRow(
                sample_id=str(sample),
                edit_type=str(edit_type),
                pick="",
                source_prompt=f"a red circle, number {number}",
                target_prompt=HOSTILE if number == 1 else f"a blue circle, number {number}",
                source=draw.integers(0, 255, (64, 48, 3), np.uint8),
                annotated=annotated,
                target=None,
                maps=maps,
                levels={"ours": SWEEPS["ours"], "signed": SWEEPS["signed"] / 5 - 0.013},
                masks={},
                cut={},
                dice={name: dice.loc[name, sample].tolist() for name in maps},
                edits=edits,
                scores={"ours": {"clip_edited": 20.5, "lpips_unedit_part": 0.0123}},
                candidates={"ours": (BOXES, edits["ours"])} if number == 3 else {},
            )
        )
    return found


@pytest.fixture(scope="session")
def report(tmp_path_factory, segmentation, editing, columns, rows) -> Path:
    """A page with everything on it."""
    folder = tmp_path_factory.mktemp("report")
    axes = editing, columns, "lpips_unedit_part", "clip_edited"
    drawn = []
    for stem, figure in {"pareto": pareto_figure(*axes), "dice": dice_figure(segmentation)}.items():
        canvas = draw(figure)
        files = {path.suffix[1:]: path.name for path in save(canvas, folder, stem)}
        picture = inlined(svg(canvas), figure, stem, PAGE_COLOURS)
        drawn.append(Drawn("Trade-off & more", "A caption", picture, files))
    best = best_thresholds(segmentation)
    mean = segmentation.groupby(["method", "threshold"])["dice"].mean()
    page, *_ = write_html(
        folder,
        "Masks <1>",
        tables=[dice_table(segmentation), editing_table(editing, columns, {"ours": 0.5})],
        comparisons=[dice_table(segmentation)],
        figures=drawn,
        sweeps=[
            Sweep(
                method,
                SWEEPS[method].tolist(),
                int(np.argmin(np.abs(SWEEPS[method] - best[method]))),
                0.5,
                mean.loc[method].tolist(),
            )
            for method in ("ours", "signed")
        ],
        columns=columns,
        gallery=iter(rows),
        provenance={
            "command": "run <b>x</b>",
            "versions": {"torch": "2"},
            "argv": ["a", "b"],
            "computed": {},
        },
        summary=["What it is & does not say."],
        edit_types=EDIT_TYPES,
    )
    return page
