"""The messages of a run: words for people, nothing, or one JSON object a line.

Knows no stage. Final tables and errors are no part of it: people get those in any case.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from rich.cells import cell_len
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

NOISY = re.compile(
    r"^\S*[/\\]site-packages[/\\](torch|torchvision|diffusers|transformers|huggingface_hub|timm|"
    r"open_clip|lpips|matplotlib|pandas|hydra|omegaconf|optuna|wandb|mlflow|ray|submitit)\b"
)
"""Packages whose Python warnings go to the log file alone."""


class QuietConsole(Console):
    """Prints tables, not what is said on the way to them."""


class JsonConsole(Console):
    """Prints events and nothing else; machines read the tables' files."""

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
    return kind(width=terminal_width())


def terminal_width() -> int | None:
    """None where Rich knows it, from the terminal or COLUMNS; a pipe has room for wide tables."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160


def print_table(console: Console, table: Table, secondary: Sequence[str] = ()) -> None:
    """Print a table of texts. Cells are never cut, headers may wrap. Columns without room are left
    out and named below: first those whose headers start with a word of ``secondary``, then the
    last ones.
    """
    headers = [str(column.header) for column in table.columns]
    cells = [max([0, *(cell_len(str(cell)) for cell in c.cells)]) for c in table.columns]
    widths = [max([n, *map(cell_len, h.split())]) for n, h in zip(cells, headers, strict=True)]
    full = 1 + sum(3 + max(n, cell_len(h)) for n, h in zip(cells, headers, strict=True))
    if full > console.width:
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
    starts, indices = tuple(f"{start} " for start in secondary), [*range(len(headers))]
    while 1 + sum(3 + widths[i] for i in indices) > console.width and len(indices) > 1:
        indices.remove(([i for i in indices if f"{headers[i]} ".startswith(starts)] or indices)[-1])
    if omitted := [header for i, header in enumerate(headers) if i not in indices]:
        table.columns = [table.columns[i] for i in indices]
        note = f"Left out here for want of room: {', '.join(omitted)}."
        table.caption = Text("\n".join((*([str(table.caption)] if table.caption else []), note)))
        table.caption_justify = "left"
    console.print(table)


def log_handler(console: Console, debug: bool = False) -> logging.Handler:
    """For warnings and errors on that console, or with ``debug`` for everything."""
    if isinstance(console, JsonConsole):
        handler: logging.Handler = JsonHandler(console)
    else:
        handler = RichHandler(console=console, show_path=False, show_time=False)
        handler.setFormatter(logging.Formatter("%(message)s"))  # the level has a column of its own
    handler.setLevel(logging.DEBUG if debug else logging.WARNING)
    if not debug:
        handler.addFilter(lambda record: not _is_noise(record))
    return handler


def _is_noise(record: logging.LogRecord) -> bool:
    """Whether it is a Python warning from one of ``NOISY``; captured ones begin with their file."""
    return record.name == "py.warnings" and NOISY.search(record.getMessage()) is not None


def set_up_logging(handlers: Sequence[logging.Handler]) -> None:
    """All that this process logs goes to these handlers, and the warnings of Python code, too."""
    logging.captureWarnings(True)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    logging.getLogger("piebench_masks").setLevel(logging.DEBUG)


def say(console: Console, event: str, text: str | None, **values: Any) -> None:
    """Tell people ``text`` (Rich markup; None: nothing), or machines the event with its values."""
    if isinstance(console, JsonConsole):
        console.event(event, **values)
    elif text is not None and not isinstance(console, QuietConsole):
        console.print(text, soft_wrap=True, highlight=False)


def wants_progress_bar(console: Console) -> bool:
    return console.is_terminal and not isinstance(console, QuietConsole | JsonConsole)


def error_line(console: Console, message: str) -> str:
    """The message that ends the command, for standard error."""
    if isinstance(console, JsonConsole):
        return json.dumps({"time": round(time.time(), 3), "event": "error", "message": message})
    return f"Error: {message}"
