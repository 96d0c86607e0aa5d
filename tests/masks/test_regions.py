"""Boxes around salient places: what is painted, what is kept, and the maps of it."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console
from tiny_pipelines import save_inpainting
from tiny_regions import save_clip, save_dino
from torch import Tensor

from piebench_masks.cli import CONF
from piebench_masks.data.scene import Scene
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.editor import Sources
from piebench_masks.editing.inpaint import Inpaint
from piebench_masks.editing.turbo_edit import TurboEdit
from piebench_masks.errors import BenchmarkError
from piebench_masks.identity import part_identity
from piebench_masks.masks import Saliency
from piebench_masks.masks.record import Record
from piebench_masks.masks.region_search import Boxes, Search
from piebench_masks.masks.regions import Regions
from piebench_masks.masks.regions_reference import PublishedSearch, RegionsReference
from piebench_masks.masks.soft_maps import SoftMaps, painted, soft_maps
from piebench_masks.metrics.clip import Clip
from piebench_masks.pipeline import run_pipeline
from piebench_masks.regions.choice import final_choice
from piebench_masks.regions.saliency import Dino
from piebench_masks.run import Run
from piebench_masks.runner import run_batches
from piebench_masks.stages.candidates import Tried, read_candidates
from piebench_masks.stages.maps import read_map
from piebench_masks.stages.parse import parse
from piebench_masks.weights import packaged

CPU = torch.device("cpu")
POINTS, HALF_SIZES, STEPS = 2, (4, 6), 2
CANDIDATES = POINTS * len(HALF_SIZES)
PROMPTS = "a red circle on grass", "a blue circle on grass"
Configure = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("regions")
    return {
        "dino": str(save_dino(root / "dino")),
        "clip": save_clip(root / "clip"),
        "inpainting": str(save_inpainting(root / "inpainting")),
    }


@pytest.fixture(scope="module")
def regions(weights: dict[str, str]) -> Regions:
    return Regions(
        search=Search(
            boxes=Boxes(Dino(weights["dino"]), POINTS, HALF_SIZES),
            painter=Inpaint(id=weights["inpainting"], steps=STEPS, rows=4),
            clip=Clip(model=weights["clip"], pretrained=None),
        )
    )


@pytest.fixture(scope="module")
def published(weights: dict[str, str]) -> RegionsReference:
    return RegionsReference(
        search=PublishedSearch(
            Dino(weights["dino"]),
            points=POINTS,
            largest=max(HALF_SIZES),
            painter=Inpaint(id=weights["inpainting"], steps=STEPS, rows=4, compat="reference"),
            clip=Clip(model=weights["clip"], pretrained=None),
        )
    )


def scene(name: str = "a", seed: int = 0) -> Scene:
    picture = torch.randint(
        256, (64, 64, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    return Scene(name, picture, *PROMPTS)


def maps(tiny: Backbone, methods: dict[str, Any], *scenes: Scene) -> SoftMaps:
    posterior = tiny.encode_images(torch.stack([one.image for one in scenes]))
    return soft_maps(tiny, posterior, scenes, methods)


def tensor(found: Any) -> Tensor:
    if not isinstance(found, Tensor):
        raise found
    return found


def test_saliency_is_dinos_and_knows_no_prompt(weights: dict[str, str]) -> None:
    method = Saliency(dino=Dino(weights["dino"]))
    (found,) = soft_maps(None, None, [scene()], {"s": method}, map_size=16)["s"]
    assert tensor(found).equal(method.dino.saliency(scene().image.numpy(), CPU, "exact"))
    assert found.shape == (32, 32) and found.max() == pytest.approx(1)
    assert method.knows == "nothing"


def test_the_prior_paints_nothing_and_adds_boxes_up(regions: Regions) -> None:
    prior = replace(regions, boxes="none")
    results = soft_maps(None, None, [scene()], {"prior": prior}, map_size=16)
    found = tensor(results["prior"][0])
    _, masks = regions.search.boxes.placed(scene().image, CPU)
    total = masks.flatten(0, 1).sum(dim=0)
    torch.testing.assert_close(found, total / total.max())
    assert results.costs["prior"][0].unet_rows == 0
    assert prior.knows == "nothing" and regions.knows == "scores"


def test_every_box_is_painted_and_the_map_is_their_union_by_loss(
    regions: Regions, tiny: Backbone
) -> None:
    every, best = replace(regions, temperature=0.05), replace(regions, boxes="best")
    results = maps(tiny, {"all": every, "best": best}, scene())
    assert results.costs["all"][0].unet_rows == 2 * STEPS * CANDIDATES
    table, masks = measured(regions, tiny, scene())
    loss = table.sum(axis=-1)
    for name, chosen, temperature in (
        ("all", [(p, s) for p in range(POINTS) for s in range(2)], 0.05),
        ("best", [(p, int(loss[p].argmin())) for p in range(POINTS)], 0.01),
    ):
        total = np.zeros((32, 32))
        lowest = min(loss[place] for place in chosen)
        for place in chosen:
            total += np.exp((lowest - loss[place]) / temperature) * masks[place]
        found = tensor(results[name][0]).numpy()
        np.testing.assert_allclose(found, total / total.max(), atol=1e-4)


def measured(regions: Regions, tiny: Backbone, one: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Losses float64 [P, S, 3] and masks [P, S, 32, 32] of a scene's candidates."""
    sources = Sources([one], tiny.encode_images(one.image[None]))
    found = painted(regions, tiny, sources, seed=8128).measurements
    return found["losses"].double().numpy(), found["masks"].numpy()


def test_a_map_does_not_depend_on_other_scenes(
    regions: Regions, published: RegionsReference, tiny: Backbone
) -> None:
    methods = {"regions": regions, "published": published}
    together = maps(tiny, methods, scene(), scene("b", 1))
    alone = maps(tiny, methods, scene("b", 1))
    for name in methods:
        assert tensor(together[name][1]).equal(tensor(alone[name][0]))
        assert not tensor(together[name][0]).equal(tensor(together[name][1]))


def test_any_editor_may_paint(regions: Regions, tiny: Backbone) -> None:
    other = replace(regions, search=replace(regions.search, painter=TurboEdit()))
    results = maps(tiny, {"inpaint": regions, "turbo_edit": other}, scene())
    found = [tensor(results[name][0]) for name in ("inpaint", "turbo_edit")]
    assert not found[0].equal(found[1])


def test_nothing_but_prompts_is_shown_to_the_painter(regions: Regions, tiny: Backbone) -> None:
    told = replace(
        scene(), instruction="paint it", blended_words="red blue", annotation=torch.ones(4, 4)
    )
    shown = told.as_known(regions.knows)
    assert (shown.instruction, shown.blended_words, shown.annotation) == ("", "", None)
    assert (shown.source_prompt, shown.target_prompt) == PROMPTS


def test_the_published_map_is_the_winners_box(published: RegionsReference, tiny: Backbone) -> None:
    results = maps(tiny, {"m": published}, scene())
    found = tensor(results["m"][0])
    assert results.costs["m"][0].unet_rows == 2 * STEPS * POINTS
    assert found.shape == (256, 256) and set(found.flatten().tolist()) == {0.0, 1.0}
    rows, columns = (found.any(dim=dim).nonzero().flatten() for dim in (1, 0))
    assert found.sum() == len(rows) * len(columns)
    assert not found[-1].any() and not found[:, -1].any()


def test_the_published_choice_is_by_both_cosines(published: RegionsReference) -> None:
    text, image = torch.tensor([0.9, 0.1]), torch.tensor([0.0, 0.3])
    boxes = torch.tensor([[0, 0, 9, 9], [50, 60, 90, 99]])
    record = Record(scene(), 16, candidates={"boxes": boxes, "text": text, "image": image})
    x1, y1, x2, y2 = boxes[final_choice(text, image)].tolist()
    found = published(record)
    assert found[y1:y2, x1:x2].all() and found.sum() == (x2 - x1) * (y2 - y1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"boxes": "some"}, "all, best, none"),
        ({"temperature": 0.0}, "above 0"),
        ({"weights": (1.0, 2.0)}, "each of three"),
    ],
)
def test_settings_without_a_meaning_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchmarkError, match=said):
        Regions(**settings)


def test_boxes_without_a_size_are_named() -> None:
    with pytest.raises(BenchmarkError, match=r"half_sizes=\[\]"):
        Boxes(half_sizes=())


def test_a_clip_without_a_vision_transformer_is_named(regions: Regions) -> None:
    clip = Clip(model=f"local-dir:{packaged('clip_shapes')}", pretrained=None)
    search = replace(regions.search, clip=clip)
    with pytest.raises(BenchmarkError, match="no vision transformer"):
        search.load(CPU)
    replace(search, structure="dino").load(CPU)


def test_candidates_are_told_apart_by_what_paints_and_scores_them(
    regions: Regions, tmp_path: Path
) -> None:
    search = regions.search
    others = [
        replace(search, boxes=replace(search.boxes, points=3)),
        replace(search, boxes=replace(search.boxes, half_sizes=(4, 8))),
        replace(search, painter=replace(search.painter, guidance=3.0)),
        replace(search, structure="dino"),
        replace(search, template="{}"),
        replace(search, clip=Clip(model=save_clip(tmp_path / "clip"), pretrained=None, name="x")),
    ]
    identities = [str(part_identity(one)) for one in (search, *others)]
    assert len(set(identities)) == len(identities)
    assert part_identity(replace(search, rows=3)) == part_identity(search)


@pytest.fixture
def configure(tmp_path: Path, weights: dict[str, str]) -> Configure:
    """A configuration of two samples with tiny networks, and an artifact folder of its own."""
    write_shapes(tmp_path / "shapes", per_type=1)

    def configured(*overrides: str, name: str = "regions") -> DictConfig:
        search = f"mask.{name}.search"
        whole = name == "regions"
        boxes = f"{search}.boxes" if whole else search
        sizes = f"half_sizes={[*HALF_SIZES]}" if whole else f"largest={max(HALF_SIZES)}"
        fixed = [
            f"artifacts_dir={tmp_path}/artifacts",
            f"results_dir={tmp_path}/results",
            f"dataset.root={tmp_path}/shapes",
            *("name=run", "tracker=none", "baselines=[]", "threads=1", "limit=2", "batch_size=1"),
            *("stages=[parse,masks,score]", f"mask=[{name}]", "editor=[]"),
            *(f"{boxes}.points={POINTS}", f"{boxes}.{sizes}"),
            *(f"{boxes}.dino.model={weights['dino']}", f"{search}.clip.pretrained=null"),
            f"{search}.clip.model='{weights['clip']}'",
            f"{search}.painter.id={weights['inpainting']}",
            *(f"{search}.painter.steps={STEPS}", f"{search}.painter.variant=null"),
        ]
        with initialize_config_dir(CONF, version_base="1.3"):
            return compose("config", [*fixed, *overrides])

    return configured


def finished(cfg: DictConfig) -> tuple[int, str]:
    """How many items failed, and what was printed."""
    console = Console(file=io.StringIO(), record=True, width=200)
    return run_pipeline(cfg, cfg.stages, console), console.export_text()


@pytest.mark.parametrize("name", ["regions", "regions_reference"])
def test_a_rerun_paints_nothing(configure: Configure, name: str) -> None:
    failed, text = finished(configure(name=name))
    per_sample = 2 * STEPS * (CANDIDATES if name == "regions" else POINTS)
    assert failed == 0 and f"{2 * per_sample} U-Net rows" in text
    assert "nothing to compute" in finished(configure("batch_size=2", name=name))[1]


def test_other_temperatures_make_other_maps_of_the_same_edits(configure: Configure) -> None:
    finished(configure())
    failed, text = finished(configure("mask.regions.temperature=0.5"))
    assert failed == 0 and " 0 U-Net rows" in text
    runs = [Run(configure(*more)) for more in ((), ("mask.regions.temperature=0.5",))]
    (sample, *_) = parse(runs[0], Console(file=io.StringIO())).samples
    one, other = (read_map(run, "regions", sample) for run in runs)
    assert one is not None and other is not None and not one.equal(other)
    assert (other > 0).equal(one > 0) or other.min() >= 0


def test_a_run_that_was_stopped_goes_on_at_the_next_batch(configure: Configure) -> None:
    run = Run(configure())
    samples = parse(run, Console(file=io.StringIO())).samples
    stage = Tried(run, samples, "regions")
    stage.prepare()
    first, second = stage.pending()
    list(run_batches(stage, [[first]], run.counts))
    resumed = Run(configure())
    rest = Tried(resumed, samples, "regions").pending()
    assert [work.sample.id for work in rest] == [second.sample.id]
    before = read_candidates(run, "regions", first.sample)
    assert finished(configure())[0] == 0
    after = read_candidates(run, "regions", first.sample)
    assert before is not None and after is not None
    assert before["seconds"].equal(after["seconds"])  # it is the same file
    folder = Path(run.cfg.artifacts_dir) / "candidates"
    assert len(list(folder.glob("*/*/*.png"))) == 2 * CANDIDATES


def test_the_experiment_is_the_public_codes_protocol(
    configure: Configure, weights: dict[str, str], tmp_path: Path
) -> None:
    tiny_run = (
        *("experiment=learnable_regions", "editor=[inpaint]", "dataset=shapes", "metrics=shapes"),
        *("model=shapes_turbo", "model.variant=null", f"editor.inpaint.steps={STEPS}"),
    )
    cfg = configure(*tiny_run, "stages=[parse,masks,edit,score,report]", name="regions_reference")
    assert finished(cfg)[0] == 0
    painter, editor = cfg.mask.regions_reference.search.painter, cfg.editor.inpaint
    assert (painter.compat, editor.compat, cfg.thresholds) == ("reference", "reference", "one")
    assert (editor.id, editor.template) == (weights["inpainting"], painter.template)
    results = tmp_path / "results" / "run"
    rows = pd.read_parquet(results / "edit_scores.parquet")
    assert set(rows["method"]) >= {"regions_reference", "identity"}
    for file in (results / "samples").glob("*.js"):
        text = file.read_text()
        data = json.loads(text[text.index(",") + 1 : text.rindex(")")])
        tried = data["candidates"]["regions_reference"]
        assert len(tried["points"]) == len(tried["boxes"]) == POINTS and tried["by"] == "score"


def test_what_a_report_draws_is_what_was_painted(regions: Regions, tiny: Backbone) -> None:
    sources = Sources([scene()], tiny.encode_images(scene().image[None]))
    found = painted(regions, tiny, sources, seed=8128).measurements
    drawn = regions.candidate_boxes(found)
    pixels = (drawn.boxes * 32).long()
    for (x1, y1, x2, y2), mask in zip(
        pixels.flatten(0, 1).tolist(), found["masks"].flatten(0, 1), strict=True
    ):
        assert mask[y1:y2, x1:x2].all() and mask.sum() == (x2 - x1) * (y2 - y1)
    loss = found["losses"].sum(dim=-1)
    assert drawn.kept == loss.argmin() and drawn.values.flatten()[drawn.kept] == loss.min()
    salient = regions.search.boxes.dino.saliency(scene().image.numpy(), CPU, "exact")
    x, y = (drawn.points[0] * 32).long().tolist()
    assert salient[y, x] == salient.max()


def test_the_structure_may_be_that_of_dinos_tokens(regions: Regions, tiny: Backbone) -> None:
    search = replace(regions.search, structure="dino")
    sources = Sources([scene()], tiny.encode_images(scene().image[None]))
    found, of_clip = (one(tiny, sources, 5) for one in (search, regions.search))
    table, other = found.measurements["losses"], of_clip.measurements["losses"]
    assert table[..., :2].equal(other[..., :2]) and not table[..., 2].equal(other[..., 2])
    layouts = []
    for picture in (scene().image, found.edits[0]):
        tokens = search.boxes.dino.features(picture.numpy(), CPU, "exact").tokens.double()
        unit = tokens / tokens.norm(dim=-1, keepdim=True)
        layouts.append(unit @ unit.T)
    expected = (layouts[1] - layouts[0]).square().mean().item()
    assert table[0, 0, 2].item() == pytest.approx(expected, rel=1e-4)
