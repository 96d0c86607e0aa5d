"""``hparams_search=optuna``: settings are searched instead of given, a run for every trial.

The study lies in a file: the same command goes on where it was. Knows no stage.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from piebench_masks.console import say
from piebench_masks.errors import BenchmarkError
from piebench_masks.pipeline import run_pipeline
from piebench_masks.report.pareto import hypervolume
from piebench_masks.settings import typed
from piebench_masks.sweep import collect

if TYPE_CHECKING:
    from optuna import Trial


def search(cfg: DictConfig, console: Console) -> int:
    """Run trials until there are ``trials`` finished ones; how many items failed in all of them.

    Raises BenchmarkError where optuna is not installed or a setting, also of a trial, is refused.
    """
    try:
        import optuna
    except ImportError as error:
        raise BenchmarkError(
            "hparams_search=optuna needs the optional dependency: pip install 'piebench-masks"
            "[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # each trial has a line of our own
    whole = typed(cfg)
    settings = whole.hparams_search
    assert settings is not None
    folder = Path(whole.results_dir) / whole.name
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=f"{settings.objective} of {settings.method}",
        storage=f"sqlite:///{folder / 'study.db'}",
        direction="maximize",
        load_if_exists=True,
    )

    def objective(trial: "Trial") -> float:
        values = {key: _suggest(trial, key, space) for key, space in settings.space.items()}
        own = cfg.copy()
        own.merge_with(
            {
                "name": f"{whole.name}/{trial.number}",
                "sweep": {"name": whole.name, "values": values},
                "hparams_search": None,
            }
        )
        for key, value in values.items():
            OmegaConf.update(own, key, value)
        run_pipeline(typed(own), whole.stages, console)
        return OBJECTIVES[settings.objective](folder / str(trial.number), settings.method)

    finished = sum(trial.state.is_finished() for trial in study.trials)
    # Reproducible, but not the same draws again where a study goes on.
    study.sampler = optuna.samplers.TPESampler(seed=whole.seed + finished)
    study.optimize(objective, n_trials=max(0, settings.trials - finished))
    best = study.best_trial
    values = ", ".join(f"{key}={value}" for key, value in best.params.items())
    words = f"best: {values}; {settings.objective} {best.value:.4f} (run {best.number})"
    runs = [folder / str(trial.number) for trial in study.trials]
    failed = collect(folder, runs, console, f"{words[0].upper()}{words[1:]}.")
    say(console, "best", escape(words), settings=best.params, value=best.value)
    return failed


def _suggest(trial: "Trial", key: str, space: Any) -> Any:
    """One of a list, or a number of an interval ``{low: 1, high: 2}``."""
    if isinstance(space, list):
        return trial.suggest_categorical(key, space)
    return trial.suggest_float(key, space["low"], space["high"])


def mean_dice(results: Path, method: str) -> float:
    """The method's mean Dice at its best threshold."""
    table = pd.read_csv(results / "tables/mask_methods.csv").set_index("method")
    return float(table.loc[method, "dice"])  # type: ignore[arg-type]


def front_hypervolume(results: Path, method: str) -> float:
    """Area that the method's edits dominate, of LPIPS outside the mask 0..1 by CLIP 0..100."""
    rows = pd.read_parquet(results / "edit_scores.parquet")
    names = list(map(str, rows))
    lpips = next(name for name in names if name.startswith("lpips") and "_unedit" in name)
    clip = next(name for name in names if name.startswith("clip") and "_edited" in name)
    own = rows[rows["method"] == method].groupby(["editor", "threshold"])
    means = own[[lpips, clip]].mean().dropna()
    return hypervolume(1 - means[lpips].to_numpy(), np.asarray(means[clip]) / 100)


OBJECTIVES = {"dice": mean_dice, "hypervolume": front_hypervolume}
