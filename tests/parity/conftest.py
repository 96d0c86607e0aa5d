"""The stored cases: the parity tests are skipped where they are not at hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from editors import EditorGoldens
from editors_more import MoreGoldens
from goldens import SHARED, THREADS, Goldens
from items import ItemGoldens
from masks import MaskGoldens
from regions import RegionGoldens


@pytest.fixture(scope="package", autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"no reference data at {SHARED}; set PIEBENCH_SHARED to its folder")
    return SHARED


@pytest.fixture(scope="session")
def goldens(shared: Path) -> Goldens:
    return Goldens(shared / "goldens" / "public", shared / "goldens" / "model")


@pytest.fixture(scope="session")
def mask_goldens(shared: Path) -> MaskGoldens:
    return MaskGoldens(shared / "goldens_masks" / "public", shared)


@pytest.fixture(scope="session")
def more_goldens(shared: Path) -> MoreGoldens:
    return MoreGoldens(shared / "goldens_editors_more" / "public", shared)


@pytest.fixture(scope="session")
def editor_goldens(shared: Path) -> EditorGoldens:
    folder = shared / "goldens_editors"
    return EditorGoldens(folder / "public", folder / "model")


@pytest.fixture(scope="session")
def item_goldens(shared: Path) -> ItemGoldens:
    return ItemGoldens(shared / "goldens_items" / "public", shared)


@pytest.fixture(scope="session")
def region_goldens(shared: Path) -> RegionGoldens:
    return RegionGoldens(shared / "goldens_regions" / "public", shared)
