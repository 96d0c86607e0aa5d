"""Where a result comes from: versions, commit, command line, machine; and content hashes."""

import functools
import hashlib
import platform
import subprocess
import sys
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


@functools.cache
def content_hash(path: Path) -> str:
    """12 hex digits of a file's sha256, or of names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file.suffix.lower() == ".md":
            continue
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def identity(value: Any) -> Any:
    """A configuration value as it enters an artifact key: local paths become content hashes."""
    if isinstance(value, dict):
        return {key: identity(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [identity(entry) for entry in value]
    if isinstance(value, str) and "/" in value and Path(value).exists():
        return content_hash(Path(value))
    return value
