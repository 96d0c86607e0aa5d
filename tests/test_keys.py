"""Every setting: the keys of its artifacts change if and only if its outputs can.

``CHANGES`` is the table: another value of each setting, and the artifacts whose keys it changes.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from piebench_masks.cli import CONF
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.run import Run
from piebench_masks.stages.edit import edit_folder
from piebench_masks.stages.latents import latents_folder
from piebench_masks.stages.maps import map_folder
from piebench_masks.stages.masks import mask_folder
from piebench_masks.stages.parse import parsed_folder
from piebench_masks.stages.score_edits import edit_score_folder
from piebench_masks.stages.score_masks import mask_score_folder
from piebench_masks.weights import packaged

MODEL_MAPS = (
    *("ours", "attn_based", "noise_based", "diffedit", "attn_multi", "attn_self", "casa", "ledits"),
    *("target_words", "blended_word", "instant", "relevance", "clusters", "chord"),
)
BASE = (
    f"mask=[{','.join(MODEL_MAPS)}]",
    "baselines=[full,random,oracle]",
    *("editor=[turbo_edit,diffedit,prompt_to_prompt]", "inversion=direct"),
)
MAPS = (*MODEL_MAPS, "full", "random", "oracle")
EDITORS = ("turbo_edit", "diffedit", "prompt_to_prompt", "reconstruction")
METRICS = ("pixel", "lpips", "clip", "target_error", "change")


def maps(*names: str) -> set[str]:
    """A method's maps, and what is made of them; the oracle's mask is made of no map."""
    made = {f"maps.{name}" for name in names} | {f"mask_scores.{name}" for name in names}
    return made | {f"masks.{name}" for name in names if name != "oracle"}


def cut(*names: str) -> set[str]:
    return {f"masks.{n}" for n in names if n != "oracle"} | {f"mask_scores.{n}" for n in names}


def edits(*names: str) -> set[str]:
    return {f"edit.{n}" for n in names} | {f"scores.{n}.{m}" for n in names for m in METRICS}


def scores(metric: str) -> set[str]:
    return {f"scores.{name}.{metric}" for name in EDITORS}


EVERY_MAP, EVERY_EDIT = maps(*MAPS), edits(*EDITORS)
MODEL = {"latents"} | maps(*MODEL_MAPS) | EVERY_EDIT
INVERTED = edits("prompt_to_prompt")
EVERY_SCORE = set().union(*map(scores, METRICS))
MASKED = EVERY_SCORE | {f"mask_scores.{name}" for name in MAPS}
NOTHING: set[str] = set()

CHANGES: dict[str, tuple[str, set[str]]] = {
    # Maps
    "compat": ("reference", maps(*MODEL_MAPS) | cut(*MAPS) | edits("diffedit", "prompt_to_prompt")),
    "strength": ("0.75", maps(*MODEL_MAPS) - maps("chord")),  # its levels are its own
    "num_repeat": ("2", maps(*MODEL_MAPS) - maps("diffedit")),
    "sample_mode": ("sample", maps(*MODEL_MAPS)),
    "noise_dtype": ("float16", maps(*MODEL_MAPS)),
    "seed": ("1", EVERY_MAP),  # every method is shown it
    # What is run, where and how
    "stages": ("[parse]", NOTHING),
    "baselines": ("[random,oracle,full]", NOTHING),
    "thresholds": ("sweep", NOTHING),
    "limit": ("1", NOTHING),
    "name": ("other", NOTHING),
    "results_dir": ("elsewhere", NOTHING),
    "artifacts_dir": ("elsewhere", NOTHING),
    "data_dir": ("elsewhere", NOTHING),
    "device": ("cpu", NOTHING),
    "devices": ("[cpu,cpu]", NOTHING),
    "threads": ("1", NOTHING),
    "batch_size": ("2", NOTHING),
    "on_error": ("skip", {"parse"}),
    "fail_on_error": ("true", NOTHING),
    "overwrite": ("always", NOTHING),
    "baseline": ("update", NOTHING),
    "sweep": ("{name: s, values: {}}", NOTHING),
    "dry_run": ("true", NOTHING),
    "quiet": ("true", NOTHING),
    "log": ("json", NOTHING),
    "debug": ("true", NOTHING),
    # The data set: its samples' content is in the items' names
    "dataset.name": ("other", NOTHING),
    "dataset.root": ("COPY", NOTHING),
    "dataset.image_dir": ("other", NOTHING),
    "dataset.source": ("elsewhere", NOTHING),
    "dataset.prepare": ("null", NOTHING),
    "dataset.load.mask_size": ("32", {"parse"}),
    "dataset.load.border": ("1", {"parse"}),
    # The model
    "model.name": ("other", NOTHING),
    "model.id": ("COPY", NOTHING),
    "model.revision": ("other", NOTHING),  # of a hub's model alone
    "model.variant": ("fp16", NOTHING),  # which the embedded model has no files of
    "model.cache_dir": ("elsewhere", NOTHING),
    "model.dtype": ("bfloat16", maps(*MODEL_MAPS) | EVERY_EDIT),
    "model.vae_dtype": ("bfloat16", MODEL),
    "model.map_size": ("8", EVERY_MAP | EVERY_EDIT),  # every method and editor is shown it
    "model.rows": ("2", NOTHING),
    "model.vae_rows": ("2", NOTHING),
    "model.compile": ("true", maps(*MODEL_MAPS) | EVERY_EDIT),
    "model.backbone": ("piebench_masks.diffusion.stable_diffusion.StableDiffusion", NOTHING),
    "model.few_steps": ("false", NOTHING),  # which editors may be run at all
    "model.ddim_steps": ("4", edits("diffedit", "prompt_to_prompt")),
    "model.guidance": ("2", edits("diffedit", "prompt_to_prompt")),
    # What is written is in the names of items
    "captions": ("{_target_: piebench_masks.prompts.blip.Blip}", NOTHING),
    "concepts": ("{_target_: piebench_masks.prompts.flan_t5.FlanT5}", NOTHING),
    # Editors and inversions
    "editor.turbo_edit.steps": ("3", edits("turbo_edit")),
    "editor.turbo_edit.w": ("1", edits("turbo_edit")),
    "editor.turbo_edit.seed": ("1", edits("turbo_edit")),
    "editor.diffedit.steps": ("3", edits("diffedit")),
    "editor.diffedit.strength": ("0.5", edits("diffedit")),
    "editor.diffedit.guidance": ("2", edits("diffedit")),
    "editor.diffedit.compat": ("reference", edits("diffedit")),
    "editor.diffedit.seed": ("1", edits("diffedit")),
    "editor.prompt_to_prompt.steps": ("3", INVERTED),
    "editor.prompt_to_prompt.guidance": ("2", INVERTED),
    "editor.prompt_to_prompt.alignment": ("replace", INVERTED),
    "editor.prompt_to_prompt.cross_replace": ("0.5", INVERTED),
    "editor.prompt_to_prompt.cross_replace_words": ("{red: [0, 0.5]}", INVERTED),
    "editor.prompt_to_prompt.self_replace": ("0.5", INVERTED),
    "editor.prompt_to_prompt.self_replace_side": ("0.25", INVERTED),
    "editor.prompt_to_prompt.reweight": ("1", INVERTED),
    "editor.prompt_to_prompt.blend_threshold": ("0.5", INVERTED),
    "editor.prompt_to_prompt.proximal": ("0.75", INVERTED),
    "editor.prompt_to_prompt.offsets": ("source", INVERTED),
    "editor.prompt_to_prompt.compat": ("reference", INVERTED),
    "inversion.scale": ("0.4", INVERTED),
    "inversion.interval": ("2", INVERTED),
    "inversion.inverse_guidance": ("2.5", INVERTED),
    # Metrics
    "metrics.lpips.name": ("other", scores("lpips")),
    "metrics.lpips.backbone": ("COPY", NOTHING),
    "metrics.lpips.weighted": ("true", scores("lpips")),
    "metrics.lpips.net": ("alex", scores("lpips")),
    "metrics.clip.name": ("other", scores("clip")),
    "metrics.clip.happened_at": ("2", scores("clip")),
    "metrics.clip.model": ("COPY", NOTHING),
    "metrics.clip.pretrained": ("null", NOTHING),
    "metrics.pixel.rows": ("2", NOTHING),
    "metrics.lpips.rows": ("2", NOTHING),
    "metrics.clip.rows": ("2", NOTHING),
    "metrics.clip.device": ("cpu", NOTHING),
    # Protocols: the samples and the means that tables are of are no artifacts
    "protocol.official.edit_types": ("without_random", NOTHING),
    "protocol.official.size": ("96", EVERY_SCORE),
    "protocol.official.border": ("cleared", MASKED),
    "protocol.official.part": ("box", MASKED),
    "protocol.official.undefined": ("zero", NOTHING),
    "protocol.official.brackets": ("kept", scores("clip")),
    "protocol.official.metrics": ("{clip: {happened_at: 2}}", scores("clip")),
}
for name in MODEL_MAPS:  # what cuts a map changes no map
    CHANGES[f"mask.{name}.threshold"] = "0.2", NOTHING
    CHANGES[f"mask.{name}.sweep"] = "[0,1,3]", NOTHING
    CHANGES[f"mask.{name}.binarizer"] = "above_quantile", cut(name)
    CHANGES[f"mask.{name}.draws"] = "2", maps(name)
    post = "[{_target_: piebench_masks.masks.postprocess.Propagate, power: 1}]"
    CHANGES[f"mask.{name}.post"] = post, maps(name)
CHANGES |= {
    "mask.attn_self.power": ("2", maps("attn_self")),
    "mask.attn_self.transposed": ("true", maps("attn_self")),
    "mask.attn_self.weights": ("[1.0]", maps("attn_self")),
    "mask.casa.lam": ("0.5", maps("casa")),
    "mask.casa.steepness": ("2.0", maps("casa")),
    "mask.casa.centre": ("0.4", maps("casa")),
    "mask.instant.like": ("0.8", maps("instant")),
    "mask.instant.unlike": ("0.5", maps("instant")),
    "mask.relevance.reach": ("1.0", maps("relevance")),
    "mask.clusters.clusters": ("4", maps("clusters")),
    "mask.clusters.weights": ("[1.0]", maps("clusters")),
    "mask.chord.start": ("0.8", maps("chord")),
    "mask.chord.delta": ("0.1", maps("chord")),
}
UNNAMED = ("hparams_search", "tracker", "executor", "hydra", "experiment")
"""Groups of which no artifact knows."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(root, per_type=1)
    return root


def composed(data: Path, folder: Path, *overrides: str) -> DictConfig:
    places = f"dataset.root={data}", f"artifacts_dir={folder}/artifacts", "tracker=none"
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", [*BASE, *places, *overrides])


def keys(run: Run) -> dict[str, str]:
    """The keys of all artifacts of a run, by what they are of."""
    found = {"parse": parsed_folder(run).key, "latents": latents_folder(run).key}
    found |= {f"maps.{name}": map_folder(run, name).key for name in run.methods}
    found |= {f"masks.{name}": mask_folder(run, name).key for name in run.methods}
    found |= {f"mask_scores.{name}": mask_score_folder(run, name).key for name in run.methods}
    found |= {f"edit.{name}": edit_folder(run, name).key for name in run.editors}
    return found | {
        f"scores.{editor}.{metric}": edit_score_folder(run, editor, metric).key
        for editor in run.editors
        for metric in run.scorers
    }


@pytest.fixture(scope="module")
def before(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return keys(Run(composed(data, tmp_path_factory.mktemp("keys"))))


def copied(setting: str, data: Path, folder: Path) -> str:
    """The same content at another place, as that setting names it."""
    place = folder / "copy"
    source = {
        "dataset.root": data,
        "model.id": Path(packaged("shapes_turbo")),
        "metrics.lpips.backbone": Path(packaged("lpips_shapes")),
        "metrics.clip.model": Path(packaged("clip_shapes")),
    }[setting]
    shutil.copytree(source, place)
    if setting == "metrics.lpips.backbone":
        return f"{place}/features.safetensors"
    return f"local-dir:{place}" if setting == "metrics.clip.model" else str(place)


@pytest.mark.parametrize("setting", CHANGES)
def test_a_setting_changes_the_keys_of_what_it_can_change_and_no_others(
    setting: str,
    data: Path,
    before: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where "elsewhere" is
    value, expected = CHANGES[setting]
    if value == "COPY":
        value = copied(setting, data, tmp_path)
    literal = value[:1] in "{[" or value in ("true", "false", "null")
    quoted = value if literal or value.replace(".", "").isdigit() else f"'{value}'"
    after = keys(Run(composed(data, tmp_path, f"++{setting}={quoted}")))
    assert {name for name in before if after[name] != before[name]} == expected


def test_every_setting_stands_in_the_table(data: Path, tmp_path: Path) -> None:
    """But for import paths of parts, which are parts of their own."""

    def leaves(node: Any, start: str) -> Iterator[str]:
        for key, value in node.items():
            name = f"{start}{key}"
            deeper = isinstance(value, dict) and name.split(".")[0] in PARTS and value
            if deeper and name not in CHANGES and name.count(".") < 2:
                yield from leaves(value, f"{name}.")
            elif key not in ("_target_", "_partial_", "inversion"):
                yield name

    plain: Any = OmegaConf.to_container(composed(data, tmp_path))
    names = {name for name in leaves(plain, "") if name.split(".")[0] not in UNNAMED}
    assert names - {*CHANGES} == set()


PARTS = ("dataset", "model", "mask", "editor", "inversion", "metrics", "protocol")


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from (str(key), *texts(entry))
    elif isinstance(value, list):
        for entry in value:
            yield from texts(entry)
    else:
        yield str(value)


def test_no_key_holds_a_path(data: Path, tmp_path: Path) -> None:
    run = Run(composed(data, tmp_path))
    keys(run)
    descriptions = list((tmp_path / "artifacts").glob("*/*/stage.json"))
    assert len(descriptions) > 20
    for path in descriptions:
        parameters: Any = OmegaConf.to_container(OmegaConf.load(path))["parameters"]  # type: ignore
        for text in texts(parameters):
            assert os.sep not in text, f"{path}: {text}"


def test_retrained_weights_change_the_keys_of_what_is_made_with_them(
    data: Path, before: dict[str, str], tmp_path: Path
) -> None:
    for setting, weights, expected in (
        ("model.id", "unet/diffusion_pytorch_model.safetensors", MODEL),
        ("metrics.lpips.backbone", "features.safetensors", scores("lpips")),
        ("metrics.clip.model", "open_clip_model.safetensors", scores("clip")),
    ):
        folder = tmp_path / setting
        folder.mkdir()
        value = copied(setting, data, folder)
        with (folder / "copy" / weights).open("ab") as file:
            file.write(b"\0")
        after = keys(Run(composed(data, folder, f"{setting}={value}")))
        assert {name for name in before if after[name] != before[name]} == expected, setting
