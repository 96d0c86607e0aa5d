"""Stage 4 alone: score the stored maps and edits."""

from piebench_masks.cli import main

if __name__ == "__main__":
    main(stages=["score"])
