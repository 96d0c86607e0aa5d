"""Where a run's numbers come from: this process, and those who made the items."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from piebench_masks.data.sample import Sample
from piebench_masks.provenance import provenance, union
from piebench_masks.run import Run
from piebench_masks.runner import Outcome
from piebench_masks.stages.edit import edit_folder
from piebench_masks.stages.maps import map_folder
from piebench_masks.stages.score_edits import edit_score_folder
from piebench_masks.stages.scores import origins
from piebench_masks.stages.written import written_folder


def run_provenance(run: Run, samples: Sequence[Sample], computed: Outcome) -> dict[str, Any]:
    """This process, what it computed, the artifacts' keys, and as ``items`` the union of those who
    made the items.
    """
    keys = {writer: written_folder(run, writer).key for writer in run.writers}
    keys |= {f"maps of {name}": map_folder(run, name).key for name in run.methods}
    keys |= {f"edits of {name}": edit_folder(run, name).key for name in run.editors}
    parts = run.identities
    model = "none" if run.editors else "none: edits made elsewhere"
    if run.uses_model:
        model = f"{run.cfg.model.name} ({run.identity('model')['weights']})"
    scores = {
        f"{scorer} of {name}": edit_score_folder(run, name, scorer).key
        for name in run.scored_editors
        for scorer in run.scorers
    }
    return provenance() | {
        "device": str(run.device),
        "executor": run.section("executor"),
        "threads": torch.get_num_threads(),
        "dataset": run.cfg.dataset.name,
        "samples": len(samples),
        "model": model,
        "weights": {name: part["weights"] for name, part in parts.items() if "weights" in part},
        "compat": run.cfg.compat,
        "protocol": {name: run.protocol_digest(name) for name in run.protocols},
        "failed items": len(computed.failures),
        "computed": dict(computed.counts),
        "artifacts": keys | scores,
        "items": union(origins(run, samples)),
    }


def mixed_notes(items: Mapping[str, Any]) -> list[str]:
    """A warning for each of what a table's rows should have in common and have not."""
    warnings = []
    for key in items["mixed"]:
        section, _, name = key.partition(".")
        values = items[section][name] if name else items[section]
        what = f"version of {name}" if name else section
        warnings.append(
            f"WARNING: more than one {what} made these rows: {', '.join(map(str, values))}."
        )
    return warnings


def shown_provenance(origin: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says: of those who made the items, not of the process that reports."""
    facts = {key: origin[key] for key in ("dataset", "samples", "model", "compat", "failed items")}
    items = {key: value for key, value in origin["items"].items() if value}
    texts = {key: _joined(value) for key, value in items.items()}
    weights = {
        name: " ".join(map(str, value.values())) if isinstance(value, Mapping) else value
        for name, value in origin["weights"].items()
    }
    return facts | texts | {"weights": weights, "artifacts": origin["artifacts"]}


def _joined(values: Any) -> Any:
    """Different values side by side; versions stay a mapping by package."""
    if isinstance(values, Mapping):
        return {name: _joined(entry) for name, entry in values.items()}
    if not isinstance(values, list):
        return values
    texts = (" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in values)
    return "; ".join(texts)
