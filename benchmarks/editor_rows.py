"""U-Net rows of an edit, PnP Inversion's code and this package: `python benchmarks/editor_rows.py`.

The package's rows are counted while it edits with the embedded miniature. The published code's are
what its loops ask for, at as many steps; see README.md.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from findings import RESULTS, Finding, Sheet, about, publish
from flows import be_quiet
from hydra import compose, initialize_config_dir
from rich.console import Console
from samples import SHAPES_SIZE, write_samples
from torch import Tensor

from piebench_masks.cli import CONF
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import Editor, Sources
from piebench_masks.editing.style_diffusion import StyleDiffusion
from piebench_masks.report.published import published
from piebench_masks.run import Run
from piebench_masks.stages.latents import load_sources, posteriors
from piebench_masks.stages.parse import parse

TOKENS = 5
"""Of a picture, in the place of a CLIP's."""


@dataclass(frozen=True)
class Spent:
    """The U-Net rows that the published code spends a step, by what they are for.

    invert: the way to noise; lead: a way back that finds what leads to the picture, or what the
    edit attends to; show: a sampling whose picture only stands beside the edit; edit: the edit and
    its source branch. skip: the share of the steps that ``skips`` leave out.
    """

    invert: int
    lead: int
    show: int
    edit: int
    skip: float = 0.0
    skips: tuple[str, ...] = ()

    def rows(self, steps: int) -> int:
        """Of all steps, without what is optimised."""
        fewer = round(self.skip * steps)
        return sum(
            getattr(self, part) * (steps - fewer * (part in self.skips))
            for part in ("invert", "lead", "show", "edit")
        )


REFERENCE = {
    "ddim+p2p": Spent(invert=1, lead=2, show=2, edit=4),
    "null-text-inversion+p2p": Spent(invert=1, lead=3, show=2, edit=4),
    "negative-prompt-inversion+p2p": Spent(invert=1, lead=0, show=2, edit=4),
    "stylediffusion+p2p": Spent(invert=1, lead=3, show=4, edit=4),
    "directinversion+p2p": Spent(invert=1, lead=4, show=4, edit=4),
    "ddim+masactrl": Spent(invert=2, lead=0, show=2, edit=4),
    "directinversion+masactrl": Spent(invert=1, lead=4, show=2, edit=4),
    "ddim+pix2pix-zero": Spent(invert=1, lead=2, show=0, edit=4),
    "directinversion+pix2pix-zero": Spent(invert=1, lead=2, show=0, edit=4),
    "ddim+pnp": Spent(invert=1, lead=0, show=1, edit=3),
    "directinversion+pnp": Spent(invert=1, lead=0, show=1, edit=3),
    "null-text-inversion+proximal-guidance": Spent(invert=1, lead=3, show=2, edit=4),
    "negative-prompt-inversion+proximal-guidance": Spent(invert=1, lead=0, show=2, edit=4),
    "edit-friendly-inversion+p2p": Spent(2, 0, 2, 4, 0.24, ("show", "edit")),
    "edict+direct_forward": Spent(4, 0, 8, 4, 0.2, ("invert", "edit")),
    "blended-latent-diffusion": Spent(0, 0, 0, 2, 0.25, ("edit",)),
    "ablation_directinversion_04+p2p": Spent(invert=1, lead=4, show=4, edit=4),
    "ablation_directinversion_interval_2+p2p": Spent(invert=1, lead=4, show=4, edit=4),
    "ablation_directinversion_add-source+p2p": Spent(invert=1, lead=4, show=4, edit=4),
    "directinversion+p2p_guidance_25_75": Spent(invert=2, lead=4, show=4, edit=4),
}
"""By index name: what the published scripts ask for, with guidance."""
OPTIMISED = {
    "null-text-inversion+p2p": 3,
    "null-text-inversion+proximal-guidance": 3,
    "stylediffusion+p2p": 4,
}
"""Those that are optimised until an error is small, which both do equally often; and the rows a
step of our inversion that are not."""


@dataclass(frozen=True)
class Plan:
    """How much is counted. The scripts take 50 steps."""

    steps: int
    masks: int


FULL = Plan(steps=50, masks=4)
QUICK = Plan(steps=4, masks=2)


@dataclass(frozen=True)
class RandomTokens(StyleDiffusion):
    """With an encoder of any width: the miniature's CLIP has no tokens."""

    def features(self, backbone: Backbone, sources: Sources) -> Tensor:
        width = backbone.encode_prompts([""]).hidden.shape[-1]
        return torch.randn(TOKENS, width, generator=torch.Generator().manual_seed(0)).expand(
            len(sources), -1, -1
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see it run")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown")
    parser.add_argument("--output", type=Path, default=RESULTS / "editor_rows.json")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    be_quiet()
    with tempfile.TemporaryDirectory() as folder:
        sheets, raw = compare(plan, Path(folder))
    publish(options.output, about(plan=asdict(plan)), sheets, raw, markdown=options.markdown)


def compare(plan: Plan, folder: Path) -> tuple[list[Sheet], dict[str, Any]]:
    """All tables, and what they are made of."""
    write_samples(folder / "data", size=SHAPES_SIZE, per_type=1)
    run = miniature(plan, folder)
    sample = parse(run, Console(quiet=True)).samples[1]  # its object changes
    loaded = load_sources(run, [sample], encoded=True)
    sources = Sources([source.scene for source in loaded], posteriors(run, loaded))
    editors = {name: countable(editor) for name, editor in run.editors.items() if name in REFERENCE}
    size = run.sizes[1]
    masks = torch.rand(plan.masks, size, size, generator=torch.Generator().manual_seed(0)) < 0.5

    ours: dict[str, tuple[int, int]] = {}
    optimised: Counter[str] = Counter()
    for name, editor in editors.items():
        inversion, *edits = asked(run.backbone, editor, sources, [masks[:1], masks])
        ours[name] = inversion + edits[0], inversion + edits[1]
        if name in OPTIMISED:
            optimised[name] = inversion - OPTIMISED[name] * plan.steps
    reference = {
        name: spent.rows(plan.steps) + optimised[name] for name, spent in REFERENCE.items()
    }
    lines = published("editing")
    table_1 = set(lines.loc[lines["editor"].isin([*REFERENCE]), "editor"])

    def sheet(title: str, rows: Callable[[str], tuple[int, int]]) -> Sheet:
        findings = [Finding(name, *rows(name), "") for name in REFERENCE]
        theirs, own = map(sum, zip(*map(rows, table_1), strict=True))
        return Sheet.of(title, [*findings, Finding("all rows of Table 1", theirs, own, "")])

    steps = f"{plan.steps} steps"
    return [
        sheet(f"U-Net rows of an edit, {steps}", lambda name: (reference[name], ours[name][0])),
        sheet(
            f"U-Net rows of edits under {plan.masks} masks, {steps}",
            lambda name: (plan.masks * reference[name], ours[name][1]),
        ),
    ], {"reference": reference, "ours": ours, "optimised": optimised}


def miniature(plan: Plan, folder: Path) -> Run:
    """The embedded miniature with all methods, at the published guidance; one thread, and blocks
    without padding.
    """
    overrides = (
        *("editor=[]", f"methods=[{','.join(REFERENCE)}]", "mask=[]", "tracker=none"),
        *("compat=reference", f"model.ddim_steps={plan.steps}", "model.guidance=7.5"),
        *("model.rows=1", "device=cpu", "threads=1", f"dataset.root={folder / 'data'}"),
        *(f"artifacts_dir={folder / 'artifacts'}", f"results_dir={folder / 'results'}"),
    )
    with initialize_config_dir(CONF, version_base="1.3"):
        return Run(compose("config", list(overrides)))


def countable(editor: Editor) -> Editor:
    """The editor, with another encoder where the miniature has none."""
    if not isinstance(editor, StyleDiffusion):
        return editor
    settings: Mapping[str, Any] = {f.name: getattr(editor, f.name) for f in fields(editor)}
    return RandomTokens(**settings)


def asked(
    backbone: Backbone, editor: Editor, sources: Sources, sets: Sequence[Tensor]
) -> Iterator[int]:
    """U-Net rows of one sample's inversion, and of its edits under each of these sets of masks."""
    counts = [backbone.counts["unet_rows"]]
    inverted = editor.invert(backbone, sources)
    counts.append(backbone.counts["unet_rows"])
    for masks in sets:
        owner = torch.zeros(len(masks), dtype=torch.long)
        editor.edit(backbone, sources, inverted, masks, owner)
        counts.append(backbone.counts["unet_rows"])
    return (after - before for before, after in pairwise(counts))


if __name__ == "__main__":
    main()
