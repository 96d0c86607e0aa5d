"""The reference's scripts in order: maps, edits and scores of some samples, through files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from reference_flow import Entry, ReferenceFlow
from reference_scores import Scorers, segmentation_scores

UNMASKED = "none"


@dataclass(frozen=True)
class ReferenceRun:
    """All that is made of ``samples`` lies in ``folder``: maps .npy, edits .png, scores .json.

    cuts: each method's thresholds. size, border: of the annotations, as in ``decode_annotation``.
    unmasked: whether every sample is also edited without a mask.
    """

    flow: ReferenceFlow
    scorers: Scorers
    samples: Sequence[Entry]
    cuts: Mapping[str, Sequence[float]]
    size: int
    border: int
    folder: Path
    unmasked: bool = False

    def maps(self) -> None:
        for entry in self.samples:
            for method in self.cuts:
                full_map = self.flow.full_map(entry, method, (self.size, self.size))
                np.save(self.map_file(entry, method), full_map.numpy())

    def edits(self) -> None:
        for entry, method, threshold in self.edited():
            if method == UNMASKED:
                full_map = torch.ones(self.size, self.size)
            else:
                full_map = torch.from_numpy(np.load(self.map_file(entry, method)))
            picture = self.flow.paint(entry, full_map, method, threshold)
            picture.save(self.edit_file(entry, method, threshold))

    def segmentation_scores(self) -> None:
        self._write(
            "segmentation.json",
            {
                self.edit_file(*variant).stem: segmentation_scores(
                    variant[0],
                    self.map_file(*variant[:2]),
                    *variant[1:],
                    size=self.size,
                    border=self.border,
                )
                for variant in self.variants()
            },
        )

    def editing_scores(self) -> None:
        found = {}
        for variant in self.edited():
            edit = self.edit_file(*variant)
            found[edit.stem] = self.scorers(variant[0], edit, size=self.size, border=self.border)
        self._write("editing.json", found)

    def variants(self) -> Iterator[tuple[Entry, str, float]]:
        for entry in self.samples:
            for method, thresholds in self.cuts.items():
                for threshold in thresholds:
                    yield entry, method, threshold

    def edited(self) -> Iterator[tuple[Entry, str, float]]:
        yield from self.variants()
        yield from ((entry, UNMASKED, 0.0) for entry in self.samples if self.unmasked)

    def map_file(self, entry: Entry, method: str) -> Path:
        return self.folder / f"{entry.id}-{method}.npy"

    def edit_file(self, entry: Entry, method: str, threshold: float) -> Path:
        return self.folder / f"{entry.id}-{method}-{threshold}.png"

    def _write(self, name: str, scores: Mapping[str, Mapping[str, float | None]]) -> None:
        (self.folder / name).write_text(json.dumps(scores))
