"""``hparams_search=optuna``: settings are searched instead of given, a run for every trial.

The study lies in a file: the same command goes on where it was. Knows no stage.
"""

import math
from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from piebench_masks.console import say
from piebench_masks.data.sample import Sample
from piebench_masks.errors import BenchmarkError
from piebench_masks.metrics.column import column_of, read_columns
from piebench_masks.pipeline import run_pipeline
from piebench_masks.report.pareto import hypervolume
from piebench_masks.run import Run
from piebench_masks.settings import typed
from piebench_masks.stages.parse import parse
from piebench_masks.sweep import collect

if TYPE_CHECKING:
    from optuna import Trial

Samples = Collection[str]
"""Their ids."""


def search(cfg: DictConfig, console: Console) -> int:
    """Run trials until there are ``trials`` finished ones; how many items failed in all of them.

    One half of the samples tunes every other trial, the other half the rest: what the best trial of
    each scores on the half that it was not tuned on is the search's honest figure.
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
    score = OBJECTIVES[settings.objective]
    halves = two_halves(parse(Run(base), console).samples)
    folder = Path(base.results_dir) / base.name
    folder.mkdir(parents=True, exist_ok=True)
    studies = [
        optuna.create_study(
            study_name=f"{settings.objective} of {settings.method}, half {half}",
            storage=f"sqlite:///{folder / 'study.db'}",
            direction="maximize",
            load_if_exists=True,
        )
        for half in range(2)
    ]
    finished = [sum(trial.state.is_finished() for trial in study.trials) for study in studies]

    def place(half: int, number: int) -> Path:
        return folder / str(2 * number + half)

    def objective(trial: "Trial", half: int) -> float:
        values = {key: _suggest(trial, key, space) for key, space in settings.space.items()}
        results = place(half, trial.number)
        trial_cfg = cfg.copy()
        trial_cfg.merge_with(
            {
                "name": f"{base.name}/{results.name}",
                "sweep": {"name": base.name, "values": values},
                "hparams_search": None,
            }
        )
        for key, value in values.items():
            OmegaConf.update(trial_cfg, key, value)
        run_pipeline(typed(trial_cfg), base.stages, console)
        return score(results, settings.method, halves[half], halves[half])

    for half, study in enumerate(studies):
        # Reproducible, but not the same draws again where a study goes on.
        study.sampler = optuna.samplers.TPESampler(seed=base.seed + 2 * finished[half] + half)
    for _ in range(sum(finished), settings.trials):
        half = int(finished[0] > finished[1])
        studies[half].optimize(lambda trial: objective(trial, half), n_trials=1)  # noqa: B023
        finished[half] += 1

    held_out, everything, best = [], halves[0] | halves[1], []
    for half, study in enumerate(studies):
        if finished[half]:
            tuned = place(half, study.best_trial.number)
            held_out.append(score(tuned, settings.method, halves[half], halves[1 - half]))
        for trial in study.trials:
            if trial.state == optuna.trial.TrialState.COMPLETE:
                results = place(half, trial.number)
                value = score(results, settings.method, everything, everything)
                best.append((value, results, trial.params))
    value, results, params = max(best, key=lambda entry: entry[0])
    honest = sum(held_out) / len(held_out)
    values = ", ".join(f"{key}={chosen}" for key, chosen in params.items())
    words = (
        f"best: {values}; {settings.objective} {value:.4f} (run {results.name}) on the samples "
        f"that chose it, {honest:.4f} cross-validated"
    )
    runs = sorted((entry[1] for entry in best), key=lambda run: int(run.name))
    failed = collect(folder, runs, console, f"{words[0].upper()}{words[1:]}.")
    said = {"settings": params, "value": value, "cross_validated": honest}
    say(console, "best", escape(words), **said)
    return failed


def two_halves(samples: Sequence[Sample]) -> tuple[frozenset[str], frozenset[str]]:
    """The samples' ids in two halves, with as many of each edit type as can be.

    Which half a sample is in depends on the samples' ids alone. Raises BenchmarkError for fewer
    than two samples.
    """
    if len(samples) < 2:
        raise BenchmarkError(
            f"hparams_search needs two samples or more, to score on one half what the other half "
            f"chose; there are {len(samples)}: raise limit"
        )

    def place(sample: Sample) -> tuple[str, bytes]:
        return sample.edit_type, sha256(sample.id.encode()).digest()

    ids = [sample.id for sample in sorted(samples, key=place)]
    return frozenset(ids[::2]), frozenset(ids[1::2])


def _suggest(trial: "Trial", key: str, space: Any) -> Any:
    """One of a list, or a number of an interval ``{low: 1, high: 2}``."""
    if isinstance(space, list):
        return trial.suggest_categorical(key, space)
    return trial.suggest_float(key, space["low"], space["high"])


def mean_dice(results: Path, method: str, choosing: Samples, scored: Samples) -> float:
    """The method's mean Dice of some samples, at the threshold that is best for others."""
    rows = pd.read_parquet(results / "mask_scores.parquet")
    rows = rows[rows["method"] == method]

    def by_threshold(samples: Samples) -> "pd.Series[float]":
        return rows[rows["sample"].isin(samples)].groupby("threshold")["dice"].mean()

    chosen = by_threshold(choosing).to_numpy().argmax() if len(rows) else None
    return math.nan if chosen is None else float(by_threshold(scored).iloc[chosen])


def front_hypervolume(results: Path, method: str, choosing: Samples, scored: Samples) -> float:
    """Hypervolume of the method's edits of ``scored``, with nothing to choose.

    One axis is the column for the background, the other the column for the edit, each from its
    worst value, 0, to its best, 1.

    Raises BenchmarkError where no metric's column stands for one of the two, or has no bounds.
    """
    rows = pd.read_parquet(results / "edit_scores.parquet")
    rows = rows[rows["sample"].isin(scored)]
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


OBJECTIVES: dict[str, Callable[[Path, str, Samples, Samples], float]] = {
    "dice": mean_dice,
    "hypervolume": front_hypervolume,
}
