"""The U-Net rows that the needs of many methods and samples add up to, and the one call for all.

Equal rows are computed once, and record what any of the needs asks of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.ddpm import add_noise, start_timestep, timestep_of
from piebench_masks.diffusion.recorder import Recorder, Track
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.needs import Condition, Needs
from piebench_masks.masks.record import MapError, Recording
from piebench_masks.masks.texts import Encoded, SceneTexts

SampleMode = Literal["argmax", "sample"]


class Row(NamedTuple):
    """One row of the U-Net call."""

    sample: int
    draw: int
    timestep: int
    text: Encoded


@dataclass(frozen=True)
class Cell:
    """The rows of one condition at one level, one for each draw, and what is recorded of them.

    tracks: by the recordings' names; weights: [L], of the changed words among the text positions.
    """

    condition: Condition
    level: float | None
    rows: list[Row]
    noise: bool
    tracks: dict[str, frozenset[Track]]
    weights: Tensor
    tokens: tuple[int, ...]


def cells(
    needs: Needs, texts: SceneTexts, sample: int, *, num_repeat: int, strength: float
) -> list[Cell]:
    """The cells of one method's or post-processor's needs for one sample. Raises PromptError."""
    return [
        Cell(
            condition,
            level,
            [
                Row(sample, draw, _timestep(level, strength), texts.encoded(condition))
                for draw in range(part.draws or num_repeat)
            ],
            part.noise,
            _tracks(part, texts),
            texts.weights(condition)
            if part.attention or part.cross_attention
            else torch.zeros(texts.max_tokens),
            texts.tokens(condition),
        )
        for part in needs.parts
        for condition in part.conditions
        for level in part.levels
    ]


def _timestep(level: float | None, strength: float) -> int:
    return start_timestep(strength) if level is None else timestep_of(level)


def _tracks(needs: Needs, texts: SceneTexts) -> dict[str, frozenset[Track]]:
    tracks: dict[str, frozenset[Track]] = {}
    if needs.attention:
        tracks["attention"] = frozenset({Track("changed", "map")})
    for text in needs.texts if needs.cross_attention else ():
        other_text = None if text == "own" else texts.encoded(text)
        tracks[f"attention to {text}"] = frozenset(
            Track("cross", grid, needs.heads, needs.words, text=other_text)
            for grid in needs.cross_attention
        )
    if needs.self_attention:
        tracks["self_attention"] = frozenset(
            Track("self", grid, layers=needs.layers) for grid in needs.self_attention
        )
    if needs.queries:
        tracks["queries"] = frozenset(Track("queries", grid) for grid in needs.queries)
    return tracks


class Answers:
    """The model's answers for all rows, from one batched U-Net call; no call without rows."""

    def __init__(
        self,
        backbone: Backbone | None,
        posterior: Posterior | None,
        request: Sequence[Cell],
        *,
        sample_mode: SampleMode,
        seed: int,
        noise_dtype: torch.dtype,
    ) -> None:
        weights: dict[Row, Tensor] = {}
        tracks: dict[Row, frozenset[Track]] = {}
        for cell in request:
            for row in cell.rows:
                weights[row] = torch.maximum(cell.weights, weights.get(row, cell.weights))
                tracks[row] = tracks.get(row, frozenset()).union(*cell.tracks.values())
        self._index = {row: i for i, row in enumerate(weights)}
        if not request:
            return
        if backbone is None or posterior is None:
            raise BenchmarkError("a method needs the model: give soft_maps backbone and posterior")
        rows = list(self._index)
        self._levels = {t: backbone.level(t) for t in {row.timestep for row in rows}}
        x0, noise = _draws(
            posterior,
            1 + max(row.draw for row in rows),
            sample_mode=sample_mode,
            seed=seed,
            noise_dtype=noise_dtype,
        )
        levels = [self._levels[row.timestep] for row in rows]
        latents = torch.stack(
            [
                add_noise(x0[row.sample], noise[row.draw], level)
                for row, level in zip(rows, levels, strict=True)
            ]
        )
        other_texts = [
            track.text for row in rows for track in tracks[row] if track.text is not None
        ]
        distinct = dict.fromkeys([row.text for row in rows] + other_texts)
        texts = {text: i for i, text in enumerate(distinct)}
        conditioning = backbone.encode_prompts(*zip(*texts, strict=True))
        self._recorder = Recorder(
            [tracks[row] for row in rows],
            torch.stack(list(weights.values())).to(backbone.device),
            backbone.map_size,
            {text: conditioning.hidden[texts[text]] for text in other_texts},
        )
        self._noise = backbone.predict_noise(
            latents,
            torch.tensor([row.timestep for row in rows]),
            conditioning[[texts[row.text] for row in rows]],
            self._recorder,
        ).cpu()
        self._latents = latents.cpu()

    def __len__(self) -> int:
        """How many rows there were."""
        return len(self._index)

    def recordings(self, request: Sequence[Cell]) -> dict[tuple[str, float | None], Recording]:
        """The recordings that these cells ask for, without those of other cells."""
        recordings: dict[tuple[str, float | None], Recording] = {}
        for cell in request:
            key = cell.condition, cell.level
            arrays = dict(recordings[key].arrays) if key in recordings else {}
            recordings[key] = self._recording(cell, arrays)
        return recordings

    def _recording(self, cell: Cell, arrays: dict[str, Any]) -> Recording:
        index = [self._index[row] for row in cell.rows]
        if cell.noise:
            arrays["noise"] = self._noise[index]
        for name, tracks in cell.tracks.items():
            by_grid: dict[int, Tensor] = {}
            for track in tracks:
                draws = [self._recorder.recorded(i, track) for i in index]
                if not draws[0]:
                    raise MapError(
                        f"the model has no layer of grid {track.grid} for {name}; its grids are "
                        f"{self._recorder.grids}, and model.map_size must be one of them"
                    )
                by_grid |= {grid: torch.stack([d[grid] for d in draws]) for grid in draws[0]}
            arrays[name] = by_grid if name != "attention" else next(iter(by_grid.values()))
        for kind in ("cross", "self"):
            grids = self._recorder.grids
            arrays[f"{kind} layers"] = {grid: self._recorder.layers(kind, grid) for grid in grids}
        changed = tuple(cell.weights.nonzero()[:, 0].tolist())
        name = f"condition {cell.condition!r}"
        level = self._levels[cell.rows[0].timestep]
        return Recording(name, self._latents[index], level, cell.tokens, changed, arrays)


def _draws(
    posterior: Posterior,
    draws: int,
    *,
    sample_mode: SampleMode,
    seed: int,
    noise_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """x0 [B, C, h, w] and noise [draws, C, h, w]. One CPU generator: first the posterior's draw.

    Every sample gets the draws that it would get alone, as in the reference, whose batch is one;
    every level gets the same noise.
    """
    generator = torch.Generator().manual_seed(seed)
    device, shape = posterior.mean.device, posterior.mean.shape[1:]
    x0 = posterior.mean
    if sample_mode == "sample":
        x0 = x0 + posterior.std * torch.randn(shape, generator=generator).to(device)
    noise = torch.randn(draws, *shape, generator=generator, dtype=noise_dtype).float().to(device)
    return x0, noise
