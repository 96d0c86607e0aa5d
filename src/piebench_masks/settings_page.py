"""The settings in words: for ``--help``, and as the page docs/settings.md.

``python -m piebench_masks.settings_page > docs/settings.md`` writes the page anew.
"""

from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from piebench_masks.item_settings import ITEM_KINDS
from piebench_masks.protocol import Protocol
from piebench_masks.section import Section, defaults
from piebench_masks.settings import (
    DatasetSettings,
    EditImageSettings,
    MapSettings,
    ModelSettings,
    SearchSettings,
    Settings,
)
from piebench_masks.values import described

CONF = next(
    str(folder)
    for folder in (Path(__file__).parent / "conf", Path(__file__).parents[2] / "conf")
    if folder.is_dir()
)
"""The configuration tree: inside an installed package, or at the top of a checkout."""
PNP_INVERSION = "pnp_inversion.yaml"
"""In the tree, the table of the methods of PnP Inversion."""
SECTIONS: Mapping[str, type[Section]] = {
    "dataset": DatasetSettings,
    "model": ModelSettings,
    "hparams_search": SearchSettings,
    "protocol": Protocol,
}
GROUPS = {
    "dataset": "What is edited.",
    "model": "The diffusion model.",
    "mask": "Map methods, several at a time: `mask=[ours,diffedit]`.",
    "editor": "Editors, several at a time: `editor=[turbo_edit,masactrl]`.",
    "methods": "Pairs of inversion and editor as PnP Inversion calls them, beside or instead of "
    "editors: `editor=[] methods=[ddim+p2p,directinversion+p2p]`.",
    "inversion": "The inversion of the editors that take one.",
    "captions": "What masks and editors are shown in the place of source prompts.",
    "concepts": "What DiffEdit is shown in the place of prompts.",
    "metrics": "The editing metrics.",
    "metrics/also": "Metrics beside those: `metrics/also=[dinov2,judge]`.",
    "protocol": "How edits are scored, several protocols beside each other: "
    "`protocol=[official,box]`, of which the first is that of all tables.",
    "tracker": "Where a finished run is published.",
    "executor": "Where batches are computed.",
    "hparams_search": "A search for the best settings instead of a single run.",
    "experiment": "Recipes: several settings at once.",
    "recipe": "Fits and samplings of `piebench-masks items`, in place of those for the miniature.",
    "hydra/launcher": "Where the runs of a sweep (`-m`) are started.",
}
INTRODUCTION = """# Settings

This page is generated: `python -m piebench_masks.settings_page > docs/settings.md`.
Every setting is changed on the command line with `name=value`, and every group with `group=option`.
`piebench-masks --cfg job` prints the settings of a command.
"""


def help_text(kind: type[Section] = Settings) -> str:
    """The settings that are in no group, with defaults and comments, for Hydra's help."""
    lines = []
    for entry, default, comment in _rows(kind):
        if heading := entry.metadata["heading"]:
            lines += ["", f"# {heading}"]
        line = f"{entry.name}: {default}"
        lines.append(f"{line:<21}  # {comment}" if comment else line)
    return "\n".join(lines).strip().replace("$", "$$")  # Hydra fills in what follows a single one


def options(group: str) -> list[Path]:
    """The files of a group's options, whose names without suffix they are chosen by."""
    return sorted((Path(CONF) / group).glob("*.yaml"))


def settings_page() -> str:
    """docs/settings.md."""
    parts = [INTRODUCTION, "## Settings of a run\n", _table(Settings)]
    parts.append("## Groups\n")
    for group, words in GROUPS.items():
        parts.append(f"### {group}\n\n{words}\n")
        if group in SECTIONS:
            parts.append(_table(SECTIONS[group]))
        if group == "methods":
            parts.append(_yaml(Path(CONF) / PNP_INVERSION))
        for path in options(group):
            parts.append(f"`{group}={path.stem}`\n\n{_yaml(path)}")
    parts.append("## Settings of `piebench-masks edit`\n")
    parts.append("`model`, `editor` and `inversion` are as above.\n")
    parts.append(_table(EditImageSettings))
    parts.append("## Settings of `piebench-masks items`\n")
    parts.append(_yaml(Path(CONF) / "items.yaml"))
    for kind in ITEM_KINDS:
        parts.append(f"{kind.__doc__}\n\n{_table(kind, without=kind.__mro__[1])}")
    return "\n".join(parts)


def _rows(kind: type[Section]) -> Iterator[tuple[Field[Any], str, str]]:
    """Field, default and comment of the settings in no group, those of ``MapSettings`` last."""
    values = defaults(kind)
    types = get_type_hints(kind)
    shared = {entry.name for entry in fields(MapSettings)}
    entries = [entry for entry in fields(kind) if entry.name in values]
    for entry in sorted(entries, key=lambda entry: entry.name in shared):
        comment = entry.metadata["comment"]
        if get_origin(types[entry.name]) is Literal:
            choices = " | ".join(get_args(types[entry.name]))
            comment = f"{choices}: {comment}" if comment else choices
        elif types[entry.name] is float and entry.metadata["high"] is not None:
            low, high = entry.metadata["low"], entry.metadata["high"]
            comment = f"from {low:g} to {high:g}: {comment}"
        yield entry, _as_yaml(values[entry.name]), comment


def _table(kind: type[Section], without: type[Section] = Section) -> str:
    """without: a kind whose settings are left out."""
    types, others = get_type_hints(kind), {entry.name for entry in fields(without)}
    lines = ["| Setting | Default | Values | |", "|---|---|---|---|"]
    for entry, default, _ in _rows(kind):
        if entry.name in others:
            continue
        metadata = entry.metadata
        values = metadata["wanted"] or described(
            types[entry.name], metadata["low"], metadata["high"]
        )
        values = values.removeprefix("it must be ").replace(" without control characters", "")
        default_cell = "" if default == "???" else f"`{default}`"
        cells = (f"`{kind.place}{entry.name}`", default_cell, values, metadata["comment"])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _yaml(path: Path) -> str:
    return f"```yaml\n{path.read_text(encoding='utf-8').strip()}\n```\n"


def _as_yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return OmegaConf.to_yaml({"it": value}).removeprefix("it: ").strip()


if __name__ == "__main__":
    print(settings_page(), end="")
