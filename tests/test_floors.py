"""Imports go down only, files are short, and the formulas know no framework."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "piebench_masks"
FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "batching",
        "identity",
        "weights",
        "provenance",
        "console",
        "values",
        "temporary",
        "packing",
    ),
    ("data", "diffusion", "prompts"),
    ("masks", "editing", "metrics", "regions", "items"),
    (
        "store",
        "settings",
        "item_settings",
        "settings_page",
        "section",
        "parts",
        "chosen",
        "protocol",
        "pnp_inversion",
    ),
    ("run", "stages"),
    ("runner", "executors"),
    ("report", "tracking"),
    (
        "api",
        "publish",
        "pipeline",
        "cli",
        "item_commands",
        "audit",
        "regress",
        "search",
        "show",
        "sweep",
    ),
    ("__main__",),
)
"""From the ground; what stands on one floor may import each other."""
ASIDE = ("training", "pretrained")
"""How the embedded miniature was made; nothing of a run imports it."""
FORMULAS = ("masks", "editing", "metrics", "regions", "items")
FRAMEWORKS = ("hydra", "omegaconf", "wandb", "mlflow", "piebench_masks.store")
LONGEST = 400


def modules() -> list[tuple[str, Path]]:
    """Every module, by its dotted name below the package."""
    paths = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
    return [(".".join(path.relative_to(SOURCE).with_suffix("").parts), path) for path in paths]


def imports(path: Path) -> Iterator[str]:
    """What a file imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module
            if node.module == "piebench_masks":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def rooms(path: Path) -> set[str]:
    """The rooms of this package that a file imports."""
    names = (name.split(".") for name in imports(path))
    return {name[1] for name in names if name[0] == "piebench_masks" and len(name) > 1}


def floor(room: str) -> int:
    return next(number for number, there in enumerate(FLOORS) if room in there)


def test_every_room_has_a_floor() -> None:
    there = {name.split(".")[0] for name, _ in modules()} - {*ASIDE}
    assert there <= {room for rooms_there in FLOORS for room in rooms_there}


def test_imports_go_down_only() -> None:
    up = [
        f"{name} -> {room}"
        for name, path in modules()
        if (own := name.split(".")[0]) not in ASIDE
        for room in sorted(rooms(path))
        if room in ASIDE or floor(room) > floor(own)
    ]
    assert up == []


def test_files_are_short() -> None:
    suffixes = (".py", ".js", ".css", ".html", ".j2", ".yaml")
    texts = [path for path in SOURCE.rglob("*") if path.suffix in suffixes]
    long = {
        path.relative_to(SOURCE).as_posix()
        for path in texts
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST
    }
    assert long == set()


@pytest.mark.parametrize("room", FORMULAS)
def test_formulas_know_no_framework(room: str) -> None:
    for name, path in modules():
        if name.split(".")[0] == room:
            there = [
                i for i in imports(path) if f"{i}.".startswith(tuple(f"{f}." for f in FRAMEWORKS))
            ]
            assert there == [], name
