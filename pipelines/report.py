"""Stage 5 alone: tables, figures and pages from the stored scores."""

from piebench_masks.cli import main

if __name__ == "__main__":
    main(stages=["report"])
