"""The ``piebench-masks`` command, also ``python -m piebench_masks``: starts and ends quickly."""

import atexit
import gc
import logging
import os
import sys


def command() -> None:
    """Run :func:`piebench_masks.cli.main` as the whole process.

    Python's collector looks at every object of torch and its relatives, which are for good: rarely
    while they load, which saves a second, and not at all when the process ends, which saves two.
    """
    gc.set_threshold(100_000, 20, 20)
    status = 1

    def leave() -> None:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)  # registered first, so called after all others
    from piebench_masks.cli import main

    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


if __name__ == "__main__":
    command()
