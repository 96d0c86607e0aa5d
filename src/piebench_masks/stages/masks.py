"""Stage 2: a soft map for every sample and method, stored raw at its native grid."""

from collections.abc import Sequence

import torch
from torch import Tensor

from piebench_masks.data.rle import from_coco
from piebench_masks.data.sample import Sample
from piebench_masks.masks.method import MapMethod
from piebench_masks.masks.soft_maps import SoftMaps, soft_maps
from piebench_masks.run import Run, item_name, once
from piebench_masks.stages.latents import Source, latents_folder, load_sources, posteriors
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Folder

VERSION = 1


@once
def map_folder(run: Run, method: MapMethod) -> Folder:
    """Keyed by what changes this method's maps, not by the thresholds they are cut at later."""
    cfg = run.cfg
    parameters = {
        "version": VERSION,
        "method": method.name,
        "soft_map": f"{method.soft_map.__module__}.{method.soft_map.__qualname__}",
        "map_size": cfg.model.map_size,
        "seed": cfg.seed,
    }
    if method.conditions:
        parameters |= {
            "latents": latents_folder(run).key,
            "dtype": cfg.model.dtype,
            "compile": cfg.model.compile,
            "compat": cfg.compat,
            "strength": cfg.strength,
            "draws": method.draws or cfg.num_repeat,
            "sample_mode": cfg.sample_mode,
            "noise_dtype": cfg.noise_dtype,
        }
    return run.folder("masks", parameters)


def map_name(sample: Sample) -> str:
    return f"{item_name(sample)}.safetensors"


def read_map(run: Run, method: MapMethod, sample: Sample) -> Tensor | None:
    """The stored map [g,g] float32, None where it is missing or damaged."""
    tensors = map_folder(run, method).read_tensors(map_name(sample))
    return None if tensors is None else tensors["map"]


class Masks:
    """Soft maps; an item is one method's map of a sample."""

    name = "masks"
    item = "map"

    def __init__(self, run: Run, samples: Sequence[Sample]) -> None:
        self.run, self.samples = run, samples

    def prepare(self) -> None:
        _ = self.run.backbone

    def pending(self, *, everything: bool = False) -> list[Work]:
        def missing(sample: Sample) -> tuple[str, ...]:
            return tuple(
                name
                for name, method in self.run.methods.items()
                if (sample.mask is not None or method.reads != "annotation")
                and (everything or read_map(self.run, method, sample) is None)
            )

        work = [Work(sample, missing(sample)) for sample in self.samples]
        return [entry for entry in work if entry.todo]

    def load(self, batch: Batch) -> list[Source]:
        return load_sources(self.run, [work.sample for work in batch])

    def compute(self, batch: Batch, loaded: list[Source]) -> SoftMaps:
        run, cfg = self.run, self.run.cfg
        wanted = [name for name in run.methods if any(name in work.todo for work in batch)]
        samples = [work.sample for work in batch]
        return soft_maps(
            run.backbone,
            posteriors(run, loaded),
            [sample.source_prompt for sample in samples],
            [sample.target_prompt for sample in samples],
            [run.methods[name] for name in wanted],
            strength=cfg.strength,
            num_repeat=cfg.num_repeat,
            sample_mode=cfg.sample_mode,
            seed=cfg.seed,
            noise_dtype=getattr(torch, cfg.noise_dtype),
            compat=cfg.compat,
            annotations=[
                None if sample.mask is None else torch.from_numpy(from_coco(sample.mask))
                for sample in samples
            ],
            sample_ids=[sample.id for sample in samples],
        )

    def store(self, batch: Batch, computed: SoftMaps) -> list[Failure]:
        failures = []
        for row, work in enumerate(batch):
            for name in work.todo:
                result = computed[name][row]
                if isinstance(result, Tensor):
                    folder = map_folder(self.run, self.run.methods[name])
                    folder.write_tensors(map_name(work.sample), {"map": result})
                else:
                    failures.append(Failure(self.name, work.sample.id, name, str(result)))
        return failures

    def finish(self) -> None:
        """Nothing: every map is a file of its own."""
