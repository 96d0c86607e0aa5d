"""One table says what loads which folder, and a model that is no U-Net comes in by it."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from toy import Toy

from piebench_masks.data.scene import Scene
from piebench_masks.diffusion.backbone import Backbone, Posterior
from piebench_masks.diffusion.loading import (
    BACKBONES,
    backbone_class,
    load_backbone,
)
from piebench_masks.editing.diffedit import DiffEdit
from piebench_masks.editing.editor import Edited, Editor, Sources, check_needs, paint
from piebench_masks.editing.inversion import direct
from piebench_masks.editing.masactrl import MasaCtrl
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import METHODS
from piebench_masks.masks.soft_maps import soft_maps

LEFT = torch.arange(16).expand(16, 16) < 8


@dataclass(frozen=True)
class Inverted(Editor):
    """Pixels alone: the negative of what is under the mask."""

    needs: ClassVar[None] = None

    def invert(self, backbone: Any, sources: Sources) -> Any:
        assert backbone is None and sources.posterior is None
        return SimpleNamespace(nfe=torch.zeros(len(sources), dtype=torch.long))

    def edit(
        self, backbone: Any, sources: Sources, inverted: Any, masks: Tensor, owner: Tensor
    ) -> Edited:
        images = sources.images[owner]
        part = masks.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        images = torch.where(part[..., None], 255 - images, images)
        nothing = torch.zeros(len(owner), dtype=torch.long)
        return Edited(images, nothing, torch.ones(len(owner), dtype=torch.bool))


def folder_of(path: Path, name: str) -> Path:
    (path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    return path


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    monkeypatch.setitem(BACKBONES, "Toy", Toy)
    folder = folder_of(tmp_path, "Toy")
    assert backbone_class(folder).describe(folder, few_steps=True) == (32, 16, frozenset())
    return load_backbone(folder, rows=3, vae_rows=1)


@pytest.fixture
def scene() -> Scene:
    """Bright on the left, black on the right."""
    image = torch.zeros(32, 32, 3, dtype=torch.uint8)
    image[:, :16] = torch.tensor([200, 40, 40], dtype=torch.uint8)
    return Scene("0", image, "a red square", "a blue square")


def test_a_folder_of_an_unknown_kind(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "NewPipeline")
    known = r"names NewPipeline.*StableDiffusionPipeline.*StableDiffusionXLPipeline.*BACKBONES"
    for ask in (load_backbone, backbone_class):
        with pytest.raises(BenchmarkError, match=known):
            ask(folder)


def test_maps_of_a_model_without_attention(toy: Backbone, scene: Scene) -> None:
    posterior = toy.encode_images(scene.image[None])
    methods = {"diffedit": METHODS["diffedit"]}
    [found] = soft_maps(toy, posterior, [scene], methods)["diffedit"]
    assert isinstance(found, Tensor) and found.shape == (16, 16)
    assert found[LEFT].mean() > 1.5 * found[~LEFT].mean()


def test_edits_by_a_rectified_flow(toy: Backbone, scene: Scene) -> None:
    sources = Sources([scene], toy.encode_images(scene.image[None]))
    masks, owner = torch.stack([LEFT, ~LEFT]), torch.tensor([0, 0])
    before = toy.counts["unet_rows"]
    edited, costs = paint(toy, DiffEdit(steps=8, guidance=1.0), sources, masks, owner)
    assert edited.finite.all()
    assert toy.counts["unet_rows"] - before == 6 + 2 * 6
    assert [cost[:2] for cost in costs] == [(6, 6), (6, 6)]
    left, right = edited.images
    assert torch.equal(left[:, 16:], scene.image[:, 16:])  # outside its mask
    assert (left[:, :16].float() - torch.tensor([0.0, 0.0, 255.0])).abs().mean() < 60
    assert torch.equal(right[:, :16], scene.image[:, :16])


def test_pixels_are_edited_without_a_model(scene: Scene) -> None:
    masks, owner = torch.stack([LEFT, ~LEFT]), torch.tensor([0, 0])
    edited, costs = paint(None, Inverted(), Sources([scene], None), masks, owner)
    assert torch.equal(edited.images[0, :, :16], 255 - scene.image[:, :16])
    assert torch.equal(edited.images[0, :, 16:], scene.image[:, 16:])
    assert [cost[:2] for cost in costs] == [(0, 0)] * 2


def test_what_a_model_lacks_is_named_before_it_is_asked(toy: Backbone) -> None:
    check_needs(Inverted(), toy.provides)
    check_needs(DiffEdit(), toy.provides)
    with pytest.raises(BenchmarkError, match=r"masa needs self_attention.* toy .*leave masa out"):
        check_needs(MasaCtrl(direct), toy.provides, name="masa", model="toy")


def test_an_editor_without_its_posterior_says_so(toy: Backbone, scene: Scene) -> None:
    with pytest.raises(BenchmarkError, match="needs"):
        paint(toy, DiffEdit(), Sources([scene], None), LEFT[None], torch.tensor([0]))


def test_latents_that_are_not_finite_are_told_from_those_that_are(
    toy: Backbone, scene: Scene
) -> None:
    other = Scene("1", scene.image, "a red square", "a blue square")
    posterior = toy.encode_images(torch.stack([scene.image, other.image]))
    posterior.mean[1] = torch.nan
    sources = Sources([scene, other], Posterior(posterior.mean, posterior.std))
    masks, owner = torch.stack([LEFT, LEFT]), torch.tensor([1, 0])
    edited, _ = paint(toy, DiffEdit(guidance=1.0), sources, masks, owner)
    assert edited.finite.tolist() == [False, True]
    assert not edited.images[0].any() and edited.images[1].any()
