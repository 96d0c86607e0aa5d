"""PnP Inversion's index names: each is an editor with settings and an inversion of its own."""

import io
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from piebench_masks.chosen import made_editors
from piebench_masks.cli import CONF
from piebench_masks.data.shapes.write import write_shapes
from piebench_masks.editing.prompt_to_prompt import PromptToPrompt
from piebench_masks.identity import part_identity
from piebench_masks.pipeline import run_pipeline
from piebench_masks.pnp_inversion import methods
from piebench_masks.report.methods import BOUNDS
from piebench_masks.report.published import published
from piebench_masks.settings import typed

GUIDANCE = {"0": 0.0, "1": 1.0, "25": 2.5, "5": 5.0, "75": 7.5}
P2P = "PromptToPrompt"
PROXIMAL, EDIT_FRIENDLY = {"proximal": 0.75}, {"alignment": "replace", "self_replace_side": 0.25}
EDIT_FRIENDLY |= {"reweight": 1.0, "blend_threshold": None}

Resolved = tuple[str, str | None, dict[str, Any], dict[str, Any]]
"""An editor's class, the name of its inversion, and settings of both that are not the default."""
README: dict[str, Resolved] = {
    "ddim+p2p": (P2P, "ddim", {}, {}),
    "null-text-inversion+p2p": (P2P, "null_text", {}, {}),
    "negative-prompt-inversion+p2p": (P2P, "negative_prompt", {}, {}),
    "directinversion+p2p": (P2P, "direct", {}, {}),
    **{
        f"directinversion+p2p_guidance_{i}_{f}": (
            *(P2P, "direct"),
            *({"guidance": GUIDANCE[f]}, {"inverse_guidance": GUIDANCE[i]}),
        )
        for i in GUIDANCE
        for f in ("1", "25", "5", "75")
    },
    "null-text-inversion+proximal-guidance": (P2P, "null_text", PROXIMAL, {}),
    "negative-prompt-inversion+proximal-guidance": (P2P, "negative_prompt", PROXIMAL, {}),
    **{
        f"ablation_{name}+p2p": (P2P, "null_text", {}, {"single_branch": True})
        for name in ("null-latent-inversion", "null-text-inversion_single_branch")
    },
    **{
        f"ablation_directinversion_{name}+p2p": (P2P, "direct", {}, {"scale": scale})
        for name, scale in (("04", 0.4), ("08", 0.8))
    },
    **{
        f"ablation_directinversion_interval_{k}+p2p": (P2P, "direct", {}, {"interval": k})
        for k in (2, 5, 10, 24, 49)
    },
    **{
        f"ablation_directinversion_add-{of}+p2p": (P2P, "direct", {"offsets": of}, {})
        for of in ("source", "target")
    },
    "stylediffusion+p2p": ("StyleDiffusion", None, {}, {}),
    "edit-friendly-inversion+p2p": (P2P, "edit_friendly", EDIT_FRIENDLY, {}),
    **{
        f"{inversion}+{editor}": (part, inversion.removesuffix("inversion"), {}, {})
        for editor, part in (
            ("masactrl", "MasaCtrl"),
            ("pnp", "PlugAndPlay"),
            ("pix2pix-zero", "Pix2PixZero"),
        )
        for inversion in ("ddim", "directinversion")
    },
    "edict+direct_forward": ("Edict", None, {}, {}),
    "instruct-diffusion": ("InstructDiffusion", None, {}, {}),
    "instruct-pix2pix": ("InstructPix2Pix", None, {}, {}),
    "blended-latent-diffusion": ("BlendedLatentDiffusion", None, {}, {}),
}
"""All index names of the README."""
DEFAULTS = {"guidance": 7.5, "offsets": None, "proximal": None, "alignment": "refine"}
INVERSION_DEFAULTS = {"inverse_guidance": 1.0, "scale": 1.0, "interval": 1, "single_branch": False}
SAME = {
    "directinversion+p2p_guidance_1_75": "directinversion+p2p",
    "ablation_null-latent-inversion+p2p": "ablation_null-text-inversion_single_branch+p2p",
}
"""Names of the same method."""
WEIGHTS = {"stylediffusion+p2p", "instruct-diffusion", "instruct-pix2pix"}
"""Those whose identity is that of weights from elsewhere, too."""


def composed(*overrides: str) -> Any:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("config", list(overrides))


@pytest.fixture(scope="module")
def editors() -> dict[str, Any]:
    """All methods as the editors of one run."""
    names = f"methods=[{','.join(README)}]"
    needed = "dataset.root=somewhere", "editor.instruct-diffusion.id=somewhere"
    return made_editors(typed(composed("experiment=pnp_inversion", names, *needed)), "cpu")


def test_the_table_has_the_names_of_the_readme() -> None:
    assert len(README) == 49 and {*methods()} == {*README}


def test_all_methods_stand_beside_each_other_in_one_run(editors: dict[str, Any]) -> None:
    assert list(editors) == list(README)


@pytest.mark.parametrize("name", README)
def test_a_name_is_an_editor_with_settings_and_an_inversion(
    name: str, editors: dict[str, Any]
) -> None:
    part, inversion, settings, inversion_settings = README[name]
    editor = editors[name]
    assert type(editor).__name__ == part
    if part == P2P:
        assert {key: getattr(editor, key) for key in DEFAULTS} == DEFAULTS | {
            key: value for key, value in settings.items() if key in DEFAULTS
        }
    assert {key: getattr(editor, key) for key in settings} == settings
    if inversion is not None:
        assert isinstance(editor.inversion, partial)
        assert editor.inversion.func.__name__ == inversion
        given = editor.inversion.keywords
        expected = INVERSION_DEFAULTS | inversion_settings
        assert all(given[key] == expected[key] for key in INVERSION_DEFAULTS if key in given)
        assert {*inversion_settings} <= {*given}


def test_names_of_the_same_method_share_their_edits_and_no_others_do(
    editors: dict[str, Any],
) -> None:
    identities = {
        name: str(part_identity(editor)) for name, editor in editors.items() if name not in WEIGHTS
    }
    for name, other in SAME.items():
        assert identities[name] == identities[other]
    assert len({*identities.values()}) == len(identities) - len(SAME)
    chosen = "editor=[prompt_to_prompt]", "inversion=direct", "compat=reference", "model=sd14"
    plain = made_editors(typed(composed(*chosen)), "cpu")["prompt_to_prompt"]
    assert isinstance(plain, PromptToPrompt)
    assert str(part_identity(plain)) == identities["directinversion+p2p"]


def test_the_experiment_table1_has_the_published_rows() -> None:
    cfg = composed("experiment=table1", "dataset.root=somewhere")
    lines = published("editing")
    assert list(cfg.editor) == lines.loc[lines["model"].isin(["sd14", "sd15"]), "editor"].to_list()
    assert (cfg.compat, cfg.model.name, cfg.model.dtype) == ("reference", "sd14", "float32")
    assert list(composed("experiment=pnp_inversion", "dataset.root=x").editor) == [
        "directinversion+p2p"
    ]


@pytest.mark.slow
def test_chosen_methods_are_run_and_scored_beside_the_published_table(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes", per_type=1)
    names = ["ddim+p2p", "directinversion+pnp", "ablation_directinversion_interval_2+p2p"]
    cfg = composed(
        *("experiment=pnp_inversion", f"methods=[{','.join(names)}]", "limit=2", "threads=1"),
        *("model=shapes_turbo", "model.ddim_steps=2", "metrics=shapes", "tracker=none"),
        *(f"dataset.root={tmp_path / 'shapes'}", "dataset.load.mask_size=64"),
        *(f"{place}_dir={tmp_path / place}" for place in ("results", "artifacts")),
    )
    assert run_pipeline(cfg, cfg.stages, Console(file=io.StringIO())) == 0
    results = tmp_path / "results" / "pnp_inversion"
    rows = pd.read_parquet(results / "edit_scores.parquet")
    edits = rows[~rows["method"].isin(BOUNDS)]
    assert edits.groupby("editor", sort=False).size().to_dict() == dict.fromkeys(names, 2)
    assert edits["nfe_inverse"].to_list() == [2, 2, 2, 2, 4, 4]
    beside = pd.read_csv(results / "tables" / "published_editing.csv")
    assert list(beside["what"].unique()) == ["DDIM+P2P", "PnP Inversion+Plug-and-Play"]
    assert beside["difference"].isna().all()
