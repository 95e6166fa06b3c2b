"""Certificates that are renewed while a server serves: read again when their files have changed.

    handshake --> have the files changed? --> read them --> fine:  this handshake and those to come use them
                                                        '-> wrong: the old ones stay, and the log says why

Connections that are open go on as they are.  A few `stat` at each handshake cost a thousandth of it, so
there is no task that watches and no signal that must be sent.  A file that is half written is one that is
wrong, and has changed once more when it is complete.

Knows nothing of sockets.
"""

import logging
import os
import ssl
from collections.abc import Callable, Sequence

logger = logging.getLogger("trio_serve.transport")


def keep_current(
    context: ssl.SSLContext, files: Sequence[str], read: Callable[[], ssl.SSLContext]
) -> ssl.SSLContext:
    """Let every handshake of the server's ``context`` use what ``files`` hold by then; returns ``context``.

    ``read`` makes a context of them anew, and raises OSError when it cannot.
    """
    # OpenSSL calls this for each ClientHello, also for one without a name.
    context.sni_callback = _Current(files, read)
    return context


class _Current:
    """The context of the files as they were seen last."""

    __slots__ = ("_context", "_files", "_read", "_seen")

    def __init__(self, files: Sequence[str], read: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._read = read
        self._seen = [_stamp(file) for file in files]
        self._context: ssl.SSLContext | None = None  # as long as the first one will do

    def __call__(self, session: ssl.SSLObject, server_name: str | None, first: ssl.SSLContext) -> None:
        seen = [_stamp(file) for file in self._files]
        if seen != self._seen:
            self._seen = seen
            self._renew()
        if self._context is not None:
            session.context = self._context

    def _renew(self) -> None:
        names = ", ".join(self._files)
        try:
            self._context = self._read()
        except OSError as error:  # ssl.SSLError is one too
            logger.error("TLS: %s changed and cannot be used, the old ones stay: %s", names, error)
        else:
            logger.info("TLS: %s changed, new connections use them", names)


def _stamp(file: str) -> tuple[int, int, int] | None:
    """What changes when the file's content does; None when it is not there."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
