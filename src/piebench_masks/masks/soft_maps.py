"""Every method's soft map of many samples, from one batched U-Net call for all of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

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
External = Mapping[str, Sequence[Tensor | BenchmarkError]]
"""For each method whose masks were made elsewhere one mask [h, w] a scene, or why not."""


class Cost(NamedTuple):
    """What one map costs alone: U-Net rows, forward passes of the method's own networks, seconds.

    seconds: what its rows take of the U-Net call, with their texts' encoding, and the method.
    """

    unet_rows: int
    forwards: int
    seconds: float


class SoftMaps(dict[str, list[Tensor | BenchmarkError]]):
    """For each method one map [g, g] a sample, or why there is none; costs: of each, likewise."""

    def __init__(self) -> None:
        self.costs: dict[str, list[Cost]] = {}


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
    keys = [(name, i) for name in methods for i in range(len(scenes))]
    visible_scenes = {(name, i): scenes[i].as_known(methods[name].knows) for name, i in keys}
    given: dict[tuple[str, int], Any]
    given = {
        (name, i): external[name][i] if external and name in external else None for name, i in keys
    }
    plans = {
        (name, i): given[name, i]
        if isinstance(given[name, i], BenchmarkError)
        else _tried(name, _plan, methods[name], backbone, scene, i, num_repeat, strength, compat)
        for (name, i), scene in visible_scenes.items()
    }
    started = perf_counter()
    answers = Answers(
        backbone,
        posterior,
        [cell for plan in plans.values() if isinstance(plan, list) for cell in chain(*plan)],
        sample_mode=sample_mode,
        seed=seed,
        noise_dtype=noise_dtype,
    )

    seconds_a_row = (perf_counter() - started) / max(1, len(answers))

    def record(name: str, i: int, part: list[Cell]) -> Record:
        return Record(
            scene=visible_scenes[name, i],
            map_size=side,
            seed=_sample_seed(seed, scenes[i].id),
            recordings=answers.recordings(part),
            compat=compat,
            device=backbone.device if backbone else torch.device(device),
            external=given[name, i],
            tokenize=backbone.tokenize if backbone else None,
        )

    def maps_of(name: str) -> list[Tensor | BenchmarkError]:
        planned = [plans[name, i] for i in range(len(scenes))]
        asked = {i: plan for i, plan in enumerate(planned) if isinstance(plan, list)}

        def outcomes(rows: Sequence[int]) -> dict[int, Tensor | Exception]:
            """Of these scenes together; one by one where that fails, so that only one is guilty."""
            shown = (record(name, i, asked[i][0]) for i in rows)
            try:
                return dict(zip(rows, methods[name].maps(shown), strict=True))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                if len(rows) == 1:
                    return {rows[0]: error}
            return {i: outcomes([i])[i] for i in rows}

        found = outcomes(list(asked))

        def finished(i: int, plan: Plan) -> Tensor:
            rest = (record(name, i, part) for part in plan[1:])
            return _finished(methods[name], found[i], rest)

        return [
            _tried(name, finished, i, plan) if isinstance(plan, list) else plan
            for i, plan in enumerate(planned)
        ]

    maps = SoftMaps()
    for name, method in methods.items():
        started = perf_counter()
        maps[name] = maps_of(name)
        own = (perf_counter() - started) / max(1, len(scenes))
        rows = [_row_count(plans[name, i]) for i in range(len(scenes))]
        maps.costs[name] = [Cost(n, method.forwards, n * seconds_a_row + own) for n in rows]
    return maps


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


def _row_count(plan: Plan | BenchmarkError) -> int:
    """Of the U-Net, where equal ones are asked for once."""
    cells = [] if isinstance(plan, BenchmarkError) else chain(*plan)
    return len({row for cell in cells for row in cell.rows})


def _finished(method: MapMethod, found: Tensor | Exception, records: Iterable[Record]) -> Tensor:
    """The method's map, checked, and what each post-processor makes of it."""
    if isinstance(found, Exception):
        raise found
    soft_map = _checked(type(method).__name__, found)
    for post, record in zip(method.post, records, strict=True):
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
