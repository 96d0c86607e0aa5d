"""What must hold of every editor: asked of each one in its own tests, on tiny random models."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.diffusion.loading import load_backbone
from piebench_masks.editing.editor import Editor, Sampled, Sources

LEFT = torch.arange(16).expand(16, 16) < 8
NOTHING = torch.zeros(16, 16, dtype=torch.bool)
EVERYTHING = ~NOTHING
MASKS = torch.stack([EVERYTHING, NOTHING, LEFT, ~LEFT])
OWNER = torch.tensor([0, 1, 1, 0])
"""Four edits of two samples."""


class Watched:
    """A backbone that shows what its U-Net is given: by time step, the latents of every call."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.calls: list[tuple[int, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def predict_noise(self, latents: Tensor, timesteps: Tensor, *rest: Any) -> Tensor:
        self.calls.append((int(timesteps[0]), latents))
        return self.backbone.predict_noise(latents, timesteps, *rest)


def two_samples(backbone: Backbone) -> Sources:
    noise = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    images = (noise * 255).to(torch.uint8)
    scenes = [
        Scene(
            "0",
            images[0],
            "a red circle on grass",
            "a blue circle on grass",
            instruction="a blue circle",
            blended_words="circle circle",
            annotation=LEFT,
        ),
        Scene("1", images[1], "a big circle", "a big square and a circle", annotation=EVERYTHING),
    ]
    return Sources(scenes, backbone.encode_images(images))


def changed(sources: Sources, **texts: Sequence[str]) -> Sources:
    """The sources with other texts, one per sample: ``target_prompt=["a", "b"]``."""
    rows = [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
    scenes = [replace(scene, **row) for scene, row in zip(sources.scenes, rows, strict=True)]
    return replace(sources, scenes=scenes)


def one_sample(sources: Sources, row: int) -> Sources:
    return Sources([sources.scenes[row]], sources.encoded[[row]])


def sample(editor: Any, backbone: Any, sources: Sources, masks: Tensor, owner: Tensor) -> Sampled:
    return editor.sample(backbone, sources, editor.invert(backbone, sources), masks, owner)


def company_changes_nothing(editor: Any, folder: Path) -> None:
    """Neither other samples and masks, nor their order, nor how many go through the U-Net at once.

    folder: of the model. In double precision, as untrained models amplify what is rounded.
    """
    backbone, other = (load_backbone(folder, dtype=torch.float64, rows=rows) for rows in (2, 1))
    sources = two_samples(backbone)
    together = sample(editor, backbone, sources, MASKS, OWNER)
    for row in (0, 2):  # one of each sample
        own = one_sample(sources, int(OWNER[row]))
        alone = sample(editor, other, own, MASKS[[row]], torch.tensor([0]))
        torch.testing.assert_close(alone.latents[0], together.latents[row], atol=1e-4, rtol=1e-4)
        assert alone.nfe[0] == together.nfe[row]


def evaluations_are_counted(editor: Editor, backbone: Backbone) -> None:
    """nfe is what the U-Net was asked for, the source branch counted with its sample's one mask."""
    sources = two_samples(backbone)
    before = backbone.counts["unet_rows"]
    inverted = editor.invert(backbone, sources)
    assert inverted.nfe.sum() == backbone.counts["unet_rows"] - before
    before = backbone.counts["unet_rows"]
    edited = editor.edit(backbone, sources, inverted, MASKS[:2], OWNER[:2])
    assert edited.nfe.sum() == backbone.counts["unet_rows"] - before


def outside_is_the_sources_own(editor: Editor, backbone: Backbone, *, shared: int = 0) -> None:
    """Whatever a step of an edit is given has, outside its mask, the inverted source's latents.

    shared: how many steps are asked of the U-Net with the inversion, for all masks at once.
    """
    sources, watched = two_samples(backbone), Watched(backbone)
    inverted = editor.invert(backbone, sources)
    editor.edit(watched, sources, inverted, MASKS, OWNER)  # type: ignore[arg-type]
    outside = ~MASKS[:, None].expand(-1, 4, -1, -1)
    for timestep, y in watched.calls:
        if len(y) >= len(MASKS):  # of the edits, and not of their two sources
            x = inverted.x[inverted.timesteps.index(timestep)][OWNER]
            for rows in y.split(len(MASKS)):  # with the target and without it
                assert torch.equal(rows[outside], x[outside])
    assert {timestep for timestep, _ in watched.calls} == set(inverted.timesteps[shared:])


def everything_is_no_mask(editor: Any, backbone: Backbone) -> None:
    """Where all is to be edited, the source's latents below the noisiest have no part in it."""
    sources = two_samples(backbone)
    inverted = editor.invert(backbone, sources)
    spoilt = inverted.x.clone()
    spoilt[1:] = torch.nan
    masks, owner = EVERYTHING.expand(2, -1, -1), torch.tensor([0, 1])
    expected = editor.sample(backbone, sources, inverted, masks, owner).latents
    found = editor.sample(backbone, sources, replace(inverted, x=spoilt), masks, owner).latents
    assert torch.equal(found, expected)
