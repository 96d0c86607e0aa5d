"""Baselines need no model, only the annotated mask."""

import pytest
import torch

from piebench_masks.masks import METHODS
from piebench_masks.masks.baselines import BASELINES
from piebench_masks.masks.method import MapError, Record

ANNOTATION = torch.zeros(64, 64, dtype=torch.bool)
ANNOTATION[10:40, 8:24] = True


def mask(name: str, annotation: torch.Tensor | None = ANNOTATION, seed: int = 0) -> torch.Tensor:
    method = METHODS[name]
    record = Record({}, {}, annotation, map_size=16, seed=seed)
    soft_map = method.soft_map(record)
    return method.binarizer.masks(soft_map, [method.threshold], (64, 64), "exact")[0]


def test_full_empty_and_centre() -> None:
    assert mask("full").all()
    assert not mask("empty").any()
    assert mask("centre")[16:48, 16:48].float().mean() > 0.95
    assert mask("centre").sum() <= 32 * 32


def test_random_has_the_annotated_area_and_its_own_seed() -> None:
    method = METHODS["random"]
    cells = method.soft_map(Record({}, {}, ANNOTATION, map_size=16, seed=0))
    assert cells.mean().item() == pytest.approx(ANNOTATION.float().mean().item(), abs=1 / 256)
    assert torch.equal(mask("random", seed=1), mask("random", seed=1))
    assert not torch.equal(mask("random", seed=1), mask("random", seed=2))


def test_oracle_is_the_annotated_mask_up_to_its_grid() -> None:
    found = mask("oracle")
    assert (found & ANNOTATION).sum() / (found | ANNOTATION).sum() > 0.85


@pytest.mark.parametrize("name", [method.name for method in BASELINES])
def test_only_what_is_read_must_be_there(name: str) -> None:
    if METHODS[name].reads == "annotation":
        with pytest.raises(MapError, match="annotated mask"):
            mask(name, annotation=None)
    else:
        assert mask(name, annotation=None).shape == (64, 64)
