r"""One log record, one line: as text in two forms, and as JSON.

    in a replica  INFO 2026-01-31 12:00:00,123 app1_Greeter x7Kq2A 8e0c... -- message
    of a backend  (pid=4711) 2026-01-31 12:00:00,123 INFO -- message component=serve backend=f replica=f#jZlnU
    of a proxy    INFO 2026-01-31 12:00:00,123 proxy 8e0c... -- GET /t 200 4.5ms
    otherwise     INFO 2026-01-31 12:00:00,123 trio_serve.run -- message
    JSON          {"levelname": "INFO", "asctime": "...", "name": ..., "component": ..., "message": "..."}

Whatever text comes from outside stays on its line: what ends a line or paints on a terminal is written as an
escape (``\n``).  A stack trace follows on lines of its own, indented, so that none of them looks like a
record; in JSON it is a field.

Source: the log lines of Ray Serve 2.60, and of its 1.3 for backends.
Knows nothing of where lines go.
"""

import json
import logging
import time
from collections.abc import Sequence
from math import isfinite
from typing import Any

from trio_serve.observe.log_fields import FIELDS
from trio_serve.observe.traces import from_their_first_frame

_INDENT = "    "
_OURS = frozenset((*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", *FIELDS))
"""Attributes of records that nobody gave as ``extra``."""


class LineFormatter(logging.Formatter):
    """What both encodings share: times, messages that cannot fail, stack traces for whose code it is."""

    def __init__(self, standard_attrs: Sequence[str] = ()) -> None:
        super().__init__()
        self._standard_attrs = tuple(standard_attrs)
        self._second = -1
        self._second_text = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        second = int(record.created)
        if second != self._second:
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second, self._second_text = second, text
        return f"{self._second_text},{int(record.msecs):03d}"

    def trace_of(self, record: logging.LogRecord) -> str:
        """The stack trace that goes with the record, or "".

        It begins at the user's first frame; with ours before it where the logger is set to DEBUG.
        """
        parts = []
        if record.exc_info and record.exc_info[1] is not None:
            kind, error, trace = record.exc_info
            if not logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
                trace = from_their_first_frame(trace)
            parts.append(self.formatException((kind, error, trace)))
        if record.stack_info:
            parts.append(record.stack_info)
        return "\n".join(parts)


class TextLine(LineFormatter):
    """A record as text."""

    def format(self, record: logging.LogRecord) -> str:
        line = on_one_line(
            self._backend_line(record) if record.__dict__.get("backend") else self._line(record)
        )
        trace = self.trace_of(record)
        if not trace:
            return line
        return "\n".join([line, *(_INDENT + on_one_line(each) for each in trace.splitlines())])

    def _line(self, record: logging.LogRecord) -> str:
        return (
            f"{record.levelname} {self.formatTime(record)} {_where(record)}{self._attrs(record)}"
            f" -- {message_of(record)}"
        )

    def _backend_line(self, record: logging.LogRecord) -> str:
        fields = record.__dict__
        return (
            f"(pid={record.process}) {self.formatTime(record)} {record.levelname}{self._attrs(record)}"
            f" -- {message_of(record)}"
            f" component=serve backend={fields['backend']} replica={fields['replica']}"
        )

    def _attrs(self, record: logging.LogRecord) -> str:
        return "".join(f" {name}={record.__dict__.get(name)}" for name in self._standard_attrs)


class JsonLine(LineFormatter):
    """A record as one JSON object: named fields, what the caller gave as ``extra``, the trace."""

    def format(self, record: logging.LogRecord) -> str:
        fields = record.__dict__
        line: dict[str, Any] = {
            "levelname": record.levelname,
            "asctime": self.formatTime(record),
            "name": record.name,
        }
        for name in FIELDS:
            if fields.get(name):
                line[name] = _plain(fields[name])
        for name in self._standard_attrs:
            line[name] = _plain(fields.get(name))
        for name, value in fields.items():
            if name not in _OURS:
                line[str(name)] = _plain(value)
        line["message"] = message_of(record)
        trace = self.trace_of(record)
        if trace:
            line["exc_text"] = trace
        return json.dumps(line)


def message_of(record: logging.LogRecord) -> str:
    """The record's message; one that cannot be put together is shown in its parts."""
    try:
        return record.getMessage()
    except Exception as error:  # a bad format, or an object whose __str__ raises
        return f"{_plain(record.msg)} (its arguments do not fit: {type(error).__name__})"


def on_one_line(text: str) -> str:
    """``text`` with what would end its line, or paint on a terminal, written as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _where(record: logging.LogRecord) -> str:
    fields = record.__dict__
    component = fields.get("component")
    if component == "replica":
        application, deployment = fields["application"], fields["deployment"]
        name = f"{application}_{deployment}" if application else deployment
        where = f"{name} {fields['replica'].rpartition('#')[2]}"
    elif component == "proxy":
        where = "proxy"
    else:
        return record.name
    return f"{where} {fields['request_id']}" if fields.get("request_id") else where


def _plain(value: object) -> object:
    """``value`` as JSON has it: itself where it can be, else its text."""
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose text raises {type(error).__name__}>"
