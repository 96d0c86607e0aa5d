"""All stages: the same as the ``piebench-masks`` command."""

from piebench_masks.cli import main

if __name__ == "__main__":
    main()
