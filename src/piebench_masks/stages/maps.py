"""Stage 2: a soft map for every sample and method, stored raw at its native grid."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from piebench_masks.data.external_masks import load_external_mask, mask_file
from piebench_masks.data.sample import Sample, item_name
from piebench_masks.data.scene import Knows
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import files_identity
from piebench_masks.masks import MapMethod
from piebench_masks.masks.external import External as ExternalMethod
from piebench_masks.masks.soft_maps import (
    Cost,
    External,
    Measured,
    SoftMaps,
    needs_model,
    soft_maps,
)
from piebench_masks.run import Run, once
from piebench_masks.settings import EXTERNAL
from piebench_masks.stages.candidates import candidates_folder, read_candidates
from piebench_masks.stages.latents import Source, latents_folder, load_sources, posteriors
from piebench_masks.stages.stage import Batch, Failure, Work
from piebench_masks.store import Folder

VERSION = 2
MAP_KEYS = ["item"]
COSTS = list(Cost._fields)
"""What each map costs, in the rows beside the maps."""
READS: dict[Knows, tuple[str, ...]] = {
    "nothing": ("image",),
    "prompts": ("image", "prompts"),
    "word": ("image", "prompts", "blended_word"),
    "instruction": ("image", "prompts", "instruction"),
    "type": ("image", "prompts", "blended_word"),
    "scores": ("image", "prompts"),
    **dict.fromkeys(
        ("annotation", "unknown"), ("image", "prompts", "blended_word", "instruction", "mask")
    ),
}
"""The sample fields that a method of each leak level is shown; its maps are named by them."""


@once
def map_folder(run: Run, name: str) -> Folder:
    """Keyed by what changes the method's maps, not by the thresholds they are cut at later."""
    cfg, method = run.cfg, run.methods[name]
    parameters = {
        "version": VERSION,
        "method": run.identity(f"mask.{name}"),
        "map_size": cfg.model.map_size,
        "seed": cfg.seed,
    }
    if needs_model({name: method}):
        parameters |= {
            "latents": latents_folder(run).key,
            "dtype": cfg.model.dtype,
            "compile": cfg.model.compile,
            "compat": cfg.compat,
            "sample_mode": cfg.sample_mode,
            "noise_dtype": cfg.noise_dtype,
        }
        needs = [part for needs in method.all_needs for part in needs.parts]
        if any(part.draws is None for part in needs):
            parameters["draws"] = cfg.num_repeat
        if any(None in part.levels for part in needs):
            parameters["strength"] = cfg.strength
    elif method.candidates is not None:
        parameters["candidates"] = candidates_folder(run, name).key
    else:
        parameters["image_size"] = run.sizes[0]
    return run.folder("maps", parameters)


def map_item(run: Run, name: str, sample: Sample, *more: str) -> str:
    """A sample's name among a method's maps: by what the method is shown of it, and of ``more``.

    Of a mask made elsewhere that is its file's content too.
    """
    method = run.methods[name]
    item = item_name(sample, {*READS[method.knows], *more})
    if not is_external(method):
        return item
    return f"{item}-{_external_content(run, name, sample.image_path, sample.id)}"


def map_name(run: Run, name: str, sample: Sample) -> str:
    """File of a sample's map."""
    return f"{map_item(run, name, sample)}.safetensors"


def is_external(method: MapMethod) -> bool:
    return isinstance(method, ExternalMethod)


def _external_file(run: Run, name: str, image_path: str, sample_id: str) -> Path:
    return mask_file(Path(run.section("mask")[EXTERNAL]["root"]), name, image_path, sample_id)


@once
def _external_content(run: Run, name: str, image_path: str, sample_id: str) -> str:
    try:
        path = _external_file(run, name, image_path, sample_id)
        return files_identity(path.parent, [path])
    except BenchmarkError:  # the failure that comes of it says so
        return "missing"


def _external_mask(run: Run, name: str, sample: Sample) -> Tensor | BenchmarkError:
    try:
        file = _external_file(run, name, sample.image_path, sample.id)
        return torch.from_numpy(load_external_mask(file))
    except BenchmarkError as error:
        return error


def _measured(run: Run, name: str, sample: Sample) -> Mapping[str, Tensor] | BenchmarkError:
    found = read_candidates(run, name, sample)
    if found is None:
        return BenchmarkError("its candidates could not be painted; the failure before says why")
    return found


def has_map(run: Run, name: str, sample: Sample) -> bool:
    return map_folder(run, name).has(map_name(run, name, sample))


def read_map(run: Run, name: str, sample: Sample) -> Tensor | None:
    """The stored map [g,g] float32, None where it is missing or damaged."""
    tensors = map_folder(run, name).read_tensors(map_name(run, name, sample))
    return None if tensors is None else tensors["map"]


def map_costs(run: Run, name: str) -> pd.DataFrame:
    """``COSTS`` of every map that was ever made with the method's settings, by ``MAP_KEYS``."""
    rows = map_folder(run, name).rows(MAP_KEYS).reindex(columns=[*MAP_KEYS, *COSTS])
    return rows.astype(dict.fromkeys(COSTS, float))


class Maps:
    """Soft maps; an item is one method's map of a sample."""

    name = "masks"
    item = "map"

    def __init__(self, run: Run, samples: Sequence[Sample]) -> None:
        self.run, self.samples = run, samples

    def prepare(self) -> None:
        if needs_model(self.run.methods):
            _ = self.run.backbone
        for method in self.run.methods.values():
            method.load(self.run.device)

    def pending(self, *, everything: bool = False) -> list[Work]:
        def missing(sample: Sample) -> tuple[str, ...]:
            return tuple(
                name
                for name, method in self.run.methods.items()
                if (sample.mask is not None or method.knows != "annotation")
                and (everything or read_map(self.run, name, sample) is None)
            )

        work = [Work(sample, missing(sample)) for sample in self.samples]
        return [entry for entry in work if entry.todo]

    def load(self, batch: Batch) -> tuple[list[Source], External, Measured]:
        """The samples' pictures and posteriors, the masks of them that were made elsewhere, and
        what was measured of candidates.
        """
        methods = self._batch_methods(batch)
        samples = [work.sample for work in batch]
        external = {
            name: [_external_mask(self.run, name, sample) for sample in samples]
            for name, method in methods.items()
            if is_external(method)
        }
        measured = {
            name: [_measured(self.run, name, sample) for sample in samples]
            for name, method in methods.items()
            if method.candidates is not None
        }
        sources = load_sources(self.run, samples, encoded=needs_model(methods))
        return sources, external, measured

    def _batch_methods(self, batch: Batch) -> dict[str, MapMethod]:
        names = {name for work in batch for name in work.todo}
        return {name: method for name, method in self.run.methods.items() if name in names}

    def compute(
        self,
        batch: Batch,
        loaded: tuple[list[Source], External, Measured],
    ) -> SoftMaps:
        run, cfg, methods = self.run, self.run.cfg, self._batch_methods(batch)
        sources, external, measured = loaded
        uses_model = needs_model(methods)
        return soft_maps(
            run.backbone if uses_model else None,
            posteriors(run, sources) if uses_model else None,
            [source.scene for source in sources],
            methods,
            map_size=cfg.model.map_size,
            device=run.device,
            strength=cfg.strength,
            num_repeat=cfg.num_repeat,
            sample_mode=cfg.sample_mode,
            seed=cfg.seed,
            noise_dtype=getattr(torch, cfg.noise_dtype),
            compat=cfg.compat,
            external=external,
            measured=measured,
        )

    def store(self, batch: Batch, computed: SoftMaps) -> list[Failure]:
        """Maps first, so that no cost is stored without its map."""
        failures = []
        costs: dict[str, list[dict[str, Any]]] = {}
        for row, work in enumerate(batch):
            for name in work.todo:
                result = computed[name][row]
                if isinstance(result, Tensor):
                    folder = map_folder(self.run, name)
                    folder.write_tensors(map_name(self.run, name, work.sample), {"map": result})
                    item = {"item": map_item(self.run, name, work.sample)}
                    cost = computed.costs[name][row]._asdict()
                    costs.setdefault(name, []).append(item | cost)
                else:
                    failures.append(Failure(self.name, work.sample.id, name, str(result)))
        for name, rows in costs.items():
            map_folder(self.run, name).append_rows(rows)
        return failures

    def finish(self) -> None:
        for name in self.run.methods:
            map_folder(self.run, name).compact(MAP_KEYS)
