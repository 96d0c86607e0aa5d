"""Baselines need no model, only the annotated mask."""

import pytest
import torch

from piebench_masks.data.scene import Scene
from piebench_masks.masks import METHODS
from piebench_masks.masks.baselines import BASELINES
from piebench_masks.masks.record import MapError, Record

ANNOTATION = torch.zeros(64, 64, dtype=torch.bool)
ANNOTATION[10:40, 8:24] = True


def record(annotation: torch.Tensor | None, seed: int = 0) -> Record:
    scene = Scene("a", torch.zeros(64, 64, 3, dtype=torch.uint8), "", "", annotation=annotation)
    return Record(scene, map_size=16, seed=seed)


def mask(name: str, annotation: torch.Tensor | None = ANNOTATION, seed: int = 0) -> torch.Tensor:
    method = METHODS[name]
    soft_map = method(record(annotation, seed))
    return method.cutter.masks(soft_map, [method.threshold], (64, 64), "exact")[0]


def test_full_empty_and_centre() -> None:
    assert mask("full").all()
    assert not mask("empty").any()
    assert mask("centre")[16:48, 16:48].float().mean() > 0.95
    assert mask("centre").sum() <= 32 * 32


def test_random_has_the_annotated_area_and_its_own_seed() -> None:
    cells = METHODS["random"](record(ANNOTATION))
    assert cells.mean().item() == pytest.approx(ANNOTATION.float().mean().item(), abs=1 / 256)
    assert torch.equal(mask("random", seed=1), mask("random", seed=1))
    assert not torch.equal(mask("random", seed=1), mask("random", seed=2))


def test_oracle_is_the_annotated_mask_up_to_its_grid() -> None:
    found = mask("oracle")
    assert (found & ANNOTATION).sum() / (found | ANNOTATION).sum() > 0.85


@pytest.mark.parametrize("name", BASELINES)
def test_only_what_is_read_must_be_there(name: str) -> None:
    if METHODS[name].knows == "annotation":
        with pytest.raises(MapError, match="annotated mask"):
            mask(name, annotation=None)
    else:
        assert mask(name, annotation=None).shape == (64, 64)
