"""Where a result comes from: versions, commit, command line, machine."""

import functools
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "piebench-masks",
    "torch",
    "diffusers",
    "transformers",
    "open-clip-torch",
    "lpips",
    "numpy",
    "pillow",
    "pycocotools",
)


@functools.cache
def provenance() -> dict[str, Any]:
    """Versions, commit (``-dirty`` where the checkout has changes), command line and platform."""
    return {
        "versions": {"python": platform.python_version()}
        | {p: metadata.version(p) for p in PACKAGES},
        "commit": _commit(),
        "argv": sys.argv,
        "platform": platform.platform(),
    }


MIXED = "commit", "versions"
"""The keys that should have one value in all rows of a table."""


def union(provenances: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Several processes' provenances as one, for a report of what they made.

    Every value becomes the list of the different values (versions: a list for each package), in
    order of appearance. ``mixed`` names the keys of ``MIXED`` with several values, as in
    ``commit``, ``versions.torch``. ``unknown`` counts provenances that are None.
    """
    sources = list(provenances)
    processes = [provenance for provenance in sources if provenance is not None]
    values: dict[str, Any] = _values(processes)
    flat = {key: entry for key, entry in values.items() if isinstance(entry, list)}
    flat |= {
        f"{key}.{name}": entry
        for key, entries in values.items()
        if isinstance(entries, dict)
        for name, entry in entries.items()
    }
    mixed = [key for key, entry in flat.items() if key.split(".")[0] in MIXED and len(entry) > 1]
    return values | {"mixed": sorted(mixed), "unknown": len(sources) - len(processes)}


def _values(provenances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in dict.fromkeys(key for provenance in provenances for key in provenance):
        entries = [provenance.get(key) for provenance in provenances]
        if key == "versions":
            values[key] = _values([entry or {} for entry in entries])
        else:
            values[key] = [entry for i, entry in enumerate(entries) if entry not in entries[:i]]
    return values


def _commit() -> str | None:
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(checkout),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
