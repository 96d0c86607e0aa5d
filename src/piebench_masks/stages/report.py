"""Stage 5: all that was scored, as tables, figures, a gallery, a page and a tracker's run."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure as Drawn
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from piebench_masks.console import print_table, say
from piebench_masks.data.sample import Sample
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.binarize import rescale
from piebench_masks.masks.method import MapMethod
from piebench_masks.metrics.column import Column
from piebench_masks.provenance import provenance
from piebench_masks.report.charts import Chart, dice_charts, pareto_chart
from piebench_masks.report.figures import plot_dice, save_figure
from piebench_masks.report.gallery import GalleryRow, contact_sheet, select_samples
from piebench_masks.report.html import Figure, Sweep, write_html
from piebench_masks.report.names import SECONDARY
from piebench_masks.report.pareto import plot_pareto
from piebench_masks.report.published import Setting, published_tables
from piebench_masks.report.table import Table
from piebench_masks.report.tables import (
    BASELINES,
    at_thresholds,
    best_thresholds,
    cost_table,
    dice_table,
    editing_table,
    editor_table,
    headlines,
    method_table,
    threshold_table,
)
from piebench_masks.run import Run, made
from piebench_masks.runner import Outcome
from piebench_masks.settings import UNMASKED
from piebench_masks.stages.edit import edit_folder, has_edit
from piebench_masks.stages.masks import map_folder, read_map
from piebench_masks.stages.parse import parsed_folder
from piebench_masks.stages.score import (
    edit_case,
    edit_score_folder,
    edit_scores,
    mask_scores,
    measured_costs,
    read_columns,
    read_edit,
    scored_thresholds,
)
from piebench_masks.stages.variants import variants
from piebench_masks.store import artifact_key
from piebench_masks.tracking.finished import native_plots, result_files, summary_metrics
from piebench_masks.tracking.tracker import Dataset, FinishedRun, Plot

PARETO = "Keeping the background against doing the edit"
FRONT = (
    "Rings and the grey line are the Pareto front: what no other point beats in both. Trivial "
    "masks and the oracle, which edits under the annotated mask, do not rank."
)
ONE_EDITOR = "The same of one editor, with the trivial masks."
MINIATURE = (
    "These numbers rank nothing but this miniature: which method wins on shapes follows from how "
    "its small model was trained, and says nothing about other models."
)
DICE = (
    "Agreement with the annotated masks over the threshold",
    "Mean Dice over all samples, the best threshold ringed. Dashed: masks made without a model "
    "and, as the best that the map's grid allows, the oracle.",
)


def report(run: Run, samples: Sequence[Sample], computed: Outcome, console: Console) -> None:
    """Write all of ``results/<name>`` from the stored scores, publish it, and say where it is."""
    failures = computed.failures
    folder = run.results
    folder.mkdir(parents=True, exist_ok=True)
    masks, edits, columns = mask_scores(run, samples), edit_scores(run, samples), read_columns(run)
    costs = measured_costs(run, samples, edits)
    own = {name: method.threshold for name, method in run.methods.items()}
    best = own | (best_thresholds(masks) if len(masks) else {})
    cuts = _edited_thresholds(masks, edits, own)
    tables = _tables(masks, edits, costs, columns, own, cuts)
    setting = Setting(
        run.cfg.dataset.name,
        run.cfg.model.name if run.editors else None,
        Counter(sample.edit_type for sample in samples),
        run.cfg.compat,
    )
    beside = published_tables(masks, edits, columns, cuts, setting)
    figures = _figures(folder, masks, edits, columns)
    pictures = {
        stem: {k: folder / name for k, name in f.files.items()} for stem, f in figures.items()
    }
    rows = _Rows(run, masks, edits, best, cuts)
    gallery = _picked(run, samples, masks, best, rows)
    how = _provenance(run, samples, computed)

    masks.to_parquet(folder / "mask_scores.parquet", index=False)
    edits.to_parquet(folder / "edit_scores.parquet", index=False)
    _write(folder / "failures.jsonl", "".join(f"{json.dumps(asdict(f))}\n" for f in failures))
    _write(folder / "config.yaml", run.cfg.yaml())
    _write(folder / "provenance.json", json.dumps(how, indent=2))
    for stem, table in (beside | tables).items():
        table.write(folder / "tables", stem)
    if gallery:
        contact_sheet(gallery).save(folder / "gallery.png")
    page = write_html(
        folder,
        f"Edits made elsewhere, on {run.cfg.dataset.name}"
        if not run.editors
        else f"Masks of {run.cfg.model.name} on {run.cfg.dataset.name}",
        tables=list(tables.values())[::-1],  # a page is read from its top, a terminal from its end
        comparisons=list(beside.values()),
        figures=list(figures.values()),
        sweeps=rows.sweeps,
        columns=rows.columns(columns),
        gallery=rows.of((sample, "") for sample in samples),
        provenance=how,
        summary=_summary(run, len(samples), masks, edits, best),
    )
    tables = beside | tables
    plots = native_plots(masks, edits, columns)
    seen_at = _publish(run, samples, tables, plots, gallery, pictures, how)
    places = {"report": page, "tables": folder / "tables", "gallery": folder / "gallery.png"}
    places |= {stem: paths["png"] for stem, paths in pictures.items()}
    _say_results(run, tables, beside.keys(), places | {"tracker": seen_at}, console)
    if failures:
        console.print(f"[red]{len(failures)} items failed[/]: {folder / 'failures.jsonl'}")


def _say_results(
    run: Run,
    tables: Mapping[str, Table],
    beside: Set[str],
    places: Mapping[str, Path | str | None],
    console: Console,
) -> None:
    """All tables and where the report lies; a run of a sweep, which has its own, is one line."""
    void = {stem for stem in beside if tables[stem].frame["difference"].isna().all()}
    if sweep := run.cfg.sweep:
        values = sweep.values
        rows = tables["mask_methods"].frame.to_dict("records") if "mask_methods" in tables else []
        dice = {row["method"]: row["dice"] for row in rows if row["method"] not in BASELINES}
        settings = ", ".join(f"{key}={value}" for key, value in values.items())
        found = ", ".join(f"{method} {value:.3f}" for method, value in dice.items())
        words = f"{run.cfg.name}: {settings}{f'; Dice {found}' if found else ''}"
        say(console, "run", escape(words), name=run.cfg.name, values=values, dice=dice)
    else:
        if void:
            words = "Not comparable with the published numbers: the report says why"
            say(console, "void", words, tables=sorted(void))
        for stem, table in tables.items():
            if stem not in void:
                print_table(console, table.to_rich(), SECONDARY)
    for what, place in places.items():
        if place is not None:
            shown = what in ("report", "tracker") and not sweep
            line = f"{what}: {escape(str(place))}" if shown else None
            say(console, "written", line, what=what, place=place)


def _tables(
    masks: pd.DataFrame,
    edits: pd.DataFrame,
    costs: pd.DataFrame,
    columns: Mapping[str, Column],
    own: Mapping[str, float],
    cuts: Mapping[str, float],
) -> dict[str, Table]:
    """By file name; a table without scores is left out. The Dice table is the last."""
    tables = {}
    if len(edits):
        how = "Thresholds: the best mean Dice on these very samples among those edited under"
        how += " (where there is none, the nearest to the method's own)."
        tables["editing"] = editing_table(edits, columns, cuts).noted(how)
        if len(costs):
            tables["cost"] = cost_table(costs)
        if edits["editor"].nunique() > 1:
            tables["editors"] = editor_table(edits, columns, cuts).noted(how)
    if len(masks):
        tables["thresholds"] = threshold_table(masks, own)
        tables["mask_methods"] = method_table(masks)
        tables["dice_by_edit_type"] = dice_table(masks)
    return tables


def _summary(
    run: Run, samples: int, masks: pd.DataFrame, edits: pd.DataFrame, best: Mapping[str, float]
) -> list[str]:
    """What was run, which method's masks are best, and what that does not say."""
    learned = [name for name in run.methods if name not in BASELINES]
    editors = ", ".join(edits["editor"].unique()) if len(edits) else ""
    what = [f"the masks of {', '.join(learned)}"] if learned else []
    what += [f"edits by {editors}{' under these masks' if learned else ''}"] if editors else []
    sentences = [f"This run scores {' and '.join(what)} on {samples} samples."] if what else []
    scored = masks[masks["method"].isin(learned)] if len(masks) else masks
    if len(scored):
        dice = at_thresholds(scored, best).groupby("method")["dice"].mean()
        first, *others = dice.sort_values(ascending=False, kind="stable").items()
        then = ", ".join(f"{name} {value:.2f}" for name, value in others)
        sentences.append(
            f"Closest to the annotated masks is {first[0]}, with a mean Dice of {first[1]:.2f} at "
            f"threshold {best[str(first[0])]:.3g}{f' (then {then})' if then else ''}."
        )
    return sentences + [MINIATURE] * (run.cfg.dataset.name == "shapes")


def _edited_thresholds(
    masks: pd.DataFrame, edits: pd.DataFrame, own: Mapping[str, float]
) -> dict[str, float]:
    """Of the thresholds that were edited under, each method's one of the highest mean Dice.

    Where none of them was scored, the one nearest to the method's own threshold.
    """
    edited = edits[["method", "threshold"]].dropna().drop_duplicates()
    cuts = {method: edited.loc[edited["method"] == method, "threshold"] for method in own}
    near = {m: min(of, key=lambda cut: abs(cut - own[m])) for m, of in cuts.items() if len(of)}
    scored = masks.merge(edited, on=["method", "threshold"]) if len(masks) else masks
    return near | (best_thresholds(scored) if len(scored) else {})


def _figures(
    folder: Path, masks: pd.DataFrame, edits: pd.DataFrame, columns: Mapping[str, Column]
) -> dict[str, Figure]:
    """By name; of several editors that were given masks each has a Pareto plot of its own too."""
    figures = {}

    def add(stem: str, title: str, caption: str, charts: list[Chart], drawn: Drawn) -> None:
        files = {kind: path.name for kind, path in save_figure(drawn, folder, stem).items()}
        figures[stem] = Figure(title, caption, charts, files)

    axes = headlines(edits, columns)[:2]
    if [name.partition("_")[0] for name in axes] == ["lpips", "clip"]:
        whose = {"pareto": ("", edits)}
        masked = edits[~edits["method"].isin(("none", "predicted", "oracle"))]["editor"].unique()
        if edits["editor"].nunique() > 1:
            for number, editor in enumerate(masked, 1):
                stem = "_".join(("pareto", str(number), *re.findall(r"\w+", editor, re.ASCII)))
                whose[stem] = (f": {editor}", edits[edits["editor"] == editor])
        for stem, (which, rows) in whose.items():
            drawn = plot_pareto(rows, columns, axes[0], axes[1])
            charts = [pareto_chart(rows, columns, axes[0], axes[1])]
            swept = rows.groupby(["editor", "method"])["threshold"].nunique().max() > 1
            what = "One curve a method, one point a threshold." if swept else "One point a method."
            caption = ONE_EDITOR if which else f"{what} {FRONT}"
            add(stem, PARETO + which, caption, charts, drawn)
    if len(masks):
        add("dice", *DICE, dice_charts(masks), plot_dice(masks))
    return figures


def _picked(
    run: Run,
    samples: Sequence[Sample],
    masks: pd.DataFrame,
    best: Mapping[str, float],
    rows: "_Rows",
) -> list[GalleryRow]:
    """Best, median and worst sample of each edit type by the Dice of the first method.

    Without annotated masks, the first samples of each type.
    """
    by_id = {sample.id: sample for sample in samples}
    if len(masks):
        picked = select_samples(masks, best, next(iter(run.methods)))
    else:
        listed = [(s.id, s.edit_type, "first") for s in samples]
        picked = pd.DataFrame(listed, columns=["sample", "edit_type", "pick"])
        picked = picked.groupby("edit_type").head(3)
    chosen = zip(picked["sample"], picked["pick"], strict=True)
    return list(rows.of((by_id[sample_id], pick) for sample_id, pick in chosen))


class _Rows:
    """Gallery rows of single samples: stored maps, edits and scores, read as they are asked for.

    Masks are at each method's best threshold, edits at the best that was edited under. Trivial
    methods are left out but for the edit under the oracle's mask.
    """

    def __init__(
        self,
        run: Run,
        masks: pd.DataFrame,
        edits: pd.DataFrame,
        best: Mapping[str, float],
        edited: Mapping[str, float],
    ) -> None:
        self.run, self.best, self.edited = run, best, edited
        self.methods = {n: m for n, m in run.methods.items() if n not in BASELINES}
        self.dice = {
            name: masks[masks["method"] == name]
            .pivot(index="sample", columns="threshold", values="dice")
            .reindex(columns=self.cuts(method))
            for name, method in self.methods.items()
            if len(masks)
        }
        shown = at_thresholds(edits, edited) if len(edits) else edits
        self.scores: dict[str, dict[str, dict[str, float]]] = {}
        for values in shown.to_dict("records"):
            of_sample = self.scores.setdefault(values["sample"], {})
            label = self.label(values["editor"], values["method"])
            of_sample[label] = {str(key): value for key, value in values.items()}

    def label(self, editor: str, method: str) -> str:
        """What an edit is called: by its mask, its editor, or both, as far as they differ."""
        if editor not in self.run.editors:
            return editor
        return method if len(self.run.section("editor")) == 1 else f"{editor}, {method}"

    def columns(self, known: Mapping[str, Column]) -> dict[str, Column]:
        """The headline metrics that a shown edit has a value of."""
        edits = [edit for of in self.scores.values() for edit in of.values()]
        return {
            name: column
            for name, column in known.items()
            if column.headline and any(pd.notna(edit.get(name)) for edit in edits)
        }

    def cuts(self, method: MapMethod) -> list[float]:
        return sorted({*scored_thresholds(self.run, method), self.best[method.name]})

    @property
    def sweeps(self) -> list[Sweep]:
        return [
            Sweep(
                method=name,
                thresholds=self.cuts(method),
                chosen=self.cuts(method).index(self.best[name]),
                edited=self.edited.get(name),
                dice=self.dice[name].mean().tolist() if name in self.dice else (),
            )
            for name, method in self.methods.items()
        ]

    def of(self, chosen: Iterable[tuple[Sample, str]]) -> Iterator[GalleryRow]:
        """The rows of samples and why they were picked; without those whose files do not load,
        which the stages before have reported.
        """
        for sample, pick in chosen:
            with suppress(BenchmarkError):
                yield self.row(sample, pick)

    def row(self, sample: Sample, pick: str = "") -> GalleryRow:
        run, case = self.run, edit_case(self.run, sample)
        size = (case.source.shape[0], case.source.shape[1])
        maps, levels, cut, masks, dice = {}, {}, {}, {}, {}
        for name, method in self.methods.items():
            soft_map = read_map(run, method, sample)
            if soft_map is None:
                continue
            cuts = self.cuts(method)
            maps[name] = rescale(soft_map).numpy()
            levels[name] = _levels(method, soft_map, cuts, size, run.cfg.compat)
            cut[name] = cuts.index(self.best[name])
            masks[name] = method.binarizer.masks(soft_map, [self.best[name]], size, run.cfg.compat)[
                0
            ].numpy()
            if name in self.dice and sample.id in self.dice[name].index:
                dice[name] = list(self.dice[name].loc[sample.id])
        edits = {}
        for variant in (v for name in run.section("editor") for v in variants(run, sample, name)):
            mask, at = variant.method, variant.threshold
            wanted = mask == UNMASKED or variant.file is not None
            wanted |= mask in ("oracle", *maps) and at == self.edited.get(mask)
            if wanted and has_edit(run, sample, variant):
                label = self.label(variant.editor, mask)
                edits[label] = read_edit(run, sample, variant, case.source)
        scores = self.scores.get(sample.id, {})
        return GalleryRow(
            sample_id=sample.id,
            edit_type=sample.edit_type,
            pick=pick,
            source_prompt=sample.source_prompt,
            target_prompt=sample.target_prompt,
            source=case.source,
            annotated=case.mask,
            target=case.target,
            maps=maps,
            levels=levels,
            masks=masks,
            cut=cut,
            dice=dice,
            edits=edits,
            scores={name: scores[name] for name in edits if name in scores},
        )


def _levels(
    method: MapMethod,
    soft_map: Tensor,
    cuts: Sequence[float],
    size: tuple[int, int],
    compat: Compat,
) -> list[float]:
    """What the RESCALED and upsampled map must exceed at each threshold."""
    _, levels = method.binarizer.cut(soft_map, cuts, size, compat)
    if not method.binarizer.rescaled:
        low, high = soft_map.min().double(), soft_map.max().double()
        levels = (levels.double() - low) / (high - low + 1e-7)
    return levels.clamp(-1, 2).tolist()


def _provenance(run: Run, samples: Sequence[Sample], computed: Outcome) -> dict[str, Any]:
    """Versions, commit, command, model and artifact keys: where every number comes from."""
    keys = {f"maps of {name}": map_folder(run, m).key for name, m in run.methods.items()}
    model = "none: edits made elsewhere"
    if run.editors:
        keys |= {f"edits of {name}": edit_folder(run, name).key for name in run.editors}
        model = f"{run.cfg.model.name} ({run.model_source[1]})"
    scores = {f"scores of {n}": edit_score_folder(run, n).key for n in run.section("editor")}
    return provenance() | {
        "device": str(run.device),
        "executor": run.section("executor"),
        "threads": torch.get_num_threads(),
        "dataset": run.cfg.dataset.name,
        "samples": len(samples),
        "model": model,
        "compat": run.cfg.compat,
        "failed items": len(computed.failures),
        "computed": dict(computed.counts),
        "artifacts": keys | scores,
    }


def _publish(
    run: Run,
    samples: Sequence[Sample],
    tables: Mapping[str, Table],
    plots: Mapping[str, Plot],
    gallery: Sequence[GalleryRow],
    figures: Mapping[str, Mapping[str, Path]],
    how: Mapping[str, Any],
) -> str | None:
    folder, cfg = run.results, run.cfg
    frames = {stem: table.frame for stem, table in tables.items()}
    pictures = {stem: paths["png"] for stem, paths in figures.items()}
    if gallery:
        pictures["gallery"] = folder / "gallery.png"
    finished = FinishedRun(
        key=artifact_key({"name": cfg.name, "artifacts": how["artifacts"]}),
        folder=folder,
        name=cfg.name,
        group=cfg.sweep.name if cfg.sweep else cfg.dataset.name,
        tags=[cfg.dataset.name, cfg.model.name, cfg.compat],
        config={
            "config": run.plain,
            "versions": how["versions"],
            "artifacts": how["artifacts"],
        },
        commit=how["commit"],
        dataset=Dataset(
            cfg.dataset.name,
            artifact_key({"samples": sorted(sample.digest for sample in samples)}),
            len(samples),
            parsed_folder(run).path / "samples.parquet",
        ),
        summary=summary_metrics(frames),
        tables=frames,
        plots=plots,
        samples=gallery,
        figures=pictures,
        files=result_files(folder),
    )
    return made(cfg.tracker).publish(finished)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
