"""Every method's soft map of many samples, from one batched U-Net call for all of them."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.ddpm import start_timestep
from piebench_masks.diffusion.prompt_diff import Compat
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.record import MapError, Record
from piebench_masks.masks.rows import Answers, Cell, SampleMode, cells
from piebench_masks.masks.texts import SceneTexts

T = TypeVar("T")
Plan = list[list[Cell]]
"""The rows of a method, and of each of its post-processors, for one scene."""
SoftMaps = dict[str, list[Tensor | BenchmarkError]]
"""For each method one map [g, g] a sample, or why there is none."""
External = Mapping[str, Sequence[Tensor | BenchmarkError]]
"""For each method whose masks were made elsewhere one mask [h, w] a scene, or why not."""


def needs_model(methods: Mapping[str, MapMethod]) -> bool:
    """Whether any of the methods looks at a row of the U-Net."""
    return any(needs.parts for method in methods.values() for needs in method.all_needs)


@torch.no_grad()  # and not inference mode: a method may optimise something of its own
def soft_maps(
    backbone: Backbone | None,
    posterior: Posterior | None,
    scenes: Sequence[Scene],
    methods: Mapping[str, MapMethod],
    *,
    strength: float = 0.5,
    num_repeat: int = 1,
    sample_mode: SampleMode = "argmax",
    seed: int = 8128,
    noise_dtype: torch.dtype = torch.float32,
    compat: Compat = "exact",
    map_size: int | None = None,
    device: torch.device | str = "cpu",
    external: External | None = None,
) -> SoftMaps:
    """Every method's soft map of every scene, float32 [g, g] on the CPU (methods.md, section 2).

    backbone and posterior, one of each scene: None where no method needs the model; then map_size
    and device take the place of the backbone's. noise_dtype: float16 draws the noise stream of the
    reference's published masks. external: what ``Record.external`` is, by method.
    Where a method has no map for a scene, the error stands in its place and all others go on.
    Raises BenchmarkError for a strength outside the schedule.
    """
    start_timestep(strength)
    side = backbone.map_size if backbone else map_size
    if side is None:
        raise BenchmarkError("soft_maps needs a backbone, or a map_size for maps without one")
    visible_scenes = {
        (name, i): scene.as_known(method.knows)
        for i, scene in enumerate(scenes)
        for name, method in methods.items()
    }
    plans = {
        (name, i): _tried(
            name, _plan, methods[name], backbone, scene, i, num_repeat, strength, compat
        )
        for (name, i), scene in visible_scenes.items()
    }
    answers = Answers(
        backbone,
        posterior,
        [cell for plan in plans.values() if isinstance(plan, list) for cell in chain(*plan)],
        sample_mode=sample_mode,
        seed=seed,
        noise_dtype=noise_dtype,
    )

    def soft_map(name: str, i: int) -> Tensor | BenchmarkError:
        plan = plans[name, i]
        external_mask = external[name][i] if external and name in external else None
        if isinstance(plan, BenchmarkError):
            return plan
        if isinstance(external_mask, BenchmarkError):
            return external_mask

        def record(part: list[Cell]) -> Record:
            return Record(
                scene=visible_scenes[name, i],
                map_size=side,
                seed=_sample_seed(seed, scenes[i].id),
                recordings=answers.recordings(part),
                compat=compat,
                device=backbone.device if backbone else torch.device(device),
                external=external_mask,
                tokenize=backbone.tokenize if backbone else None,
            )

        return _tried(name, lambda: _map(methods[name], [record(part) for part in plan]))

    return {name: [soft_map(name, i) for i in range(len(scenes))] for name in methods}


def _plan(
    method: MapMethod,
    backbone: Backbone | None,
    scene: Scene,
    sample: int,
    num_repeat: int,
    strength: float,
    compat: Compat,
) -> Plan:
    if not needs_model({"": method}):
        return [[] for _ in method.all_needs]
    if backbone is None:
        raise BenchmarkError("the method needs the model: give soft_maps backbone and posterior")
    texts = SceneTexts(backbone, scene, compat)
    return [
        cells(needs, texts, sample, num_repeat=num_repeat, strength=strength)
        for needs in method.all_needs
    ]


def _map(method: MapMethod, records: Sequence[Record]) -> Tensor:
    """The method's map, and what each post-processor makes of it."""
    soft_map = _checked(type(method).__name__, method(records[0]))
    for post, record in zip(method.post, records[1:], strict=True):
        soft_map = _checked(type(post).__name__, post(soft_map, record))
    return soft_map


def _checked(part: str, soft_map: Any) -> Tensor:
    if not isinstance(soft_map, Tensor):
        raise MapError(f"{part} returned a {type(soft_map).__name__}: it must be a torch tensor")
    if soft_map.ndim != 2 or soft_map.shape[0] != soft_map.shape[1] or not len(soft_map):
        raise MapError(
            f"{part} returned a map of shape {list(soft_map.shape)}: it must be square, [g, g]"
        )
    if soft_map.dtype != torch.float32 or soft_map.device.type != "cpu":
        raise MapError(
            f"{part} returned a map of {soft_map.dtype} on {soft_map.device}: it must be float32 "
            "on the CPU, .float().cpu()"
        )
    if not soft_map.isfinite().all():
        raise MapError(
            f"the map of {part} is not finite: every changed token lies beyond those that the "
            "model sees (compat: exact gives an empty map then), the precision overflowed (use a "
            "dtype with more range), or the method divides by zero"
        )
    return soft_map


def _tried(name: str, function: Callable[..., T], *arguments: Any) -> T | BenchmarkError:
    """What the function returns, or why it does not: no method stops the others."""
    try:
        return function(*arguments)
    except BenchmarkError as error:
        return error
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        failure = MapError(f"method {name} raised {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure


def _sample_seed(seed: int, sample_id: str) -> int:
    return int.from_bytes(sha256(f"{seed}/{sample_id}".encode()).digest()[:7])
