"""What is computed: each stage's inputs, its artifact key, and how one batch is made."""

from collections.abc import Callable, Sequence

from piebench_masks.data.sample import Sample
from piebench_masks.run import Run
from piebench_masks.runner import Stage
from piebench_masks.stages.edit import Edit
from piebench_masks.stages.masks import Masks
from piebench_masks.stages.score import EditScores, MaskScores

STAGES: dict[str, tuple[Callable[[Run, Sequence[Sample]], Stage], ...]] = {
    "masks": (Masks,),
    "edit": (Edit,),
    "score": (MaskScores, EditScores),
}
"""The stages that compute artifacts, by their name in ``stages=[...]``, in order."""


def stage_of(name: str, run: Run, samples: Sequence[Sample]) -> Stage:
    """The stage of that ``Stage.name``; a worker process needs no samples for it."""
    made = (make(run, samples) for parts in STAGES.values() for make in parts)
    return next(stage for stage in made if stage.name == name)
