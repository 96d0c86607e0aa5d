"""Stage 2 alone: soft maps of every method."""

from piebench_masks.cli import main

if __name__ == "__main__":
    main(stages=["masks"])
