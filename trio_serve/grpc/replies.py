"""What becomes of the messages that a server sends: one is kept, or many wait to be taken.

    DATA --> UnaryReplyCall   the window is given back at once; a second message is the server's mistake
         --> StreamReplyCall  Inbox: cut into messages, and the window given back, as the caller takes them

Source: gRPC over HTTP2, "Responses".
Knows nothing of stubs and of attempts but the one that the messages come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from grpclib.exceptions import GRPCError

from trio_serve.grpc.attempt import Attempt
from trio_serve.grpc.call_form import CallForm
from trio_serve.grpc.inbox import EndOfStream, Inbox
from trio_serve.grpc.outgoing_call import OutgoingCall
from trio_serve.wire.grpc import Fields, MessageReader, Status, Trailers, decompressor, whole_message

if TYPE_CHECKING:
    from trio_serve.grpc.channel import Channel

__all__ = ["MESSAGES_A_TURN", "StreamReplyCall", "UnaryReplyCall"]

MESSAGES_A_TURN = 64
"""After so many messages that were there already, a reader lets other tasks run."""

OK = Status.OK  # an enum's member is slow to fetch

LEFT_TO_THE_END_BYTES = 1024
"""A reply no larger leaves its window to be given back by the end of its stream, which is about to come."""


class UnaryReplyCall(OutgoingCall):
    """A call whose answer is one message."""

    __slots__ = ("_reader", "payload")

    def __init__(self, channel: Channel, form: CallForm, metadata: Fields, deadline: float) -> None:
        super().__init__(channel, form, metadata, deadline)
        self._reader: MessageReader | None = None
        self.payload: bytes | None = None

    def reply(self) -> Any:
        """The reply, of a call that is over.

        Raises:
            RpcError: it ended with another status than OK; INTERNAL: the reply does not parse.
        """
        assert self.end is not None
        if self.end.status is not OK:
            raise self.error()
        assert self.payload is not None
        return self.form.read_reply(self.payload)

    def data_received(self, attempt: Attempt, data: bytes) -> None:
        if self._reader is None and self.payload is None:
            self.payload = whole_message(data, self.form.reply_bytes_max)
            if self.payload is not None:
                if len(data) > LEFT_TO_THE_END_BYTES:
                    attempt.give_back(len(data))
                return
        # The one who waits wants all of it, so the window is given back at once.
        attempt.give_back(len(data))
        reader = self._reader
        if reader is None:
            reader = self._reader = _reader_for(attempt, self.form.reply_bytes_max)
        try:
            messages = reader.receive(data)
        except GRPCError as error:
            attempt.fail(error.status, error.message or "")
            return
        if len(messages) + (self.payload is not None) > 1:
            attempt.fail(
                Status.UNIMPLEMENTED, f"{self.path} answers with one message, but the server sent more"
            )
        elif messages:
            self.payload = messages[0]

    def answered_by(self, end: Trailers) -> Trailers:
        if end.status is not OK:
            return end
        if self.payload is None:
            text = f"{self.path} answers with one message, but the server sent none"
            end = end._replace(status=Status.UNIMPLEMENTED, message=text)
        if self._reader is not None:
            try:
                self._reader.end()
            except GRPCError as error:
                end = end._replace(status=error.status, message=error.message or "")
        return end


class StreamReplyCall(OutgoingCall):
    """A call whose answer is any number of messages, taken one by one."""

    __slots__ = ("_inbox", "_turn")

    def __init__(self, channel: Channel, form: CallForm, metadata: Fields, deadline: float) -> None:
        super().__init__(channel, form, metadata, deadline)
        self._inbox: Inbox | None = None
        self._turn = 0

    async def next(self) -> bytes | None:
        """The next message's bytes, or None after the last one.  Cancelling cancels the call.

        Raises:
            RpcError: the call ended with another status than OK; the messages before come first.
        """
        if self._turn >= MESSAGES_A_TURN:
            self._turn = 0
            await trio.lowlevel.checkpoint()
        while True:
            payload = self._take()
            if payload is not None:
                return payload
            if self.end is not None:
                if self.end.status is not Status.OK:
                    await trio.lowlevel.checkpoint_if_cancelled()
                    raise self.error()
                return None
            await self.park(abandon=True)

    def read(self, payload: bytes) -> Any:
        """The message in ``payload``; raises RpcError INTERNAL when it does not parse."""
        return self.form.read_reply(payload)

    def next_nowait(self) -> bytes | None:
        """The next message if it is there; now and then None all the same, so that `next` lets others run."""
        self._turn += 1
        return self._take() if self._turn < MESSAGES_A_TURN else None

    def _take(self) -> bytes | None:
        if self._inbox is None:
            return None
        try:
            return self._inbox.take_nowait()
        except EndOfStream:
            return None
        except GRPCError as error:
            self._inbox = None
            end = Trailers(error.status, error.message or "", (), b"")
            if self.end is None:
                self.finish(end)
            elif self.end.status is Status.OK:
                self.end = end
            return None

    def data_received(self, attempt: Attempt, data: bytes) -> None:
        inbox = self._inbox
        if inbox is None:
            inbox = self._inbox = Inbox(attempt, _reader_for(attempt, self.form.reply_bytes_max))
        inbox.put(data, False)
        if self._crowd:
            self.wake()

    def cancel(self, status: Status = Status.CANCELLED, message: str = "the call was cancelled") -> bool:
        if self.end is None:
            self._inbox = None  # whoever cancels wants no more messages
        return super().cancel(status, message)

    def finish(self, end: Trailers) -> None:
        if self._inbox is not None:
            self._inbox.put(b"", True)
        super().finish(end)


def _reader_for(attempt: Attempt, reply_bytes_max: int) -> MessageReader:
    encoding = attempt.head.encoding if attempt.head is not None else "identity"
    return MessageReader(reply_bytes_max, decompressor(encoding), "reply message", "set it in open_channel")
