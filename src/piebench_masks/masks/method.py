"""What a map method is, and the one batched U-Net call that serves all methods of many samples.

Maps are soft, on their native grid. Must not know files, configuration or any single method.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from piebench_masks.diffusion.attention import AttentionRecorder
from piebench_masks.diffusion.backbone import Ablation, Backbone, Posterior
from piebench_masks.diffusion.ddpm import add_noise, start_timestep
from piebench_masks.diffusion.level import Level
from piebench_masks.diffusion.prompt_diff import (
    Compat,
    PromptError,
    prompt_diff,
    token_weights,
)
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.binarize import Binarizer

SampleMode = Literal["argmax", "sample"]
Condition = Literal["source", "target", "probe", "probe_ablated"]


class MapError(BenchmarkError):
    """A sample that a method has no map for."""


@dataclass(frozen=True)
class Record:
    """All that a method may look at, for one sample.

    attention: for each condition [draws, g, g], the attention to the changed tokens;
    noise: for each condition [draws, 4, h, w], the predicted noise;
    annotation: bool [H, W], the annotated mask, None where there is none; seed: the sample's own.
    """

    attention: Mapping[Condition, Tensor]
    noise: Mapping[Condition, Tensor]
    annotation: Tensor | None
    map_size: int
    seed: int


@dataclass(frozen=True)
class MapMethod:
    """One way to say where an edit belongs.

    reads: what of the record ``soft_map`` looks at; conditions: the text conditions it needs a
    U-Net row for; draws: its number of noise draws, None for the run's ``num_repeat``.
    soft_map: record -> float32 [g, g]; binarizer: how thresholds make masks of it. sweep: first
    and last threshold and their number.
    """

    name: str
    reads: Literal["attention", "noise", "annotation", "nothing"]
    conditions: tuple[Condition, ...]
    soft_map: Callable[[Record], Tensor]
    binarizer: Binarizer
    threshold: float
    sweep: tuple[float, float, int]
    draws: int | None = None

    @property
    def thresholds(self) -> list[float]:
        """The sweep; 0.15, not 0.15000000000000002, so that it can be named."""
        return np.linspace(*self.sweep).round(6).tolist()


SoftMaps = dict[str, list[Tensor | BenchmarkError]]
"""For each method one map [g, g] a sample, or why there is none."""


@torch.inference_mode()
def soft_maps(
    backbone: Backbone,
    posterior: Posterior,
    source_prompts: Sequence[str],
    target_prompts: Sequence[str],
    methods: Sequence[MapMethod],
    *,
    strength: float = 0.5,
    num_repeat: int = 1,
    sample_mode: SampleMode = "argmax",
    seed: int = 8128,
    noise_dtype: torch.dtype = torch.float32,
    compat: Compat = "exact",
    annotations: Sequence[Tensor | None] | None = None,
    sample_ids: Sequence[str] | None = None,
) -> SoftMaps:
    """Every method's soft map of every sample, float32 [g, g] on the CPU (METHODS.md, section 2).

    posterior, prompts, annotations (bool [H, W]) and sample_ids (which seed the random baseline):
    one per sample. noise_dtype: float16 draws the noise stream of the reference's published masks.
    Where a method has no map for a sample, the error stands in its place and all others go on.
    Raises BenchmarkError for a strength outside the schedule.
    """
    timestep = start_timestep(strength)
    plans: dict[tuple[str, int], _Plan | BenchmarkError] = {}
    for i, (source, target) in enumerate(zip(source_prompts, target_prompts, strict=True)):
        for method in methods:
            draws = method.draws or num_repeat
            try:
                plans[method.name, i] = _plan(method, draws, backbone, i, source, target, compat)
            except PromptError as error:
                plans[method.name, i] = error

    weights: dict[_Row, Tensor] = {}
    for plan in plans.values():
        if isinstance(plan, _Plan):
            for row in chain(*plan.rows.values()):
                weights[row] = torch.maximum(plan.weights, weights.get(row, plan.weights))
    latents = _noised(
        posterior,
        backbone.level(timestep),
        draws=max(method.draws or num_repeat for method in methods),
        sample_mode=sample_mode,
        seed=seed,
        noise_dtype=noise_dtype,
    )
    noise, attention = _predict(backbone, latents, timestep, weights)

    def soft_map(method: MapMethod, i: int) -> Tensor | BenchmarkError:
        plan = plans[method.name, i]
        if isinstance(plan, BenchmarkError):
            return plan
        record = Record(
            attention={
                c: torch.stack([attention[r] for r in rows]) for c, rows in plan.rows.items()
            },
            noise={c: torch.stack([noise[r] for r in rows]) for c, rows in plan.rows.items()},
            annotation=annotations[i] if annotations else None,
            map_size=backbone.map_size,
            seed=_sample_seed(seed, sample_ids[i] if sample_ids else ""),
        )
        return _checked(method, record)

    return {m.name: [soft_map(m, i) for i in range(len(posterior))] for m in methods}


class _Row(NamedTuple):
    """One row of the U-Net call; methods that ask for equal rows share one."""

    sample: int
    draw: int
    prompt: str
    ablated: frozenset[int]


class _Plan(NamedTuple):
    """The rows that one method needs for one sample, and what their attention is weighted with."""

    rows: dict[Condition, list[_Row]]
    weights: Tensor


def _plan(
    method: MapMethod,
    draws: int,
    backbone: Backbone,
    sample: int,
    source: str,
    target: str,
    compat: Compat,
) -> _Plan:
    texts: dict[Condition, tuple[str, frozenset[int]]]
    texts = {"source": (source, frozenset()), "target": (target, frozenset())}
    weights = torch.zeros(backbone.max_tokens)
    if method.reads == "attention":
        diff = prompt_diff(
            backbone.tokenize(source),
            backbone.tokenize(target),
            max_tokens=backbone.max_tokens,
            compat=compat,
        )
        prompt, _ = texts["probe"] = texts[diff.probe]
        texts["probe_ablated"] = (prompt, frozenset(diff.ablated))
        weights = token_weights(diff, backbone.max_tokens)
    rows = {c: [_Row(sample, draw, *texts[c]) for draw in range(draws)] for c in method.conditions}
    return _Plan(rows, weights)


def _noised(
    posterior: Posterior,
    level: Level,
    *,
    draws: int,
    sample_mode: SampleMode,
    seed: int,
    noise_dtype: torch.dtype,
) -> Tensor:
    """z_t: [B, draws, 4, h, w]. One CPU generator: first the posterior's draw, then the noise's.

    Every sample gets the draws that it would get alone, as in the reference, whose batch is one.
    """
    generator = torch.Generator().manual_seed(seed)
    device, shape = posterior.mean.device, posterior.mean.shape[1:]
    x0 = posterior.mean
    if sample_mode == "sample":
        x0 = x0 + posterior.std * torch.randn(shape, generator=generator).to(device)
    noise = torch.randn(draws, *shape, generator=generator, dtype=noise_dtype).float().to(device)
    return add_noise(x0[:, None], noise, level)


def _predict(
    backbone: Backbone, latents: Tensor, timestep: int, weights: dict[_Row, Tensor]
) -> tuple[dict[_Row, Tensor], dict[_Row, Tensor]]:
    """Each row's noise [4, h, w] and attention map [g, g], from one batched U-Net call."""
    if not weights:
        return {}, {}
    texts = list(dict.fromkeys((row.prompt, row.ablated) for row in weights))
    conditioning = backbone.encode_prompts(
        [prompt for prompt, _ in texts], [Ablation(ids=ids) for _, ids in texts]
    )
    recorder = AttentionRecorder(
        torch.stack(list(weights.values())).to(backbone.device), backbone.map_size
    )
    noise = backbone.predict_noise(
        latents[[row.sample for row in weights], [row.draw for row in weights]],
        torch.full((len(weights),), timestep),
        conditioning[[texts.index((row.prompt, row.ablated)) for row in weights]],
        recorder,
    )
    return (
        dict(zip(weights, noise.cpu(), strict=True)),
        dict(zip(weights, recorder.maps.cpu(), strict=True)),
    )


def _checked(method: MapMethod, record: Record) -> Tensor | BenchmarkError:
    try:
        soft_map = method.soft_map(record)
    except MapError as error:
        return error
    if soft_map.isfinite().all():
        return soft_map
    return MapError(
        f"the map of {method.name} is not finite: every changed token lies beyond those that the "
        "model sees (compat: exact gives an empty map then), or the precision overflowed (use a "
        "dtype with more range)"
    )


def _sample_seed(seed: int, sample_id: str) -> int:
    return int.from_bytes(sha256(f"{seed}/{sample_id}".encode()).digest()[:7])
