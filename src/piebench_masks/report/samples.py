"""Single samples as the gallery shows them: stored maps, edits and scores, read when asked for.

Reads artifacts through the stages; computes nothing that they have not stored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np
import pandas as pd
from torch import Tensor

from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.binarize import BINARIZERS, Binarizer, rescale
from piebench_masks.masks.method import CandidateBoxes
from piebench_masks.metrics.column import Column
from piebench_masks.report.finished import Scores
from piebench_masks.report.gallery import GalleryRow, select_samples
from piebench_masks.report.html import Sweep
from piebench_masks.report.methods import BASELINES, at_thresholds
from piebench_masks.run import Run
from piebench_masks.settings import UNMASKED
from piebench_masks.stages.candidates import read_candidate, read_candidates
from piebench_masks.stages.cases import edit_case, resized
from piebench_masks.stages.edit import has_edit
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.maps import read_map
from piebench_masks.stages.score_edits import read_edit
from piebench_masks.stages.score_masks import scored_thresholds
from piebench_masks.stages.variants import Variant, Variants


class StoredSamples:
    """The samples of one run. Masks are at each method's best threshold, edits at the best that was
    edited under. Trivial methods are left out but for the edit under the oracle's mask.
    """

    def __init__(self, run: Run, samples: Sequence[Sample], scores: Scores) -> None:
        self.run, self.samples, self.scores = run, samples, scores
        self.best, self.edited = scores.best_thresholds, scores.edited_thresholds
        self.methods = {n: m for n, m in run.methods.items() if n not in BASELINES}

    def picked(self) -> list[GalleryRow]:
        """Best, median and worst sample of each edit type by the Dice of the first method.

        Without annotated masks, the first samples of each type.
        """
        masks = self.scores.masks
        if len(masks):
            picked = select_samples(masks, self.best, next(iter(self.run.methods)))
        else:
            listed = [(sample.id, sample.edit_type, "first") for sample in self.samples]
            picked = pd.DataFrame(listed, columns=["sample", "edit_type", "pick"])
            picked = picked.groupby("edit_type").head(3)
        by_id = {sample.id: sample for sample in self.samples}
        chosen = zip(picked["sample"], picked["pick"], strict=True)
        return list(self._rows((by_id[sample], pick) for sample, pick in chosen))

    def all(self) -> Iterator[GalleryRow]:
        return self._rows((sample, "") for sample in self.samples)

    def columns(self) -> dict[str, Column]:
        """The headline metrics that a shown edit has a value of."""
        edits = [edit for of_sample in self._edit_scores.values() for edit in of_sample.values()]
        return {
            name: column
            for name, column in self.scores.columns.items()
            if column.headline and any(pd.notna(edit.get(name)) for edit in edits)
        }

    def sweeps(self) -> list[Sweep]:
        return [
            Sweep(
                method=name,
                thresholds=self._thresholds(name),
                chosen=self._thresholds(name).index(self.best[name]),
                edited=self.edited.get(name),
                dice=self._dice[name].mean().tolist() if name in self._dice else (),
            )
            for name in self.methods
        ]

    def _rows(self, chosen: Iterable[tuple[Sample, str]]) -> Iterator[GalleryRow]:
        """The rows of samples and why they were picked; without those whose files do not load,
        which the stages before have reported.
        """
        for sample, pick in chosen:
            with suppress(BenchmarkError):
                yield self._row(sample, pick)

    def _row(self, sample: Sample, pick: str) -> GalleryRow:
        run = self.run
        source = load_image(image_file(run, sample.image_path))
        case = edit_case(run, sample, run.protocols[run.protocol].casing, source)
        size = (case.source.shape[0], case.source.shape[1])
        stored = {name: read_map(run, name, sample) for name in self.methods}
        soft_maps = {name: soft_map for name, soft_map in stored.items() if soft_map is not None}
        binarizers = {name: BINARIZERS[self.methods[name].binarizer] for name in soft_maps}
        compat = run.cfg.compat
        masks = {
            name: binarizers[name].masks(soft_map, [self.best[name]], size, compat)[0].numpy()
            for name, soft_map in soft_maps.items()
        }
        levels = {
            name: _levels(binarizers[name], soft_map, self._thresholds(name), size, compat)
            for name, soft_map in soft_maps.items()
        }
        edits = {
            self._label(variant): resized(read_edit(run, sample, variant, source.shape), size)
            for variant in self._shown_variants(sample, {*soft_maps, "oracle"})
        }
        scores = self._edit_scores.get(sample.id, {})
        return GalleryRow(
            sample_id=sample.id,
            edit_type=sample.edit_type,
            pick=pick,
            source_prompt=_shown(sample.caption or sample.source_prompt, sample.source_captions),
            target_prompt=_shown(sample.target_prompt, sample.target_captions),
            source=case.source,
            annotated=case.mask,
            target=case.target,
            maps={name: rescale(soft_map).numpy() for name, soft_map in soft_maps.items()},
            levels=levels,
            masks=masks,
            cut={name: self._thresholds(name).index(self.best[name]) for name in soft_maps},
            dice={
                name: list(map(float, self._dice[name].loc[sample.id].to_numpy()))
                for name in soft_maps
                if name in self._dice and sample.id in self._dice[name].index
            },
            edits=edits,
            scores={name: scores[name] for name in edits if name in scores},
            candidates=dict(self._candidates(sample)),
        )

    def _candidates(
        self, sample: Sample
    ) -> Iterator[tuple[str, tuple[CandidateBoxes, np.ndarray]]]:
        """By method the boxes that were painted, and the edit that is kept of them."""
        for name in self.run.painting:
            measured = read_candidates(self.run, name, sample)
            boxes = measured and self.run.methods[name].candidate_boxes(measured)
            if boxes:
                edit = read_candidate(self.run, name, sample, boxes.kept)
                if edit is not None:
                    yield name, (boxes, edit)

    def _shown_variants(self, sample: Sample, methods: set[str]) -> Iterator[Variant]:
        """The unmasked edits, those made elsewhere, and under each method's mask the best one."""
        for editor in self.run.section("editor"):
            for variant in self._variants.of(sample, editor):
                at_best = variant.threshold == self.edited.get(variant.method)
                masked = variant.method in methods and at_best
                if (variant.method == UNMASKED or variant.file is not None or masked) and has_edit(
                    self.run, sample, variant
                ):
                    yield variant

    @cached_property
    def _variants(self) -> Variants:
        return Variants(self.run)

    def _thresholds(self, method: str) -> list[float]:
        return sorted({*scored_thresholds(self.run, method), self.best[method]})

    @cached_property
    def _dice(self) -> dict[str, pd.DataFrame]:
        """By method the Dice of each sample (rows) at each threshold (columns)."""
        masks = self.scores.masks
        return {
            name: masks[masks["method"] == name]
            .pivot(index="sample", columns="threshold", values="dice")
            .reindex(columns=self._thresholds(name))
            for name in self.methods
            if len(masks)
        }

    @cached_property
    def _edit_scores(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """By sample and by what the edit is called its values by column."""
        edits = self.scores.edits
        shown = at_thresholds(edits, self.edited) if len(edits) else edits
        values: dict[str, dict[str, dict[str, float]]] = {}
        for row in shown.to_dict("records"):
            label = self._name(row["editor"], row["method"])
            values.setdefault(row["sample"], {})[label] = {str(k): v for k, v in row.items()}
        return values

    def _label(self, variant: Variant) -> str:
        return self._name(variant.editor, variant.method)

    def _name(self, editor: str, method: str) -> str:
        """What an edit is called: by its mask, its editor, or both, as far as they differ."""
        if editor not in self.run.editors:
            return editor
        return method if len(self.run.section("editor")) == 1 else f"{editor}, {method}"


def _shown(prompt: str, captions: Sequence[str]) -> str:
    """A prompt, and the first of the captions about its concept."""
    return f"{prompt} ({captions[0]}, and {len(captions) - 1} more)" if captions else prompt


def _levels(
    binarizer: Binarizer,
    soft_map: Tensor,
    thresholds: Sequence[float],
    size: tuple[int, int],
    compat: Compat,
) -> list[float]:
    """What the RESCALED and upsampled map must exceed at each threshold."""
    _, levels = binarizer.cut(soft_map, thresholds, size, compat)
    if not binarizer.rescaled:
        low, high = soft_map.min().double(), soft_map.max().double()
        levels = (levels.double() - low) / (high - low + 1e-7)
    exact: list[float] = np.clip(levels.numpy(), -1, 2).tolist()
    return exact
