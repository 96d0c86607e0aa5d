"""The one kind of error whose message is written for the user: what, where, and what to do."""


class BenchmarkError(Exception):
    """Ends the run or marks one item as failed; no traceback is shown unless ``debug=true``."""
