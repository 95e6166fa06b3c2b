r"""The log of a running instance: the logger ``trio_serve`` and its children, one line a record, on stderr.

    TEXT    INFO 2026-01-31 12:00:00,123 trio_serve.run -- serving 'app1'
    JSON    {"levelname": "INFO", "asctime": "...", "name": "trio_serve.run", "message": "serving 'app1'"}

Whatever a message holds, it stays on its line: newlines are written as ``\n``.  A stack trace follows on
lines of its own in TEXT, and is a field in JSON.

Knows nothing of what is logged.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

from trio_serve.instance.options import LoggingConfig
from trio_serve.instance.traces import from_their_first_frame

logger = logging.getLogger("trio_serve")


@contextlib.contextmanager
def logs_on_stderr(config: LoggingConfig) -> Iterator[None]:
    """Write what ``trio_serve`` logs to stderr, and nothing of it twice, for the length of the block."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine(config) if config.encoding == "JSON" else _TextLine())
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(config.log_level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def on_one_line(text: str) -> str:
    """``text`` with what would end its line, or paint on a terminal, written as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class _Formatter(logging.Formatter):
    """Shows stack traces to the person whose code they are about; at DEBUG, with our frames."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        kind, error, trace = ei
        if not logger.isEnabledFor(logging.DEBUG):
            trace = from_their_first_frame(trace)
        return super().formatException((kind, error, trace))


class _TextLine(_Formatter):
    def __init__(self) -> None:
        super().__init__("%(levelname)s %(asctime)s %(name)s -- %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        record.message = on_one_line(record.message)
        return super().formatMessage(record)


class _JsonLine(_Formatter):
    def __init__(self, config: LoggingConfig) -> None:
        super().__init__()
        self._fields = ["levelname", "asctime", "name", *config.additional_log_standard_attrs]

    def format(self, record: logging.LogRecord) -> str:
        record.asctime = self.formatTime(record)
        line = {name: getattr(record, name, None) for name in self._fields}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
