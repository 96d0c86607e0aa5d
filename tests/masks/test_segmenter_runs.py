"""Runs with segmenters: what they load, and that every method of the configuration has its say."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console
from tiny_regions import save_dino

from piebench_masks.cli import CONF
from piebench_masks.data.sample import Sample
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.masks import SEGMENTERS
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.runner import run_batches
from piebench_masks.stages.maps import Maps, read_map
from piebench_masks.stages.parse import parse
from piebench_masks.stages.scores import mask_scores
from piebench_masks.weights import WeightsError

Configure = Callable[..., DictConfig]
SHARED = Path(os.environ.get("PIEBENCH_SHARED", Path(__file__).parents[3] / "shared"))
MINI = SHARED / "data" / "piebench_mini"
EVERY = sorted(path.stem for path in (Path(CONF) / "mask").glob("*.yaml"))


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """A configuration with these overrides and an artifact folder of its own."""

    def configured(*overrides: str) -> DictConfig:
        places = f"artifacts_dir={tmp_path}/artifacts", f"results_dir={tmp_path}/results"
        fixed = [*places, "name=run", "tracker=none", "baselines=[]", "threads=1"]
        with initialize_config_dir(CONF, version_base="1.3"):
            return compose("config", [*fixed, *overrides])

    return configured


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    """The override for a data set of one scene of each edit type."""
    write_shapes(tmp_path / "shapes", per_type=1)
    return f"dataset.root={tmp_path}/shapes"


@pytest.fixture
def tiny_weights(segmenters: dict[str, Path], tmp_path: Path) -> dict[str, list[str]]:
    """The overrides that give each method with a network of its own a tiny one."""
    models = {
        "clipseg": {"model": "clipseg"},
        "clipseg_shapes": {"model": "clipseg"},
        "sam3": {"model": "sam3"},
        "grounded_sam": {"model": "grounding_dino", "mask_model": "sam2"},
    }
    overrides = {
        name: [f"mask.{name}.{setting}={segmenters[model]}" for setting, model in given.items()]
        for name, given in models.items()
    }
    return overrides | {"saliency": [f"mask.saliency.dino.model={save_dino(tmp_path / 'dino')}"]}


def finished(cfg: DictConfig) -> tuple[int, str]:
    """How many items failed, and what was printed."""
    console = Console(file=io.StringIO(), record=True, width=200)
    return run_pipeline(cfg, cfg.stages, console), console.export_text()


def samples_of(run: Run) -> list[Sample]:
    return parse(run, Console(file=io.StringIO())).samples


def computed_maps(run: Run, samples: Sequence[Sample]) -> dict[tuple[str, str], str]:
    """Compute them; why there is none, by sample and method."""
    stage = Maps(run, samples)
    stage.prepare()
    work = stage.pending()
    batches = [work[i : i + 4] for i in range(0, len(work), 4)]
    outcomes = list(run_batches(stage, batches, run.counts))
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    return {(failure.sample_id, failure.item): failure.reason for failure in failures}


def test_a_segmenters_masks_are_scored_and_found_again(
    configure: Configure, shapes: str, tiny_weights: dict[str, list[str]]
) -> None:
    given = shapes, "mask=[clipseg]", *tiny_weights["clipseg"], "stages=[parse,masks,score]"
    cfg = configure(*given)
    failed, text = finished(cfg)
    assert failed == 0 and "0 U-Net rows, 0 VAE encodes" in text
    run = Run(cfg)
    rows = mask_scores(run, samples_of(run))
    assert len(rows) == 10 * 21 and rows["dice"].notna().all()
    for more in ("batch_size=3", "mask.clipseg.rows=1"):
        assert "nothing to compute" in finished(configure(*given, more))[1]


@pytest.mark.parametrize("name", SEGMENTERS)
def test_no_diffusion_model_is_loaded(
    name: str, configure: Configure, shapes: str, tiny_weights: dict[str, list[str]]
) -> None:
    run = Run(configure(shapes, f"mask=[{name}]", *tiny_weights[name]))
    samples = samples_of(run)
    assert computed_maps(run, samples) == {}
    assert all(read_map(run, name, sample) is not None for sample in samples)
    assert "backbone" not in vars(run) and not run.counts()


def test_weights_that_cannot_be_had_end_a_run_before_its_first_map(
    configure: Configure, shapes: str, tmp_path: Path
) -> None:
    cfg = configure(shapes, "mask=[ours,clipseg]", f"mask.clipseg.model={tmp_path}/nowhere")
    with pytest.raises(WeightsError, match=f"looked for: {tmp_path}/nowhere"):
        finished(cfg)
    assert not list(tmp_path.glob("artifacts/maps/*/*.safetensors"))


@pytest.mark.slow
@pytest.mark.skipif(not MINI.is_dir(), reason="no samples of PIE-Bench at hand")
def test_every_method_has_a_map_of_every_real_sample_or_says_why_not(
    configure: Configure, tiny_weights: dict[str, list[str]]
) -> None:
    # regions need candidates, which a stage before this one paints
    names = [name for name in EVERY if name != "external" and not name.startswith("regions")]
    weights = [override for overrides in tiny_weights.values() for override in overrides]
    data = "dataset=pie_bench", f"dataset.root={MINI}"
    run = Run(configure(*data, f"mask=[{','.join(names)}]", *weights))
    samples = samples_of(run)
    reasons = computed_maps(run, samples)
    assert len(samples) == 12 and names == sorted(run.methods)
    for sample in samples:
        for name in names:
            reason = reasons.get((sample.id, name))
            assert (read_map(run, name, sample) is None) == (reason is not None), (sample.id, name)
            assert reason is None or sample.id in reason
