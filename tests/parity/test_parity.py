"""Every family of stored figures, and the command that compares a folder of them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import check
import numpy as np
import pytest
from editors import EDITOR_FAMILIES, SLOW_FAMILIES, EditorGoldens
from editors_ledits import LEDITS_FAMILIES
from editors_masactrl import FEATURE_FAMILIES, SLOW_FEATURE_FAMILIES
from editors_more import MORE_FAMILIES, MoreGoldens
from editors_published import PUBLISHED_FAMILIES, QUICK_PUBLISHED_FAMILIES
from families import (
    FAMILIES,
    Check,
    edit_latents,
    editing_metrics,
    official_scores,
    pictures,
    soft_maps,
    sweep,
)
from goldens import Goldens, Pair
from items import ItemGoldens
from items_fit import ITEM_FIT_FAMILIES, tokens
from items_masks import ITEM_MASK_FAMILIES
from masks import MASK_FAMILIES, MaskGoldens
from regions import RegionGoldens
from regions_families import QUICK_REGION_FAMILIES, REGION_FAMILIES

from piebench_masks.diffusion.ddpm import start_timestep, trailing_timesteps
from piebench_masks.editing.turbo_edit import NOISE_TIMESTEPS, TIMESTEPS

LONG_FAMILIES = (soft_maps, edit_latents)
LAST_FAMILIES = (sweep, pictures, editing_metrics)
"""More than half of all families' time. The last ones follow from edits and networks, which are
compared every time; so are the official evaluator's scores."""


@pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if family not in LAST_FAMILIES],
    ids=lambda family: family.__name__,
)
def test_the_references_figures(goldens: Goldens, family: Any) -> None:
    compare(family, goldens.pairs[::-3] if family in LONG_FAMILIES else goldens.pairs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", (*LONG_FAMILIES, *LAST_FAMILIES), ids=lambda family: family.__name__
)
def test_all_of_the_references_figures(goldens: Goldens, family: Any) -> None:
    compare(family, goldens.pairs)


def compare(family: Any, pairs: Sequence[Pair]) -> None:
    checks = [found for pair in pairs for found in family(pair)]
    assert checks
    assert [found for found in checks if not found.ok] == []


@pytest.mark.parametrize(
    "family",
    [
        family
        for family in (*EDITOR_FAMILIES, *FEATURE_FAMILIES)
        if family not in (*SLOW_FAMILIES, *SLOW_FEATURE_FAMILIES)
    ],
    ids=lambda family: family.__name__,
)
def test_the_references_editors_on_one_pair(editor_goldens: EditorGoldens, family: Any) -> None:
    cases = [case for case in editor_goldens.cases if case.key != "insert_coffee"]
    assert _out(family, cases) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", (*EDITOR_FAMILIES, *FEATURE_FAMILIES), ids=lambda family: family.__name__
)
def test_the_references_editors(editor_goldens: EditorGoldens, family: Any) -> None:
    assert _out(family, editor_goldens.cases) == []


@pytest.mark.parametrize("family", QUICK_PUBLISHED_FAMILIES, ids=lambda family: family.__name__)
def test_parts_of_more_editors(more_goldens: MoreGoldens, family: Any) -> None:
    assert _out(family, more_goldens.cases) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        family
        for family in (*PUBLISHED_FAMILIES, *MORE_FAMILIES)
        if family not in QUICK_PUBLISHED_FAMILIES
    ],
    ids=lambda family: family.__name__,
)
def test_more_editors(more_goldens: MoreGoldens, family: Any) -> None:
    assert _out(family, more_goldens.cases) == []


@pytest.mark.parametrize(
    "family",
    [*MASK_FAMILIES, *(pytest.param(family, marks=pytest.mark.slow) for family in LEDITS_FAMILIES)],
    ids=lambda family: family.__name__,
)
def test_published_mask_methods(mask_goldens: MaskGoldens, family: Any) -> None:
    assert _out(family, mask_goldens.cases) == []


@pytest.mark.parametrize(
    "family",
    [
        # Fits and edits read what they were made from.
        pytest.param(family, marks=pytest.mark.slow if family is tokens else ())
        for family in ITEM_FIT_FAMILIES
    ],
    ids=lambda family: family.__name__,
)
def test_fits_and_edits_of_items(item_goldens: ItemGoldens, family: Any) -> None:
    assert _out(family, item_goldens.cases) == []


@pytest.mark.parametrize("family", ITEM_MASK_FAMILIES, ids=lambda family: family.__name__)
def test_masks_and_regions_of_items(item_goldens: ItemGoldens, family: Any) -> None:
    assert _out(family, item_goldens.cases) == []


@pytest.mark.parametrize("family", QUICK_REGION_FAMILIES, ids=lambda family: family.__name__)
def test_regions(region_goldens: RegionGoldens, family: Any) -> None:
    assert _out(family, region_goldens.cases) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [family for family in REGION_FAMILIES if family not in QUICK_REGION_FAMILIES],
    ids=lambda family: family.__name__,
)
def test_regions_that_are_painted(region_goldens: RegionGoldens, family: Any) -> None:
    assert _out(family, region_goldens.cases) == []


def test_a_thinned_folder_of_regions_is_compared_as_far_as_it_goes(
    shared: Path, tmp_path: Path
) -> None:
    """A unit without its network, and a pair without its picture."""
    public = shared / "goldens_regions" / "public"
    for name in ("kind.json", "units.json", "bird.json"):
        shutil.copy(public / name, tmp_path)
    names = ("coord/ceil_fp32", "points/arr", "points/w6_n4", "region/corner/feats", "lr/T3")
    with np.load(public / "units.npz") as arrays:
        kept = {name: arrays[name] for name in names}
    np.savez(tmp_path / "units.npz", **kept)
    with np.load(public / "bird.npz") as arrays:
        np.savez(tmp_path / "bird.npz", **{"call0/points": arrays["call0/points"]})
    assert check.main([str(tmp_path)]) == 0
    np.savez(tmp_path / "units.npz", **{**kept, "points/w6_n4": kept["points/w6_n4"] + 1})
    assert check.main([str(tmp_path)]) == 1


def _out(family: Any, cases: Any) -> list[Check]:
    checks = [found for case in cases for found in family(case)]
    assert checks
    return [found for found in checks if not found.ok]


def test_the_official_evaluators_scores_of_published_edits(shared: Path) -> None:
    checks = list(official_scores(shared / "data" / "piebench_mini", shared / "weights"))
    assert len(checks) == 12 * 13
    assert [found for found in checks if not found.ok] == []


def test_schedule(goldens: Goldens, shared: Path) -> None:
    schedule = json.loads((shared / "goldens" / "schedule.json").read_text())
    for timestep, alpha in schedule["alphas_cumprod"].items():
        assert goldens.backbone.level(int(timestep)).alpha.item() == alpha
    assert trailing_timesteps(4) == schedule["ddpm_4"]["timesteps"]
    assert trailing_timesteps(5) == schedule["ddpm_5"]["timesteps"]
    for strength, timestep in schedule["mask_timesteps (strength -> t)"].items():
        assert start_timestep(float(strength)) == timestep
    for steps, turbo in schedule["turbo_edit"].items():
        assert list(TIMESTEPS[int(steps)]) == turbo["timesteps"]
        assert list(NOISE_TIMESTEPS[int(steps)]) == [t for t in turbo["noise_timesteps"] if t]


@pytest.fixture
def thinned(shared: Path, tmp_path: Path) -> Path:
    """One case of a folder with little in it: two arrays and the prompts."""
    key, public = "611000000000", shared / "goldens" / "public"
    facts = json.loads((public / f"{key}.json").read_text())
    kept = {name: facts[name] for name in ("source_prompt", "target_prompt", "png", "prompt_diff")}
    (tmp_path / f"{key}.json").write_text(json.dumps(kept))
    (tmp_path / "inputs" / "png").mkdir(parents=True)
    shutil.copy(public / "inputs" / facts["png"], tmp_path / "inputs" / "png")
    names = ("map/euler/ours/nr1/s0.5/argmax/raw16", "mask64/script/ours")
    with np.load(public / f"{key}.npz") as arrays:
        np.savez(tmp_path / f"{key}.npz", **{name: arrays[name] for name in names})
    return tmp_path


def test_the_command_compares_what_is_there(
    thinned: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([str(thinned), "--model", str(shared / "goldens" / "model")]) == 0
    table = capsys.readouterr().out
    assert [table.count(family) for family in ("prompt diff", "raw att", "binarised")] == [1] * 3
    assert "sweep" not in table


def test_the_command_fails_where_a_figure_is_out_or_cannot_be_computed(
    thinned: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(thinned.glob("*.npz"))
    with np.load(path) as arrays:
        spoiled = {name: arrays[name] for name in arrays}
    spoiled["map/euler/ours/nr1/s0.5/argmax/raw16"] += np.float32(1e-3)
    spoiled["sweep/mask64"] = np.zeros((1, 512), np.uint8)  # without its labels
    np.savez(path, **spoiled)
    assert check.main([str(thinned), "--model", str(shared / "goldens" / "model")]) == 1
    out = capsys.readouterr().out
    assert "out: raw attention maps: map/euler/ours/nr1/s0.5/argmax/raw16: 0.001" in out
    assert "masks of 611000000000: KeyError: 'sweep_labels'" in out


@pytest.fixture
def units(shared: Path, tmp_path: Path) -> Path:
    """The units of more editors, in a folder of another name."""
    public = shared / "goldens_editors_more" / "public"
    for name in ("kind.json", "units_instruct.json", "units_instruct.npz"):
        shutil.copy(public / name, tmp_path)
    return tmp_path


def test_a_folders_own_word_says_what_it_is_and_what_is_left_is_listed(
    units: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([str(units)]) == 0
    out = capsys.readouterr().out
    assert "InstructDiffusion noise levels" in out
    assert "not compared: sigma_to_t: sigma, t, t_quantized" in out
    with np.load(units / "units_instruct.npz") as arrays:
        spoiled = {name: arrays[name] + 1 for name in arrays}
    np.savez(units / "units_instruct.npz", **spoiled)
    assert check.main([str(units)]) == 1
    (units / "kind.json").write_text('{"kind": "goldens_unknown"}')
    assert check.main([str(units)]) == 1
    out = " ".join(capsys.readouterr().out.split())  # the console breaks lines
    assert "of the kind goldens_unknown, which nothing here compares" in out


def test_an_empty_folder_is_not_a_success(tmp_path: Path) -> None:
    assert check.main([str(tmp_path)]) == 1


def test_a_number_where_nothing_was_expected_is_out() -> None:
    assert not Check("family", "case", float("nan"), 1.0).ok
