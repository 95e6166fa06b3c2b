"""How a call ends without its handler's doing, and what that is to whoever still uses it.

Knows nothing of calls.
"""

import enum


class CancelReason(enum.Enum):
    """Why a call ended before its handler did."""

    CLIENT = "the client cancelled the call"
    CONNECTION_LOST = "the client's connection was lost"
    DEADLINE = "the call's deadline passed"
    SERVER_STOPPING = "the server is stopping"
    BROKEN = "the client broke the protocol"


class CallEnded(Exception):
    """Nothing can be sent or received any more; ``reason`` says why (None: the call was answered)."""

    def __init__(self, reason: CancelReason | None) -> None:
        super().__init__(reason.value if reason else "the call has been answered")
        self.reason = reason
