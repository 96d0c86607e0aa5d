"""Compare a run with a baseline: baseline=results/baselines/<name>.parquet, or baseline=update."""

from piebench_masks.cli import regress

if __name__ == "__main__":
    regress()
