"""The tracker for those who want none."""


class NullTracker:
    def publish(self, **run: object) -> None:
        """Do nothing; see ``Tracker.publish``."""
