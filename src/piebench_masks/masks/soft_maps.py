"""Every method's soft map of many samples, from one batched U-Net call for all of them."""

from collections.abc import Callable, Mapping, Sequence
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
from piebench_masks.editing.editor import Sources
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.method import MapMethod, Painted
from piebench_masks.masks.record import MapError, Record
from piebench_masks.masks.rows import Answers, Cell, SampleMode, cells
from piebench_masks.masks.texts import SceneTexts

T = TypeVar("T")
Plan = list[list[Cell]]
"""The rows of a method, and of each of its post-processors, for one scene."""
Measured = Mapping[str, Sequence[Mapping[str, Tensor] | BenchmarkError]]
"""For each method that paints candidates what was measured of each scene's, or why not."""
External = Mapping[str, Sequence[Tensor | BenchmarkError]]
"""For each method whose masks were made elsewhere one mask [h, w] a scene, or why not."""


class Cost(NamedTuple):
    """What one map costs alone: U-Net rows, forward passes of the method's own networks, seconds.

    seconds: what its rows take of the U-Net call, with their texts' encoding, and the method.
    """

    unet_rows: int
    forwards: int
    seconds: float


PAINTED_COSTS = ("unet_rows", "seconds")
"""Of a scene's candidates, among what was measured of them."""


class SoftMaps(dict[str, list[Tensor | BenchmarkError]]):
    """For each method one map [g, g] a sample, or why there is none; costs: of each, likewise."""

    def __init__(self) -> None:
        self.costs: dict[str, list[Cost]] = {}


def needs_model(methods: Mapping[str, MapMethod]) -> bool:
    """Whether any of the methods looks at a row of the U-Net."""
    return any(needs.parts for method in methods.values() for needs in method.all_needs)


@torch.no_grad()
def painted(method: MapMethod, backbone: Backbone, sources: Sources, seed: int) -> Painted:
    """The method's candidates of one scene, with their ``unet_rows`` and ``seconds``.

    seed: the run's.
    """
    assert method.candidates is not None
    (scene,) = sources.scenes
    known = Sources([scene.as_known(method.knows)], sources.posterior)
    rows, started = backbone.counts["unet_rows"], perf_counter()
    found = method.candidates(backbone, known, _sample_seed(seed, scene.id))
    cost = backbone.counts["unet_rows"] - rows, perf_counter() - started
    cost_tensors = dict(zip(PAINTED_COSTS, map(torch.tensor, cost), strict=True))
    return Painted({**found.measurements, **cost_tensors}, found.edits)


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
    measured: Measured | None = None,
) -> SoftMaps:
    """Every method's soft map of every scene, float32 [g, g] on the CPU (methods.md, section 2).

    backbone and posterior, one of each scene: None where no method needs the model; then map_size
    and device take the place of the backbone's. noise_dtype: float16 draws the noise stream of the
    reference's published masks. external: what ``Record.external`` is, by method. measured: what
    ``Record.candidates`` is; None: they are painted here.
    Where a method has no map for a scene, the error stands in its place and all others go on.
    Raises BenchmarkError for a strength outside the schedule.
    """
    start_timestep(strength)
    side = backbone.map_size if backbone else map_size
    if side is None:
        raise BenchmarkError("soft_maps needs a backbone, or a map_size for maps without one")

    def task(name: str, i: int) -> _Task:
        scene, given = scenes[i].as_known(methods[name].knows), None
        if external and name in external:
            given = external[name][i]
        if isinstance(given, BenchmarkError):
            return _Task(scene, None, given)
        candidates = _tried(name, _candidates, name, methods[name], i)
        if isinstance(candidates, BenchmarkError):
            return _Task(scene, None, candidates)
        plan = _tried(name, _plan, methods[name], backbone, scene, i, num_repeat, strength, compat)
        return _Task(scene, given, plan, candidates)

    def _candidates(name: str, method: MapMethod, i: int) -> Mapping[str, Tensor]:
        if method.candidates is None:
            return {}
        if measured is not None:
            found = measured[name][i]
            if isinstance(found, BenchmarkError):
                raise found
            return found
        if backbone is None or posterior is None:
            raise BenchmarkError("the method paints: give soft_maps backbone and posterior")
        sources = Sources([scenes[i]], posterior[i : i + 1])
        return painted(method, backbone, sources, seed).measurements

    tasks = {name: [task(name, i) for i in range(len(scenes))] for name in methods}
    started = perf_counter()
    answers = Answers(
        backbone,
        posterior,
        [cell for task in chain(*tasks.values()) for cell in task.cells],
        sample_mode=sample_mode,
        seed=seed,
        noise_dtype=noise_dtype,
    )
    seconds_a_row = (perf_counter() - started) / max(1, len(answers))

    def record(task: _Task, part: int) -> Record:
        """What the method (part 0), or one of its post-processors, sees."""
        assert isinstance(task.plan, list)
        return Record(
            scene=task.scene,
            map_size=side,
            seed=_sample_seed(seed, task.scene.id),
            recordings=answers.recordings(task.plan[part]),
            compat=compat,
            device=backbone.device if backbone else torch.device(device),
            external=task.given,
            candidates=task.candidates,
            tokenize=backbone.tokenize if backbone else None,
        )

    maps = SoftMaps()
    for name, method in methods.items():
        started = perf_counter()
        maps[name] = _maps(name, method, tasks[name], record)
        own = (perf_counter() - started) / max(1, len(scenes))
        maps.costs[name] = [
            Cost(
                task.row_count + int(task.painting("unet_rows")),
                method.forwards,
                task.row_count * seconds_a_row + own + task.painting("seconds"),
            )
            for task in tasks[name]
        ]
    return maps


class _Task(NamedTuple):
    """One method on one scene: what it sees, a mask made elsewhere, its rows or why not, and what
    was measured of its candidates.
    """

    scene: Scene
    given: Tensor | None
    plan: Plan | BenchmarkError
    candidates: Mapping[str, Tensor] = {}

    @property
    def cells(self) -> list[Cell]:
        return [] if isinstance(self.plan, BenchmarkError) else list(chain(*self.plan))

    def painting(self, cost: str) -> float:
        """What its candidates cost."""
        return self.candidates[cost].item() if cost in self.candidates else 0

    @property
    def row_count(self) -> int:
        """Of the U-Net, where equal ones are asked for once."""
        return len({row for cell in self.cells for row in cell.rows})


def _maps(
    name: str, method: MapMethod, tasks: Sequence[_Task], record: Callable[[_Task, int], Record]
) -> list[Tensor | BenchmarkError]:
    found = iter(_outcomes(method, [task for task in tasks if isinstance(task.plan, list)], record))
    return [
        _tried(name, _finished, method, next(found), task, record)
        if isinstance(task.plan, list)
        else task.plan
        for task in tasks
    ]


def _outcomes(
    method: MapMethod, tasks: Sequence[_Task], record: Callable[[_Task, int], Record]
) -> list[Tensor | Exception]:
    """Of these tasks together; one by one where that fails, so that only one is guilty."""
    try:
        found = method.maps(record(task, 0) for task in tasks)
        return [one for one, _ in zip(found, tasks, strict=True)]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        if len(tasks) == 1:
            return [error]
    return [outcome for task in tasks for outcome in _outcomes(method, [task], record)]


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


def _finished(
    method: MapMethod,
    found: Tensor | Exception,
    task: _Task,
    record: Callable[[_Task, int], Record],
) -> Tensor:
    """The method's map, checked, and what each post-processor makes of it."""
    if isinstance(found, Exception):
        raise found
    soft_map = _checked(type(method).__name__, found)
    for part, post in enumerate(method.post, start=1):
        soft_map = _checked(type(post).__name__, post(soft_map, record(task, part)))
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
