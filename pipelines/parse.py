"""Stage 1 alone: check the data set and write the table of samples."""

from piebench_masks.cli import main

if __name__ == "__main__":
    main(stages=["parse"])
