"""Every file of the configuration tree composes, and what it names can be made."""

from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from piebench_masks.cli import CONF
from piebench_masks.data import scene
from piebench_masks.errors import BenchmarkError
from piebench_masks.masks import BASELINES
from piebench_masks.pnp_inversion import METHODS
from piebench_masks.run import Run
from piebench_masks.settings import (
    BASELINE_NAMES,
    EditImageSettings,
    Knows,
    ModelSettings,
    Settings,
    typed,
    typed_edit,
)
from piebench_masks.settings_page import GROUPS as DESCRIBED_GROUPS
from piebench_masks.settings_page import settings_page
from piebench_masks.store import Overwrite

GROUPS = sorted(
    (folder.name, option.stem)
    for folder in Path(CONF).iterdir()
    if folder.is_dir() and folder.name != "recipe"  # of items.yaml: tests/items/test_commands.py
    for option in folder.glob("*.yaml")
)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", list(overrides))


def targets(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [target for entry in node.values() for target in targets(entry)]
    return []


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_option_composes_and_names_things_that_exist(
    group: str, option: str, tmp_path: Path
) -> None:
    value = f"[{option}]" if group in ("mask", "editor") else option
    places = ["results_dir", "dataset.root", "++dataset.source"]
    more = ["mask.external.methods={mine: prompts}"] * (group == "mask" and option == "external")
    places += ["editor.instruct_diffusion.id"] * (option == "instruct_diffusion")
    places += ["editor.pipeline.pipeline", "editor.pipeline.id"] * (option == "pipeline")
    places += [f"{'mask' if group == 'mask' else 'editor'}.external.root"] * ("external" in option)
    more += ["hparams_search.space={seed: [0, 1]}"] * (group == "hparams_search")
    cfg = composed(f"{group}={value}", *(f"{key}={tmp_path}" for key in places), *more)
    plain = OmegaConf.to_container(cfg, resolve=True)
    for target in targets(plain):
        assert callable(get_object(target))
    (tmp_path / "mine").mkdir()  # a folder of masks made elsewhere
    run = Run(cfg)
    methods = {"mine" if name == "external" else name for name in cfg.get("mask", {})}
    assert set(run.methods) == {*methods, *cfg.baselines}
    bound = {"reconstruction"}
    assert {*run.editors} - bound == {*cfg.get("editor", {})} - {"external"} - bound


def test_the_paper_experiment_is_the_references_protocol() -> None:
    cfg = composed("experiment=paper", "dataset.root=somewhere")
    assert list(cfg.mask) == ["ours", "attn_based", "noise_based"]
    assert [node.threshold for node in cfg.mask.values()] == [0.7, 0.6, 3.0]
    assert (cfg.compat, cfg.noise_dtype, cfg.seed, cfg.strength) == (
        "reference",
        "float16",
        8128,
        0.5,
    )
    assert (cfg.editor.turbo_edit.steps, cfg.editor.turbo_edit.w, cfg.thresholds) == (4, 1.5, "one")
    assert (cfg.model.id, cfg.dataset.load.border) == ("stabilityai/sdxl-turbo", 1)


def test_a_methods_threshold_and_sweep_can_be_overridden() -> None:
    run = Run(composed("mask=[ours]", "mask.ours.threshold=0.25", "mask.ours.sweep=[0,0.5,3]"))
    assert run.methods["ours"].threshold == 0.25
    assert run.methods["ours"].thresholds == [0.0, 0.25, 0.5]


def test_a_method_that_does_not_exist_is_named() -> None:
    with pytest.raises(BenchmarkError, match=r"mask\.ours does not describe a part"):
        Run(composed("mask=[ours]", "mask.ours._target_=nowhere.Ours"))


@pytest.mark.parametrize(
    "wrong",
    [
        "compat=referense",
        "sample_mode=foo",
        "noise_dtype=float64",
        "overwrite=foo",
        "thresholds=abc",
        "thresholds=0",
        "thresholds=[0.3,high]",
        "limit=abc",
        "batch_size=0",
        "strength=2",
        "strength=half",
        "seed=abc",
        "seed=-1",
        "seed=1.5",
        "strength=nan",
        "strength=true",
        "thresholds=[]",
        "thresholds=[0.5,0.5]",
        "thresholds=[nan]",
        "thresholds=22",
        "num_repeat=1000000000",
        "limit='3'",
        "batch_size=1e3",
        "threads=true",
        "fail_on_error=-0.1",
        "fail_on_error=inf",
        "devices=cpu",
        "devices=[]",
        "devices=[-1]",
        "devices=[[0]]",
        "stages=parse",
        "stages=[parse,parse]",
        "baselines=[orakel]",
        "name=null",
        "name=../elsewhere",
        "name=/elsewhere",
        "artifacts_dir=3",
        "dry_run=2",
        "dataset.root=null",
        "dataset.image_dir=..",
        "dataset.load=abc",
        "dataset.load._target_=os.nowhere",
        "+dataset.load.bordr=1",
        "model.dtype=float33",
        "model.rows=0",
        "model.map_size=-16",
        "model.compile=maybe",
        "editor.turbo_edit.steps=5",
        "editor.turbo_edit.steps=4.0",
        "editor.turbo_edit.w=inf",
        "editor.turbo_edit.seed=null",
        "editor.turbo_edit._target_=nowhere.TurboEdit",
        "+editor.turbo_edit.stepz=4",
        "editor.turbo_edit=4",
        "+editor.mine={steps: 4}",
        "+editor.external={root: 3}",
        "+editor.external={root: x, methods: all}",
        "+editor.external={root: x, metods: null}",
        "model.ddim_steps=0",
        "model.guidance=high",
        "tracker._target_=nowhere",
        "+tracker.projekt=x",
        "metrics.pixel=3",
        "+metrics.pixel.colour=red",
        "metrics.lpips.name=3",
        "metrics.clip._target_=nowhere.Clip",
        "model.few_steps=1",
        "+model.mapsize=16",
        "+dataset.bordr=1",
        "+hparams_search={trials: 0, objective: dice, method: ours, space: {seed: [1]}}",
        "+hparams_search={trials: 1, objective: speed, method: ours, space: {seed: [1]}}",
        "+hparams_search={trials: 1, objective: dice, method: ours, space: {seed: 3}}",
        "+dataset.prepare={_target_: nowhere}",
        "dataset.prepare._target_=nowhere",
        "executor._target_=nowhere",
        "mask.ours.threshold=nan",
        "mask.ours.threshold='0.5'",
        "mask.ours.threshold=null",
        "mask.ours.sweep=[0,1]",
        "mask.ours.sweep=[1,0,21]",
        "mask.ours.sweep=[0,inf,21]",
        "mask.ours.sweep=[0,1,0]",
        "mask.ours.sweep=[0,1,2.5]",
        "mask.ours=3",
        "mask.diffedit.draws=0",
        "+mask.ours.reads=nothing",
        "+mask.oracle={threshold: 1}",
        "+mask.external={root: x}",
        "+mask.external={root: x, methods: {}}",
        "+mask.external={root: x, methods: {mine: everything}}",
        "+mask.external={root: x, methods: {mine: prompts}, treshold: 0.5}",
        "+unknown=1",
        "device=gpu",
        "device=meta",
        "device=cuda:77",
    ],
)
def test_a_value_that_nothing_could_work_with_is_named_before_anything_runs(wrong: str) -> None:
    name = wrong[: wrong.index("=")].removeprefix("+").removesuffix("._target_")
    with pytest.raises(BenchmarkError, match=name.rpartition(".")[0] or name) as caught:
        Run(composed(wrong))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("+model.mapsize=16", "model.map_size"),
        ("+dataset.imagedir=x", "dataset.image_dir"),
        ("+editor.turbo_edit.stepz=4", "editor.turbo_edit.steps"),
        ("+dataset.load.bordr=1", "dataset.load.border"),
    ],
)
def test_what_an_unknown_name_may_have_meant_is_said(wrong: str, meant: str) -> None:
    with pytest.raises(BenchmarkError, match=f"did you mean {meant}\\?"):
        typed(composed(wrong))


def test_settings_made_in_python_are_checked_too() -> None:
    settings = typed(composed())
    assert isinstance(settings, Settings) and isinstance(settings.model, ModelSettings)
    for wrong in ({"rows": 0}, {"dtype": "float33"}, {"compile": "maybe"}, {"few_steps": 1}):
        with pytest.raises(BenchmarkError, match=rf"^model\.{min(wrong)} is "):
            replace(settings.model, **wrong)


def test_whole_numbers_and_lists_become_what_the_settings_are_declared_as() -> None:
    settings = typed(composed("strength=1", "thresholds=[0,1]", "devices=[cpu,0]", "limit=3"))
    assert repr(settings.strength) == "1.0" and repr(settings.thresholds) == "(0.0, 1.0)"
    assert settings.devices == ("cpu", 0) and repr(settings.limit) == "3"


def test_resolved_settings_make_the_same_settings_again() -> None:
    settings = typed(composed("experiment=demo", "editor=[turbo_edit,masactrl]", "tracker=none"))
    again = OmegaConf.create(settings.yaml())
    assert isinstance(again, DictConfig) and typed(again) == settings


def test_the_settings_of_one_edit_are_checked() -> None:
    given = ["image=a.png", "source_prompt=a", "target_prompt=b"]
    with initialize_config_dir(CONF, version_base="1.3"):
        right = compose("edit_image", given)
        wrong = compose("edit_image", [*given, "strength=2"])
        missing = compose("edit_image", given[:2])
    settings = typed_edit(right)
    assert isinstance(settings, EditImageSettings) and settings.model.dtype == "float32"
    with pytest.raises(BenchmarkError, match=r"strength is 2\.0; it must be .* from 0\.25 to 1"):
        typed_edit(wrong)
    with pytest.raises(BenchmarkError, match="target_prompt must be set"):
        typed_edit(missing)


def test_choices_are_those_of_the_parts_that_read_them() -> None:
    assert get_args(get_type_hints(Settings)["overwrite"]) == tuple(map(str, Overwrite))
    assert tuple(getattr(method, "name", method) for method in BASELINES) == BASELINE_NAMES
    assert get_args(Knows) == get_args(scene.Knows)


def test_the_page_of_settings_is_current() -> None:
    page = Path(CONF).parent / "docs/settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), (
        "python -m piebench_masks.settings_page > docs/settings.md"
    )


def test_the_page_names_every_group_and_option() -> None:
    page = settings_page()
    folders = {path.parent for path in Path(CONF).rglob("*.yaml")} - {Path(CONF)}
    named = {folder.relative_to(CONF).as_posix() for folder in folders} | {METHODS}
    assert {*DESCRIBED_GROUPS} == named
    for group, option in GROUPS:
        assert f"`{group}={option}`" in page
    for setting in ("`model.few_steps`", "`thresholds`", "`hparams_search.space`", "`image`"):
        assert f"| {setting} |" in page


def test_no_methods_at_all_are_a_run_of_the_unmasked_edit() -> None:
    assert Run(composed("mask=[]", "baselines=[]")).methods == {}
