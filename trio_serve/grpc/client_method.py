"""One rpc on one channel: what its calls are made of, whatever its kind.

    timeout, metadata, options --> begin() --> a call: on the wire, or the first interceptor's around it
                                   start() --> it is under way, once its credentials are there

Everything that is the same for all calls is made once (`CallForm`), for each set of options that comes up.

Knows nothing of attempts and connections.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypedDict, TypeVar

import trio
from grpclib.const import Cardinality

from trio_serve.grpc.call_form import CallForm
from trio_serve.grpc.client_call import ClientCall
from trio_serve.grpc.client_interceptors import CallDetails, ClientInterceptor
from trio_serve.grpc.deadline import inherited_deadline
from trio_serve.grpc.intercepted_call import InterceptedCall
from trio_serve.grpc.outgoing_call import OutgoingCall
from trio_serve.wire.grpc import (
    ENCODINGS,
    Fields,
    MetadataLike,
    Status,
    compressor,
    encode_metadata,
    request_prefix,
)

if TYPE_CHECKING:
    from trio_serve.grpc.channel import Channel

__all__ = ["CallOptions", "ClientMethod", "Credentials", "encoding_name"]

Credentials: TypeAlias = Callable[[str], MetadataLike | Awaitable[MetadataLike]]
"""What proves who calls: given the method's path, the metadata to send with the call."""

CallT = TypeVar("CallT", bound=OutgoingCall)


class CallOptions(TypedDict, total=False):
    """What a call may be told beside timeout and metadata; where it is not, the channel decides."""

    credentials: Credentials | None
    wait_for_ready: bool | None
    compression: Any


NO_OPTIONS: CallOptions = {}


def encoding_name(compression: Any) -> str:
    """The message encoding that ``compression`` means: a name, or a member of ``grpc.Compression``.

    Raises:
        ValueError: there is no such encoding.
    """
    if compression is None:
        return "identity"
    number = getattr(compression, "value", compression)
    name = {0: "identity", 1: "deflate", 2: "gzip"}.get(number, str(number).lower())
    if name not in ENCODINGS:
        raise ValueError(f"compression {compression!r} is none of {', '.join(ENCODINGS)}")
    return name


class ClientMethod:
    """One rpc on one channel.  Subclasses know its kind: how it is called, and what a call returns."""

    __slots__ = (
        "_channel",
        "_config",
        "_deserialize",
        "_forms",
        "_inner",
        "_interceptor",
        "_plain_form",
        "_serialize",
        "_tries_again",
        "path",
    )

    cardinality: ClassVar[Cardinality]

    def __init__(
        self,
        channel: Channel,
        path: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
        interceptors: Sequence[ClientInterceptor] | None = None,
    ) -> None:
        """``interceptors`` are the channel's where they are not told."""
        self.path = path
        self._channel = channel
        self._serialize = serialize
        self._deserialize = deserialize
        self._config = config = channel.service_config.for_method(path)
        self._tries_again = config.retry is not None or config.hedging is not None
        self._forms: dict[tuple[str, bool], CallForm] = {}
        self._plain_form = self._form()
        self._interceptor: ClientInterceptor | None = None
        self._inner: Any = None  # what the interceptor is around: this method, without it
        interceptors = channel.interceptors if interceptors is None else interceptors
        if interceptors:
            self._interceptor = interceptors[0]
            self._inner = type(self)(channel, path, serialize, deserialize, interceptors[1:])

    def begin(
        self,
        make: Callable[[Channel, CallForm, Fields, float], CallT],
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        options: CallOptions = NO_OPTIONS,
    ) -> CallT | InterceptedCall:
        """A call that is not started yet.

        Raises:
            ValueError, TypeError: metadata that cannot be sent, an unknown compression or option.
        """
        if self._interceptor is not None:
            return self._begin_intercepted(self._interceptor, timeout, metadata, options)
        channel = self._channel
        fields = channel.metadata
        if metadata:
            fields = fields + encode_metadata(metadata)
        form = self._form(**options) if options else self._plain_form
        call = make(channel, form, fields, self._deadline(timeout))
        if self._tries_again:
            call.again = channel.retry_settings.again(call, self._config)
        return call

    def _begin_intercepted(
        self,
        interceptor: ClientInterceptor,
        timeout: float | None,
        metadata: MetadataLike | None,
        options: CallOptions,
    ) -> InterceptedCall:
        pairs = tuple(metadata.items() if isinstance(metadata, Mapping) else metadata or ())
        encode_metadata(pairs)  # what these two raise, they raise here and now
        self._form(**options)
        details = CallDetails(
            path=self.path,
            cardinality=self.cardinality,
            request=None,
            timeout=timeout,
            metadata=pairs,
            **options,
        )
        return InterceptedCall(self._channel, details, self._deadline(timeout), interceptor, self._proceed)

    def _proceed(self, call: CallDetails) -> ClientCall:
        """The call that an interceptor makes of its own."""
        made: ClientCall = self._inner(
            call.request,
            call.timeout,
            call.metadata,
            credentials=call.credentials,
            wait_for_ready=call.wait_for_ready,
            compression=call.compression,
        )
        return made

    def start(self, call: OutgoingCall | InterceptedCall, options: CallOptions = NO_OPTIONS) -> None:
        """Let ``call``, which was entered, begin once its credentials are there; never waits."""
        credentials = options.get("credentials") if options else None
        if (credentials is None and self._channel.credentials is None) or isinstance(call, InterceptedCall):
            call.start()
            return
        awaited = []
        for owner in (self._channel.credentials, credentials):
            if owner is None:
                continue
            given = owner(self.path)
            if inspect.isawaitable(given):
                awaited.append(given)
            else:
                call.metadata += encode_metadata(given)
        if awaited:
            self._channel.start_soon(self._start_later, call, awaited)
        else:
            call.start()

    async def _start_later(self, call: OutgoingCall, awaited: list[Awaitable[MetadataLike]]) -> None:
        with trio.CancelScope() as scope:
            call.when_done(scope.cancel)
            try:
                for one in awaited:
                    call.metadata += encode_metadata(await one)
            except Exception as error:  # whatever the user's code raises
                call.failed_by(error, "credentials", Status.UNAVAILABLE)
            else:
                call.start()

    def _deadline(self, timeout: float | None) -> float:
        deadline = inherited_deadline()
        limit = self._config.timeout_s
        if timeout is None or (limit is not None and limit < timeout):
            timeout = limit
        if timeout is None:
            return deadline
        own = self._channel.now() + timeout
        return own if own < deadline else deadline

    def _form(
        self,
        credentials: Credentials | None = None,  # of no concern to the form
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> CallForm:
        channel, config = self._channel, self._config
        encoding = channel.encoding if compression is None else encoding_name(compression)
        if wait_for_ready is None:
            wait_for_ready = (
                channel.wait_for_ready if config.wait_for_ready is None else config.wait_for_ready
            )
        form = self._forms.get((encoding, wait_for_ready))
        if form is None:
            form = self._forms[encoding, wait_for_ready] = self._new_form(encoding, wait_for_ready)
        return form

    def _new_form(self, encoding: str, wait_for_ready: bool) -> CallForm:
        channel, config = self._channel, self._config
        limit = config.reply_bytes_max
        return CallForm(
            path=self.path,
            prefix=request_prefix(
                self.path,
                channel.authority,
                scheme=channel.scheme,
                user_agent=channel.user_agent,
                encoding=encoding,
            ),
            serialize=self._serialize,
            deserialize=self._deserialize,
            compress=compressor(encoding),
            request_bytes_max=config.request_bytes_max,
            reply_bytes_max=channel.message_bytes_max
            if limit is None
            else min(limit, channel.message_bytes_max),
            wait_for_ready=wait_for_ready,
        )
