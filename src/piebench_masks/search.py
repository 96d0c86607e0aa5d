"""``hparams_search=optuna``: settings are searched instead of given, a run for every trial.

The study lies in a file: the same command goes on where it was. Knows no stage.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from piebench_masks.console import say
from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics.column import column_of, read_columns
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
    base = typed(cfg)
    settings = base.hparams_search
    assert settings is not None
    folder = Path(base.results_dir) / base.name
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=f"{settings.objective} of {settings.method}",
        storage=f"sqlite:///{folder / 'study.db'}",
        direction="maximize",
        load_if_exists=True,
    )

    def objective(trial: "Trial") -> float:
        values = {key: _suggest(trial, key, space) for key, space in settings.space.items()}
        trial_cfg = cfg.copy()
        trial_cfg.merge_with(
            {
                "name": f"{base.name}/{trial.number}",
                "sweep": {"name": base.name, "values": values},
                "hparams_search": None,
            }
        )
        for key, value in values.items():
            OmegaConf.update(trial_cfg, key, value)
        run_pipeline(typed(trial_cfg), base.stages, console)
        return OBJECTIVES[settings.objective](folder / str(trial.number), settings.method)

    finished = sum(trial.state.is_finished() for trial in study.trials)
    # Reproducible, but not the same draws again where a study goes on.
    study.sampler = optuna.samplers.TPESampler(seed=base.seed + finished)
    study.optimize(objective, n_trials=max(0, settings.trials - finished))
    best_trial = study.best_trial
    values = ", ".join(f"{key}={value}" for key, value in best_trial.params.items())
    words = f"best: {values}; {settings.objective} {best_trial.value:.4f} (run {best_trial.number})"
    runs = [folder / str(trial.number) for trial in study.trials]
    failed = collect(folder, runs, console, f"{words[0].upper()}{words[1:]}.")
    say(console, "best", escape(words), settings=best_trial.params, value=best_trial.value)
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
    """Hypervolume of the method's edits: one axis is the column for the background, the other the
    column for the edit, each from its worst value, 0, to its best, 1.

    Raises BenchmarkError where no metric's column stands for one of the two, or has no bounds.
    """
    rows = pd.read_parquet(results / "edit_scores.parquet")
    columns = read_columns(results / "columns.json")
    valued = set(rows.columns[rows.notna().any()])
    groups = rows[rows["method"] == method].groupby(["editor", "threshold"])
    gains = {}
    for role in ("background", "edit"):
        name = column_of(role, columns, valued)
        if name is None or (bounds := columns[name].bounds) is None:
            raise BenchmarkError(
                f"hparams_search.objective=hypervolume needs a metric with a column of the role "
                f"{role} that has bounds: choose one, as in metrics=shapes, or another objective"
            )
        means = groups[name].agg(columns[name].summarise)
        low, high = bounds
        from_worst = means - low if columns[name].direction == "up" else high - means
        gains[role] = from_worst / (high - low)
    points = pd.DataFrame(gains).dropna()
    return hypervolume(points["background"].to_numpy(), points["edit"].to_numpy())


OBJECTIVES = {"dice": mean_dice, "hypervolume": front_hypervolume}
