"""Log files: one folder for each session, one file that is rotated by its size.

    <logs_dir>/session_2026-01-31_12-00-00_123456_4711/logs/serve/serve.log      written now
                                                                  serve.log.1    before that, and so on
    <logs_dir>/session_latest -> the newest session

A log shipper that follows ``<logs_dir>/session_latest/logs/serve/*.log`` gets each line once: the older files
have other endings.

Source: the folders are Ray's.
Knows nothing of what the lines say.
"""

import contextlib
import errno
import itertools
import os
import pathlib
from datetime import datetime

FILE_BYTES_MAX = 64 * 1024 * 1024
OLDER_FILES = 5


def default_logs_dir() -> pathlib.Path:
    """Where sessions lie when nobody says: in the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return pathlib.Path(state, "trio-serve")


def open_session(logs_dir: str | os.PathLike[str], now: datetime | None = None) -> pathlib.Path:
    """Make a new session's folder for log files and let ``session_latest`` point to it.

    Raises:
        OSError: the folder cannot be made; the text says which.
    """
    logs = pathlib.Path(logs_dir)
    name = f"session_{now or datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"
    folder = logs / name / "logs" / "serve"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _point(logs / "session_latest", name)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO, f"logs_dir={os.fspath(logs_dir)!r} cannot be used: {error.strerror}"
        ) from error
    return folder


def _point(link: pathlib.Path, target: str) -> None:
    """Let ``link`` point to ``target`` in one step, so that who follows it always finds something."""
    new = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    new.symlink_to(target)
    os.replace(new, link)


class RotatingFile:
    """A file that lines are added to, a system call each, so that none is lost with the process.

    Beyond ``bytes_max`` the file becomes ``<name>.1``, what was that becomes ``<name>.2``, and so on.
    """

    def __init__(
        self, path: pathlib.Path, bytes_max: int = FILE_BYTES_MAX, older_files: int = OLDER_FILES
    ) -> None:
        self.path = path
        self._bytes_max = bytes_max
        self._older_files = older_files
        self._fd = -1
        self._size = 0
        self._mid_line = False
        self._open()

    def write(self, line: str) -> None:
        """Add one line; its end is added too.

        Raises:
            OSError: it could not be written, or not as a whole.
        """
        data = (line + "\n").encode("utf-8", "backslashreplace")
        if self._size and self._size + len(data) > self._bytes_max:
            self._rotate()
        if self._mid_line:
            data = b"\n" + data  # the disk was full in the middle of a line
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        finally:
            self._size += written
            if written:
                self._mid_line = written < len(data)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        older = [self.path, *(pathlib.Path(f"{self.path}.{n}") for n in range(1, self._older_files + 1))]
        for newer, target in reversed(list(itertools.pairwise(older))):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, target)
        previous = self._fd
        self._open()  # before the old one is closed: when this fails, the lines still have a place
        os.close(previous)
