"""Why an envelope was answered without, or before the end of, its work.

Each of these can be an envelope's answer; the layers above turn them into a status.
"""

import trio


class MailboxFull(Exception):
    """There is no room: raised by ``Mailbox.put_nowait`` at once, never after a wait."""

    def __init__(self, name: str, waiting: int, capacity: int) -> None:
        super().__init__(f"{name}: {waiting} envelopes are waiting, all that capacity={capacity} allows")
        self.waiting = waiting
        self.capacity = capacity


class MailboxClosed(Exception):
    """The mailbox takes nothing more, because its owner has stopped or is stopping."""


class ActorStopped(Exception):
    """The actor ended, by a stop or by a crash, while the envelope was in its hands."""


class CallCancelled(Exception):
    """The envelope was cancelled by its sender, or by the end of the request that sent it."""


class DeadlinePassed(TimeoutError):
    """The envelope's deadline came before its answer, in the queue or at work."""


class HandlerExited(RuntimeError):
    """A handler raised something that would end a program (``SystemExit``): here it ends one call.

    The original is the ``__cause__``.
    """


def is_cancellation(error: BaseException) -> bool:
    """Whether Trio is unwinding this task, alone or together with errors."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(trio.Cancelled) is not None
    return isinstance(error, trio.Cancelled)


def is_interrupt(error: BaseException) -> bool:
    """Whether somebody pressed Ctrl-C: that is nobody's answer, and ends the program."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


def as_exception(error: BaseException, name: str) -> Exception:
    """The one error that a caller should see: groups of one are opened, exits become errors."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, Exception):
        return error
    exited = HandlerExited(f"{name} raised {error!r}, which ends this one piece of work and nothing else")
    exited.__cause__ = error
    return exited
