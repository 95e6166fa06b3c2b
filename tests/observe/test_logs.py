"""Where lines go, which ones, and what happens when they cannot."""

import contextlib
import io
import logging
import pathlib
import sys
from collections.abc import Iterator

import pytest

from trio_serve.config import LoggingConfig
from trio_serve.observe.log_fields import RequestFields
from trio_serve.observe.logs import Outlet, admit, open_logs
from trio_serve.proxy.access_log import AccessLog

logger = logging.getLogger("trio_serve")


@pytest.fixture
def stderr() -> io.StringIO:
    return io.StringIO()


@contextlib.contextmanager
def logs_on(stream: io.StringIO, settings: LoggingConfig, files: bool = True) -> Iterator[None]:
    with contextlib.redirect_stderr(stream), open_logs(settings, files=files):
        yield


def test_the_log_goes_to_stderr_once_and_afterwards_as_before(
    stderr: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    before = (logger.level, logger.propagate, list(logger.handlers))
    with logs_on(stderr, LoggingConfig()):
        logging.getLogger("trio_serve.child").info("hello")
        logger.debug("not this")

    assert stderr.getvalue().endswith("trio_serve.child -- hello\n")
    assert stderr.getvalue().count("\n") == 1
    assert caplog.records == []
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_programs_written_for_ray_log_to_their_logger(stderr: io.StringIO) -> None:
    with logs_on(stderr, LoggingConfig()):
        logging.getLogger("ray").info("Some info!")
        logging.getLogger("ray.serve").info("newer")

    assert stderr.getvalue().count("-- Some info!\n") == stderr.getvalue().count("-- newer\n") == 1


def test_where_ray_itself_is_its_logger_is_left_to_it(stderr: io.StringIO) -> None:
    rays = logging.NullHandler()
    logging.getLogger("ray").addHandler(rays)
    try:
        with logs_on(stderr, LoggingConfig()):
            assert logging.getLogger("ray").handlers == [rays]
    finally:
        logging.getLogger("ray").removeHandler(rays)


def test_a_logs_dir_gets_the_same_lines(stderr: io.StringIO, tmp_path: pathlib.Path) -> None:
    with logs_on(stderr, LoggingConfig(logs_dir=str(tmp_path))):
        logger.info("hello")

    file = tmp_path / "session_latest" / "logs" / "serve" / "serve.log"
    assert file.read_text() == stderr.getvalue() != ""


def test_without_files_nothing_is_made(stderr: io.StringIO, tmp_path: pathlib.Path) -> None:
    with logs_on(stderr, LoggingConfig(logs_dir=str(tmp_path)), files=False):
        logger.info("hello")

    assert list(tmp_path.iterdir()) == []


def test_closed_at_the_start_stderr_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with open_logs(LoggingConfig()):
        logger.info("hello")


def test_a_stderr_that_closes_later_is_told_once_in_the_file(
    stderr: io.StringIO, tmp_path: pathlib.Path
) -> None:
    with logs_on(stderr, LoggingConfig(logs_dir=str(tmp_path))):
        stderr.close()
        for _ in range(3):
            logger.info("hello")

    text = (tmp_path / "session_latest" / "logs" / "serve" / "serve.log").read_text()
    assert text.count("the log cannot be written to stderr: I/O operation on closed file") == 1
    assert text.count("-- hello") == 3


def test_a_full_disk_is_told_once_and_its_end_with_the_number_of_lines_lost() -> None:
    """The file refuses two lines out of four; stderr has all four, and two lines about the file."""
    refuses = [False, True, True, False]
    file_lines: list[str] = []
    other_lines: list[str] = []

    def write(line: str) -> None:
        if refuses and refuses.pop(0):
            raise OSError(28, "No space left on device")
        file_lines.append(line)

    settings = LoggingConfig()
    file = Outlet("/logs/serve.log", settings, write)
    stderr = Outlet("stderr", settings, other_lines.append)
    file.others = [stderr]
    for number in range(4):
        made = logging.LogRecord("trio_serve", logging.INFO, "", 1, f"line {number}", (), None)
        stderr.emit(made)
        file.emit(made)

    told = [line.partition(" -- ")[2] for line in other_lines]
    assert told == [
        "line 0",
        "line 1",
        "the log cannot be written to /logs/serve.log: No space left on device; serving goes on, and its "
        "lines are lost until it can be written again",
        "line 2",
        "line 3",
        "the log can be written to /logs/serve.log again; 2 of its lines were lost",
    ]
    assert [line.partition(" -- ")[2] for line in file_lines] == ["line 0", "line 3", told[-1]]


def test_the_access_log_is_a_switch(stderr: io.StringIO) -> None:
    with logs_on(stderr, LoggingConfig()):
        assert AccessLog().enabled
    with logs_on(stderr, LoggingConfig(enable_access_log=False)):
        assert not AccessLog().enabled
        logger.info("other lines are written")
    with logs_on(stderr, LoggingConfig(log_level="ERROR")):
        assert not AccessLog().enabled
    assert not AccessLog().enabled
    assert "other lines are written" in stderr.getvalue()


def test_a_lower_level_is_admitted_and_still_not_shown_for_others(stderr: io.StringIO) -> None:
    """A deployment logs at DEBUG: its records must pass the logger, and nobody else's are shown."""
    with logs_on(stderr, LoggingConfig()):
        admit("DEBUG")
        assert logger.isEnabledFor(logging.DEBUG)
        logger.debug("hello")
    admit("DEBUG")

    assert stderr.getvalue() == ""
    assert logger.level == logging.NOTSET


def test_handlers_of_ones_own_can_have_the_fields() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RequestFields())
    handler.setFormatter(logging.Formatter("%(component)s|%(deployment)s|%(message)s"))
    handler.handle(logging.LogRecord("mine", logging.INFO, "", 1, "hello", (), None))

    assert stream.getvalue() == "serve||hello\n"
