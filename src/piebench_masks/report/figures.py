"""What all figures share (style, one look per method, files of stable bytes) and the Dice curves.

Draws finished numbers; must not know stores, stages or models.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from piebench_masks.report.tables import BASELINES, best_thresholds, order_methods

INK, QUIET, GRID = "#22262b", "#7a828c", "#e6e8eb"
_LOOKS = tuple(
    zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), "osD^vP", strict=True)
)
"""Okabe and Ito's colours, told apart by colour-blind readers, each with a marker of its own."""
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.color": GRID,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 160,
    "svg.hashsalt": "piebench-masks",
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}
house_style = mpl.rc_context(_STYLE)
"""Decorator: everything that draws or saves a figure runs in the house style."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that belongs to no pyplot state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def method_looks(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of every learned method, by its place in the given order."""
    learned = [method for method in order_methods(methods) if method not in BASELINES]
    looks = (_LOOKS[place % len(_LOOKS)] for place in range(len(learned)))
    return {
        method: {"color": colour, "marker": marker}
        for method, (colour, marker) in zip(learned, looks, strict=True)
    }


@house_style
def save_figure(figure: Figure, folder: Path, stem: str) -> dict[str, Path]:
    """Write ``stem``.png, .svg and .pdf; equal figures give equal bytes. Paths by file type."""
    folder.mkdir(parents=True, exist_ok=True)
    stamps = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    paths = {kind: folder / f"{stem}.{kind}" for kind in stamps}
    for kind, path in paths.items():
        figure.savefig(path, metadata=stamps[kind])
    return paths


@house_style
def plot_dice(segmentation: pd.DataFrame) -> Figure:
    """Mean Dice over the threshold, one curve a method, its best threshold ringed.

    Methods with sweeps of different range get panels of their own; trivial baselines are dashed.
    """
    mean = segmentation.groupby(["method", "threshold"])["dice"].mean()
    looks, best = method_looks(segmentation["method"]), best_thresholds(segmentation)
    ranges = {method: float(mean.loc[method].index.max()) for method in looks}
    panels = sorted(set(ranges.values())) or [1.0]
    figure = new_figure(1.2 + 4.2 * len(panels), 4.2)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, end in zip(all_axes, panels, strict=True):
        for method in (method for method in looks if ranges[method] == end):
            curve, at = mean.loc[method], best[method]
            label = f"{method}: {curve.max():.2f} at {at:.3g}"
            axes.plot(curve.index, curve, markersize=3.5, label=label, **looks[method])
            ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none"}
            axes.plot(at, curve.max(), color=looks[method]["color"], **ring)
        levels = mean[mean.index.isin(BASELINES, level="method")].groupby(level="method").max()
        for place, (baseline, level) in enumerate(levels.sort_values().items()):
            axes.axhline(level, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            # Staggered, because the levels of trivial masks often nearly coincide.
            text = {"color": QUIET, "fontsize": 8, "va": "center", "ha": "right", "zorder": 1.5}
            x = end * (1 - 0.13 * (place % 3))
            axes.text(x, level, str(baseline), **text, bbox={"color": "white", "pad": 0.8})
        axes.set(xlabel="threshold", xlim=(0, end * 1.02), ylim=(0, 1.02))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.03, 1), borderpad=0)
    all_axes[0].set_ylabel("mean Dice ↑")
    return figure
