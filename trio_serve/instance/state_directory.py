"""The folder of one long-lived instance, and the lock that makes it the only one there.

    <state directory>/lock             held with flock by the instance: the kernel frees it however that ends
                      admin.sock       the admin API, for the owner only (mode 0600)
                      code.sock        scripts, with the code that they send, for the owner only (mode 0600)
                      desired.yaml     the configuration that is to run; read again by the next instance
                      scripted.pickle  what scripts have deployed; read again by the next instance
                      output.log       what the process of `start` writes to stdout and stderr
                      session_latest/  its log

Knows nothing of what the files say.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from trio_serve.observe.log_files import default_logs_dir
from trio_serve.transport.listener import open_unix_listener

SOCKET_PATH_BYTES_MAX = 107
"""What fits in the kernel's ``sockaddr_un`` beside the zero at its end."""


class AnotherInstance(Exception):
    """An instance runs in this state directory already; the text says which."""


class StateDirectory:
    """Where one instance keeps its files: ``given``, or the user's state directory (XDG)."""

    def __init__(self, given: str | os.PathLike[str] | None = None) -> None:
        self.path = pathlib.Path(given or default_logs_dir()).absolute()

    @property
    def socket_path(self) -> str:
        return str(self.path / "admin.sock")

    @property
    def code_socket_path(self) -> str:
        return str(self.path / "code.sock")

    @property
    def scripted_path(self) -> pathlib.Path:
        return self.path / "scripted.pickle"

    @property
    def desired_state_path(self) -> pathlib.Path:
        return self.path / "desired.yaml"

    @property
    def output_path(self) -> pathlib.Path:
        return self.path / "output.log"

    @property
    def log_path(self) -> pathlib.Path:
        return self.path / "session_latest" / "logs" / "serve" / "serve.log"

    def make(self) -> None:
        """Make the folder, for its owner only, if it is not there.

        Raises:
            OSError: it cannot be made, or its path is too long for a socket in it.
        """
        if len(os.fsencode(self.socket_path)) > SOCKET_PATH_BYTES_MAX:
            raise OSError(
                errno.ENAMETOOLONG,
                f"{self.socket_path} is too long for a Unix socket ({SOCKET_PATH_BYTES_MAX} bytes at most); "
                "choose a shorter --state-dir",
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno, f"the state directory {self.path} cannot be made: {error.strerror}"
            ) from None

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Be the one instance here for the length of the block; the lock goes with the process.

        Raises:
            AnotherInstance: there is one, at once.
            OSError: the folder cannot be used.
        """
        self.make()
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnotherInstance(
                    f"an instance runs in {self.path} already ({_owner(fd)}); `trio-serve shutdown` ends it, "
                    "and --state-dir names a place for another one"
                ) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            yield
        finally:
            os.close(fd)

    def is_owned(self) -> bool:
        """Whether an instance, alive, has its place here."""
        try:
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def listen(self, path: str) -> socket.socket:
        """Listen on a Unix socket that nobody but the owner may open; for who holds the lock.

        Raises:
            OSError: the path cannot be used.
        """
        before = os.umask(0o177)
        try:
            return open_unix_listener(path)
        finally:
            os.umask(before)

    def write_desired_state(self, text: str) -> None:
        """Replace it as a whole; raises OSError."""
        _replace(self.desired_state_path, text.encode())

    def read_desired_state(self) -> str | None:
        """What was written last; None when there is nothing, or it was forgotten."""
        try:
            return self.desired_state_path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def set_desired_state_aside(self) -> pathlib.Path:
        """Take away a desired state that cannot be used, and say where it lies now."""
        return _set_aside(self.desired_state_path)

    def forget_desired_state(self) -> None:
        self.desired_state_path.unlink(missing_ok=True)

    def write_scripted(self, data: bytes | None) -> None:
        """Replace what scripts have deployed as a whole; None: nothing.  Raises OSError."""
        if data is None:
            self.scripted_path.unlink(missing_ok=True)
        else:
            _replace(self.scripted_path, data)

    def read_scripted(self) -> bytes | None:
        """What was written last; None when there is nothing."""
        try:
            return self.scripted_path.read_bytes()
        except FileNotFoundError:
            return None

    def set_scripted_aside(self) -> pathlib.Path:
        """Take away what cannot be used, and say where it lies now."""
        return _set_aside(self.scripted_path)


def _replace(path: pathlib.Path, data: bytes) -> None:
    """Replace a file of the owner's: who reads finds the old one or the new one, also after a power cut.

    Raises:
        OSError: it could not be written; the old one is still there.
    """
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _set_aside(path: pathlib.Path) -> pathlib.Path:
    aside = path.with_suffix(".broken")
    os.replace(path, aside)
    return aside


def _owner(fd: int) -> str:
    pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return f"process {pid}" if pid else "it is just starting"
