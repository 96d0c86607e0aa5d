"""Attention of chosen rows of one U-Net call, recorded only where it is asked for.

Knows layers, rows and text positions; must not know prompts or methods.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionControl, Layer, Projections

Grid = int | Literal["map", "finest", "every"]
"""Which layers, by the side of the grid of places that they attend from: a number, the model's
``map_size``, the largest that the model has, or all."""


@dataclass(frozen=True)
class Track:
    """One thing to record of a row, in the layers of ``grid``.

    kind: ``changed``: attention to weighted text positions, sum over layers: [g, g] (methods.md,
    section 2); ``cross``: attention to each text position, layer by layer: [layers, L, g, g];
    ``self``: attention between places, [N, N] or [layers, N, N], N = g * g; ``queries`` of the
    cross-attention layers: [layers, heads, N, d]. All are means over heads, in float32, but for
    the queries and for ``cross`` where heads is ``each``: [layers, heads, L, g, g].
    words: of ``cross``, whether only the weighted positions are recorded, in their order.
    layers: of ``self``, the mean over layers or each. text: of ``cross``, the name of the text that
    the row's queries are compared with, None for the row's own.
    """

    kind: Literal["changed", "cross", "self", "queries"]
    grid: Grid
    heads: Literal["mean", "each"] = "mean"
    words: Literal["each", "changed"] = "each"
    layers: Literal["mean", "each"] = "each"
    text: Hashable | None = None

    @property
    def is_sum(self) -> bool:
        """Whether one array is accumulated over layers, in place of one array a layer."""
        return self.kind == "changed" or (self.kind == "self" and self.layers == "mean")


class Recorder(AttentionControl):
    """Records the tracks of each of the B rows of one U-Net call.

    tracks: of each row; weights: [B, L], each row's weights of the text positions, for ``changed``;
    texts: hidden states [L, D] of other texts, by name. Reduced layer by layer and row by row: no
    attention tensor outlives its layer, and no row's values depend on which others are recorded.
    """

    def __init__(
        self,
        tracks: Sequence[frozenset[Track]],
        weights: Tensor,
        map_size: int,
        texts: Mapping[Hashable, Tensor] = MappingProxyType({}),
    ) -> None:
        self._tracks, self._weights, self._texts = tracks, weights.float(), texts
        self._map_size = map_size
        self._grids: dict[Layer, int] = {}
        self._arrays: list[dict[Track, dict[int, list[Tensor]]]] = [{} for _ in tracks]
        self._places: dict[int, int] = {}

    def select(self, rows: Tensor) -> None:
        """Start over with ``rows``, of which a padded block repeats the last."""
        super().select(rows)
        indices = rows.tolist()
        self._places = {row: indices.index(row) for row in indices if self._tracks[row]}
        for row in self._places:
            self._arrays[row] = {}

    def attend(self, layer: Layer, projections: Projections) -> None:
        grid = self._grids[layer] = layer.grid
        for row, place in self._places.items():
            for track in (tracks := self._active_tracks(row, layer, grid)):
                arrays = self._arrays[row].setdefault(track, {})
                if track.grid == "finest" and grid > max(arrays, default=grid):
                    arrays.clear()
                arrays.setdefault(grid, [])
            self._record(row, place, tracks, grid, projections)

    def recorded(self, row: int, track: Track) -> dict[int, Tensor]:
        """A row's arrays by grid, on the CPU; {} where no layer of the model has that grid."""
        arrays = self._arrays[row].get(track, {})
        if not track.is_sum:
            return {grid: torch.stack(layers).cpu() for grid, layers in arrays.items()}
        if track.kind == "changed":
            return {grid: total.cpu() for grid, (total,) in arrays.items()}
        return {
            grid: (total / len(self.layers("self", grid))).cpu()
            for grid, (total,) in arrays.items()
        }

    def layers(self, kind: Literal["cross", "self"], grid: int) -> tuple[Layer, ...]:
        """The layers of a grid, in the order of their arrays."""
        return tuple(
            layer for layer, side in self._grids.items() if side == grid and layer.kind == kind
        )

    @property
    def grids(self) -> list[int]:
        """The sides of all grids that there are, the finest first."""
        return sorted(set(self._grids.values()), reverse=True)

    def _active_tracks(self, row: int, layer: Layer, grid: int) -> list[Track]:
        def wants(track: Track) -> bool:
            if layer.is_cross == (track.kind == "self"):
                return False
            if track.grid == "finest":
                return grid >= max(self._arrays[row].get(track, {}), default=0)
            side = self._map_size if track.grid == "map" else track.grid
            return side in ("every", grid)

        return [track for track in self._tracks[row] if wants(track)]

    def _record(
        self, row: int, place: int, tracks: Sequence[Track], grid: int, projections: Projections
    ) -> None:
        @cache
        def probabilities(text: Hashable | None) -> Tensor:
            hidden = None if text is None else self._texts[text]
            return projections.row_probabilities(place, hidden)

        weights = self._weights[row]
        for track in tracks:
            if track.kind == "queries":
                array = projections.query[place].to(torch.float32, copy=True)
            elif track.kind == "self":
                array = probabilities(None)[0].mean(dim=0)
            elif track.kind == "changed":
                attention = probabilities(None)
                # Twice the same column: one alone is rounded otherwise than those of many rows.
                total = attention.sum(dim=1)[0] @ torch.stack([weights, weights], dim=1)
                array = (total[:, 0] / attention.shape[1]).unflatten(0, (grid, grid))
            else:
                attention = probabilities(track.text)[0].unflatten(1, (grid, grid)).movedim(-1, 1)
                attention = (
                    attention if track.words == "each" else attention[:, weights.nonzero()[:, 0]]
                )
                array = attention if track.heads == "each" else attention.mean(dim=0)
            arrays = self._arrays[row][track][grid]
            if track.is_sum:
                arrays[:] = [arrays[0] + array] if arrays else [array]
            else:
                arrays.append(array)
