"""Every file of the configuration tree composes, and what it names can be made."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from piebench_masks.cli import CONF
from piebench_masks.errors import BenchmarkError
from piebench_masks.run import Run
from piebench_masks.settings import SETTINGS

GROUPS = sorted(
    (folder.name, option.stem)
    for folder in Path(CONF).iterdir()
    if folder.is_dir()
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
    places += ["editor.external.root"] * ("external" in option)
    cfg = composed(f"{group}={value}", *(f"{key}={tmp_path}" for key in places))
    plain = OmegaConf.to_container(cfg, resolve=True)
    for target in targets(plain):
        assert callable(get_object(target))
    run = Run(cfg)
    assert set(run.methods) == {*cfg.get("mask", {}), *cfg.baselines}
    assert set(run.editors) == {*cfg.editor} - {"external"}


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
    with pytest.raises(BenchmarkError, match=r"mask\.ours does not describe a map method"):
        _ = Run(composed("mask=[ours]", "mask.ours.method=nowhere.OURS")).methods


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


def test_every_setting_of_the_tree_is_known() -> None:
    for more in ((), ("dataset=folder", "editor=[external]"), ("hparams_search=optuna",)):
        cfg = composed("editor.external.root=x" if "dataset=folder" in more else "limit=1", *more)
        for name, value in cfg.items():
            assert name in SETTINGS, name
            if name in ("model", "hparams_search") and value is not None:
                assert {f"{name}.{key}" for key in value} <= {*SETTINGS}


def test_no_methods_at_all_are_a_run_of_the_unmasked_edit() -> None:
    assert Run(composed("mask=[]", "baselines=[]")).methods == {}
