"""Runs whose prompts models write: where they are shown, and what is computed again."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from piebench_masks.cli import CONF
from piebench_masks.data.images import load_image
from piebench_masks.data.sample import Sample
from piebench_masks.data.scene import Scene, scene_of
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.data.table import read_samples, samples_table
from piebench_masks.diffusion.backbone import Backbone
from piebench_masks.editing.diffedit import DiffEdit
from piebench_masks.editing.editor import Sources
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks.diffedit import DiffEdit as DiffEditMap
from piebench_masks.masks.needs import Needs
from piebench_masks.masks.soft_maps import soft_maps
from piebench_masks.pipeline import run_pipeline
from piebench_masks.run import Run
from piebench_masks.stages.cases import edit_case
from piebench_masks.stages.latents import image_file
from piebench_masks.stages.parse import parse
from piebench_masks.stages.written import completed, concepts_of

Start = Callable[..., tuple[int, str, Path]]
SAMPLES = 3
MORE: dict[str, Any] = {
    "instruction": "",
    "edit_type": "any",
    "mask": None,
    "target_image_path": None,
    "image_digest": "0" * 64,
}


@dataclass(frozen=True)
class Sizes:
    """Says a picture's mean brightness; nothing of those that are dark."""

    dark: float = -1.0

    def captions(self, pictures: Any) -> list[str]:
        means = [float(picture.mean()) for picture in pictures]
        return [f"a brightness of {mean:.1f}" if mean > self.dark else "" for mean in means]


SIZES = f"+captions={{_target_: {__name__}.Sizes}}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


@pytest.fixture
def cfg(data: Path, tmp_path: Path) -> Callable[..., Any]:
    def composed(*overrides: str) -> Any:
        small = f"limit={SAMPLES}", "batch_size=2", "threads=1", "tracker=none", "name=run"
        masks = "mask=[diffedit]", "baselines=[]", "editor=[]", "fail_on_error=false"
        places = f"artifacts_dir={tmp_path}/artifacts", f"results_dir={tmp_path}/results"
        with initialize_config_dir(CONF, version_base="1.3"):
            return compose("config", [*small, *masks, *places, f"dataset.root={data}", *overrides])

    return composed


@pytest.fixture
def start(cfg: Callable[..., Any], tmp_path: Path) -> Start:
    """Run with overrides: failed items, printed text, results."""

    def run(*overrides: str) -> tuple[int, str, Path]:
        console = Console(file=io.StringIO(), record=True, width=220)
        settings = cfg(*overrides)
        failed = run_pipeline(settings, settings.stages, console)
        return failed, console.export_text(), tmp_path / "results" / "run"

    return run


@pytest.mark.slow
def test_captions_are_written_once_and_stand_for_source_prompts(start: Start) -> None:
    failed, text, results = start(SIZES)
    assert failed == 0 and f"captions: {SAMPLES} of {SAMPLES} texts" in text
    page = (results / "report.html").read_text()
    assert "a brightness of" in page and "in the place of source prompts" in page
    _, text, _ = start(SIZES, "stages=[parse,masks,score]")
    assert "nothing to compute: all artifacts are there" in text
    _, text, _ = start("stages=[parse,masks]")  # the data set's own prompts are others
    assert f"{SAMPLES} items computed" in text


def test_masks_and_editors_are_shown_them_and_metrics_are_not(
    cfg: Callable[..., Any], start: Start
) -> None:
    start(SIZES, "stages=[parse]")
    run = Run(cfg(SIZES))
    [plain, *_] = parse(run, Console(quiet=True)).samples
    [sample, *_] = completed(run, [plain])
    picture = load_image(image_file(run, sample.image_path))
    scene = scene_of(sample, picture)
    assert scene.source_prompt == sample.caption == Sizes().captions([picture])[0]
    assert scene.source_marked == () and scene.target_prompt == plain.target_prompt
    case = edit_case(run, sample, run.protocols[run.protocol].casing, picture)
    assert case.source_prompt == plain.source_prompt
    assert sample.fingerprint(["prompts"]) != plain.fingerprint(["prompts"])
    assert sample.fingerprint(["image", "mask"]) == plain.fingerprint(["image", "mask"])


def test_a_sample_without_a_caption_fails_alone(cfg: Callable[..., Any], start: Start) -> None:
    run = Run(cfg())
    samples = parse(run, Console(quiet=True)).samples
    means = sorted(load_image(image_file(run, s.image_path)).mean() for s in samples)
    dark = SIZES.replace("}", f", dark: {(means[0] + means[1]) / 2:.3f}}}")
    failed, text, _ = start(dark, "stages=[parse,masks]")
    assert failed == 1 and f"masks: {SAMPLES - 1} of {SAMPLES - 1} maps" in text


def test_a_dry_run_counts_captions(start: Start) -> None:
    start("stages=[parse]")
    _, text, _ = start(SIZES, "dry_run=true")
    assert f"{SAMPLES} texts" in text and "not known yet" in text


@pytest.mark.slow
def test_workers_write_captions(start: Start) -> None:
    failed, text, _ = start(SIZES, "stages=[parse]", "devices=[cpu,cpu]")
    assert failed == 0 and f"{SAMPLES} items computed" in text


def test_the_option_is_blip(cfg: Callable[..., Any], start: Start, blip_folder: Path) -> None:
    blip = "captions=blip", f"captions.model={blip_folder}", "captions.max_tokens=4"
    failed, _, _ = start(*blip, "stages=[parse]")
    assert failed == 0
    run = Run(cfg(*blip))
    samples = completed(run, parse(run, Console(quiet=True)).samples)
    assert len(samples) == SAMPLES
    assert all(sample.caption.startswith("a photograph of") for sample in samples)


def test_captions_are_no_part_of_the_parsed_table(cfg: Callable[..., Any], tmp_path: Path) -> None:
    samples = parse(Run(cfg()), Console(quiet=True)).samples
    types = tuple(dict.fromkeys(sample.edit_type for sample in samples))
    file = tmp_path / "samples.parquet"
    captions = [replace(sample, caption="a circle") for sample in samples]
    file.write_bytes(samples_table(captions, types))
    assert read_samples(file) == (samples, types)


def test_concepts_are_what_the_blended_words_or_the_prompts_exchange() -> None:
    texts = {"source_prompt": "a red circle on sand", "target_prompt": "a big square on sand"}
    sample = Sample("0", "a.png", **texts, **MORE, blended_word="")
    assert concepts_of(sample) == ("red circle", "big square")
    assert concepts_of(replace(sample, blended_word="circle square")) == ("circle", "square")
    assert concepts_of(replace(sample, blended_word="red circle square")) == (
        "red circle",
        "square",
    )
    inserted = replace(sample, target_prompt="a big red circle on sand")
    assert concepts_of(inserted) == ("", "big")


def test_diffedit_is_shown_captions_of_concepts(
    cfg: Callable[..., Any], start: Start, t5_folder: Path
) -> None:
    t5 = "concepts=t5", f"concepts.model={t5_folder}", "concepts.count=2", "concepts.max_tokens=4"
    failed, text, results = start(*t5)
    assert failed == 0 and f"concepts: {SAMPLES} of {SAMPLES} texts" in text
    page = (results / "report.html").read_text()
    assert "and 1 more)" in page and "DiffEdit is shown" in page
    _, text, _ = start(*t5, "stages=[parse,masks,score]")
    assert "nothing to compute: all artifacts are there" in text
    run = Run(cfg(*t5))
    plain = parse(run, Console(quiet=True)).samples
    for before, sample in zip(plain, completed(run, plain), strict=True):
        scene = scene_of(sample, load_image(image_file(run, sample.image_path)))
        assert scene.source_prompt == before.source_prompt
        assert scene.target_concept == sample.target_captions != ()
        assert len(sample.target_captions) == 2


def test_the_embedding_of_captions_is_their_mean(tiny: Backbone) -> None:
    one, other = tiny.encode_prompts(["a red circle", "a big square"]).hidden
    mean, plain = tiny.encode_prompts([("a red circle", "a big square"), "a red circle"]).hidden
    torch.testing.assert_close(mean, (one + other) / 2)
    assert torch.equal(plain, one)


def test_captions_have_no_words_that_change() -> None:
    with pytest.raises(BenchmarkError, match="several captions"):
        Needs(conditions=("source_concept",), attention=True)


def test_diffedits_map_and_edit_follow_the_captions(tiny: Backbone) -> None:
    image = torch.zeros(64, 64, 3, dtype=torch.uint8) + 90
    scene = Scene("0", image, "a red circle", "a big square")
    written = replace(scene, source_captions=("sand",), target_captions=("a circle", "grass"))
    same = replace(scene, source_captions=("a red circle",), target_captions=("a big square",))
    posterior, methods = tiny.encode_images(image[None]), {"diffedit": DiffEditMap(draws=1)}
    plain, other, equal = (
        soft_maps(tiny, posterior, [each], methods)["diffedit"][0]
        for each in (scene, written, same)
    )
    assert torch.equal(plain, equal) and not torch.isclose(plain, other).all()
    editor = DiffEdit(steps=2, strength=1.0, guidance=2.0)
    everywhere, owner = torch.ones(1, 16, 16, dtype=torch.bool), torch.tensor([0])
    edits = []
    for each in (scene, written, same):
        sources = Sources([each], posterior)
        inverted = editor.invert(tiny, sources)
        edits.append(editor.sample(tiny, sources, inverted, everywhere, owner).latents)
    assert torch.equal(edits[0], edits[2]) and not torch.isclose(edits[0], edits[1]).all()
