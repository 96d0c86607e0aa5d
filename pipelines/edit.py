"""Stage 3 alone: edits under the masks of the stored maps."""

from piebench_masks.cli import main

if __name__ == "__main__":
    main(stages=["edit"])
