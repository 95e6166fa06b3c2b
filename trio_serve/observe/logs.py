"""The log of a running instance: from the logger ``trio_serve`` to stderr, and to files if wanted.

    trio_serve, ray ──> Outlet: filtered, stamped, formatted ──> stderr
                                                            └──> <logs_dir>/session_latest/.../serve.log

``ray`` is the logger that programs written for Ray Serve use; where Ray itself is in the process, it is left
to it.  Level, encoding and further fields are the instance's, or, for what a replica's code logs, those of
its deployment.

A line that cannot be written is lost, and serving goes on: the first one is told in one line where that is
still possible, and how many were lost is told when writing works again.

Knows nothing of what is logged.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from trio_serve.observe.log_fields import settings_around, stamp
from trio_serve.observe.log_files import RotatingFile, open_session
from trio_serve.observe.log_lines import JsonLine, LineFormatter, TextLine
from trio_serve.observe.log_settings import LogSettings

LOGGERS = ("trio_serve", "ray")
ACCESS = "trio_serve.access"


class Outlet(logging.Handler):
    """Writes records as lines, by ``write(line)``, to the place named ``place``.

    ``others`` are told when lines are lost here, and when that is over.
    """

    def __init__(self, place: str, settings: LogSettings, write: Callable[[str], None]) -> None:
        super().__init__()
        self.place = place
        self.others: list[Outlet] = []
        self.lost = 0
        """Lines lost since writing last worked."""
        self._settings = settings
        self._write = write
        self._formatters: dict[tuple[str, tuple[str, ...]], LineFormatter] = {}

    def emit(self, record: logging.LogRecord) -> None:
        settings = settings_around(self._settings)
        if record.levelno < _level(settings.log_level):
            return
        if "component" not in record.__dict__:
            stamp(record)
        try:
            line = self._formatter(settings).format(record)
        except Exception as error:
            line = self._line_of(f"a record of {record.name} cannot be shown: {type(error).__name__}")
        try:
            self._write(line)
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._lose(error)
        else:
            if self.lost:
                self._recover()

    def tell(self, text: str) -> None:
        """Write a line of the log's own, if that can be."""
        with contextlib.suppress(OSError, ValueError):
            self._write(self._line_of(text))

    def _line_of(self, text: str) -> str:
        values = {"name": "trio_serve.log", "levelname": "WARNING", "msg": text, "component": "serve"}
        return self._formatter(self._settings).format(logging.makeLogRecord(values))

    def _formatter(self, settings: LogSettings) -> LineFormatter:
        key = (settings.encoding, tuple(settings.additional_log_standard_attrs))
        formatter = self._formatters.get(key)
        if formatter is None:
            kind = JsonLine if settings.encoding == "JSON" else TextLine
            formatter = self._formatters[key] = kind(key[1])
        return formatter

    def _lose(self, error: Exception) -> None:
        self.lost += 1
        if self.lost > 1:
            return
        reason = getattr(error, "strerror", None) or str(error)
        for other in self.others:
            other.tell(
                f"the log cannot be written to {self.place}: {reason}; serving goes on, and its lines are "
                "lost until it can be written again"
            )

    def _recover(self) -> None:
        lost, self.lost = self.lost, 0
        for outlet in (self, *self.others):
            outlet.tell(f"the log can be written to {self.place} again; {lost} of its lines were lost")


@contextlib.contextmanager
def open_logs(settings: LogSettings, *, files: bool = True) -> Iterator[None]:
    """Write what is logged to stderr, and with ``files`` to a new session in ``logs_dir`` if there is one.

    For the length of the block, nothing of it is written twice: it does not reach the root logger.

    Raises:
        OSError: ``logs_dir`` cannot be used.
    """
    with contextlib.ExitStack() as stack:
        outlets = []
        if sys.stderr is not None:  # it is, where the process was started with it closed
            outlets.append(Outlet("stderr", settings, _stream_writer(sys.stderr)))
        if files and settings.logs_dir is not None:
            file = RotatingFile(open_session(settings.logs_dir) / "serve.log")
            stack.callback(file.close)
            outlets.append(Outlet(str(file.path), settings, file.write))
        for outlet in outlets:
            outlet.others = [other for other in outlets if other is not outlet]
        for name in LOGGERS:
            target = logging.getLogger(name)
            if name == "trio_serve" or not target.handlers:  # Ray itself, where it is here, keeps its logger
                stack.enter_context(_attached(target, outlets, settings.log_level))
        if not settings.enable_access_log:
            stack.enter_context(_level_of(logging.getLogger(ACCESS), logging.WARNING))
        yield


def admit(level: str) -> None:
    """Let records of ``level`` through to the outlets, for a deployment that logs more than the instance.

    Until the log is closed; nothing happens where it is not open.
    """
    for name in LOGGERS:
        target = logging.getLogger(name)
        if any(isinstance(handler, Outlet) for handler in target.handlers):
            target.setLevel(min(target.level, _level(level)))


def _level(name: str) -> int:
    number: int = getattr(logging, name)
    return number


@contextlib.contextmanager
def _attached(target: logging.Logger, outlets: list[Outlet], level: str) -> Iterator[None]:
    before, propagated = target.level, target.propagate
    for outlet in outlets:
        target.addHandler(outlet)
    target.setLevel(level)
    target.propagate = False
    try:
        yield
    finally:
        for outlet in outlets:
            target.removeHandler(outlet)
        target.setLevel(before)
        target.propagate = propagated


@contextlib.contextmanager
def _level_of(target: logging.Logger, level: int) -> Iterator[None]:
    before = target.level
    target.setLevel(level)
    try:
        yield
    finally:
        target.setLevel(before)


def _stream_writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return write
