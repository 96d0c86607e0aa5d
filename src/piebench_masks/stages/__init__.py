"""What is computed: each stage's inputs, its artifact key, and how one batch is made."""

from collections.abc import Callable, Sequence

from piebench_masks.data.sample import Sample
from piebench_masks.run import Run
from piebench_masks.stages.candidates import Tried
from piebench_masks.stages.edit import Edit
from piebench_masks.stages.maps import Maps
from piebench_masks.stages.masks import Cuts
from piebench_masks.stages.score_edits import EditScores
from piebench_masks.stages.score_masks import MaskScores
from piebench_masks.stages.stage import Stage
from piebench_masks.stages.written import Written

STAGES: dict[str, Callable[[Run, Sequence[Sample]], list[Stage]]] = {
    "parse": lambda run, samples: [Written(run, samples, writer) for writer in run.writers],
    "masks": lambda run, samples: [
        *(Tried(run, samples, method) for method in run.painting),
        Maps(run, samples),
    ],
    "edit": lambda run, samples: [
        *([Cuts(run, samples)] if run.editors else []),
        *(Edit(run, samples, editor) for editor in run.editors),
    ],
    "score": lambda run, samples: [
        MaskScores(run, samples),
        *(EditScores(run, samples, editor) for editor in run.scored_editors),
    ],
}
"""The stages that compute artifacts, by their name in ``stages=[...]``, in order; under ``parse``
those that complete samples, without which no other can be made.
"""


def stage_of(name: str, run: Run, samples: Sequence[Sample]) -> Stage:
    """The stage of that ``Stage.name``; a worker process needs no samples for it."""
    stages = (stage for make in STAGES.values() for stage in make(run, samples))
    return next(stage for stage in stages if stage.name == name)
