"""The tracker for those who want none."""

from piebench_masks.tracking.tracker import FinishedRun


class NullTracker:
    def publish(self, run: FinishedRun) -> None:
        """Do nothing; see ``Tracker.publish``."""
