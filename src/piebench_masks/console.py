"""What a run says while it runs: words for people, nothing, or one JSON object a line.

Knows no stage. Final tables and errors are no part of it: people get those in any case.
"""

import json
import logging
import sys
import time
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.logging import RichHandler


class QuietConsole(Console):
    """Prints tables, not what is said on the way to them."""


class JsonConsole(Console):
    """Prints events and nothing else; what is a table for people is a file for machines."""

    def print(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def event(self, event: str, **values: Any) -> None:
        line = {"time": round(time.time(), 3), "event": event} | values
        self.file.write(json.dumps(line, default=str) + "\n")
        self.file.flush()


class JsonHandler(logging.Handler):
    """Log records as events; ``extra={"event": ..., "values": ...}`` makes one of a kind."""

    def __init__(self, console: JsonConsole) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", "log")
        plain = {"level": record.levelname, "message": record.getMessage()}
        self.console.event(event, **getattr(record, "values", plain))


def open_console(cfg: DictConfig) -> Console:
    """The terminal as ``log`` and ``quiet`` ask for it."""
    kind = Console
    if cfg.get("log") == "json":
        kind = JsonConsole
    elif cfg.get("quiet"):
        kind = QuietConsole
    return kind(width=None if sys.stdout.isatty() else 160)


def log_handler(console: Console) -> logging.Handler:
    """For warnings and errors on that console."""
    if isinstance(console, JsonConsole):
        return JsonHandler(console)
    handler = RichHandler(console=console, show_path=False, show_time=False)
    handler.setFormatter(logging.Formatter("%(message)s"))  # the level has a column of its own
    return handler


def say(console: Console, event: str, text: str, **values: Any) -> None:
    """Tell people ``text`` (Rich markup), or machines the event with its values."""
    if isinstance(console, JsonConsole):
        console.event(event, **values)
    elif not isinstance(console, QuietConsole):
        console.print(text, soft_wrap=True, highlight=False)


def wants_progress_bar(console: Console) -> bool:
    return not isinstance(console, QuietConsole | JsonConsole)


def error_line(console: Console, message: str) -> str:
    """The last words on standard error."""
    if isinstance(console, JsonConsole):
        return json.dumps({"time": round(time.time(), 3), "event": "error", "message": message})
    return f"Error: {message}"
