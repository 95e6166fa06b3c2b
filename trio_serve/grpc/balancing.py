"""Which subchannel the next call goes to.

    PickFirst     one subchannel stands for all addresses; dialing decides which of them it reaches
    RoundRobin    a subchannel for each address, all kept connected; the ready ones take turns

The choice itself never waits.  Names are resolved again whenever a connection has to be made anew,
by round robin at most every ``RESOLVE_INTERVAL_S``.

Source: gRPC "Load Balancing in gRPC" and "Name Resolution"; gRFC A62 (a failed channel stays failed
until it is ready).
Knows nothing of calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import trio

from trio_serve.grpc.subchannel import Connectivity, Subchannel, SubchannelOptions
from trio_serve.grpc.target import Target
from trio_serve.transport.alarms import Alarms
from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.dialing import Address, Backoff, ClientTls, dial

__all__ = ["Balancer", "BalancerOwner", "PickFirst", "RoundRobin", "overall_state"]

RESOLVE_INTERVAL_S = 30.0


class BalancerOwner(Protocol):
    """Who uses the balancer.  Called synchronously; must not wait or raise."""

    def connectivity_changed(self) -> None:
        """The state, the failure or the set of subchannels is another one."""

    def room_opened(self) -> None:
        """Another stream may be possible on some subchannel."""


class Balancer(Protocol):
    """The subchannels of one channel, and whose turn it is."""

    @property
    def state(self) -> Connectivity: ...

    @property
    def failure(self) -> str: ...

    def order(self) -> Sequence[Subchannel]:
        """The subchannels, in the order in which the next call should try them."""

    def connect(self) -> None:
        """Somebody wants to call; never waits."""

    def close(self) -> None:
        """Close every connection, and let `run` return."""

    async def run(self) -> None:
        """Keep what has to be kept connected, until closed."""


class PickFirst:
    """All addresses are one server: use the first that can be reached."""

    def __init__(
        self,
        target: Target,
        tls: ClientTls | None,
        owner: BalancerOwner,
        alarms: Alarms,
        options: SubchannelOptions,
    ) -> None:
        async def dial_any() -> ByteStream:
            return await dial(await target.resolve(), tls)

        self._owner = owner
        self._subchannel = Subchannel(target.text, dial_any, self, alarms, options)
        self._order = (self._subchannel,)

    @property
    def state(self) -> Connectivity:
        return self._subchannel.state

    @property
    def failure(self) -> str:
        return self._subchannel.failure

    def order(self) -> Sequence[Subchannel]:
        return self._order

    def connect(self) -> None:
        self._subchannel.connect()

    def close(self) -> None:
        self._subchannel.close()

    async def run(self) -> None:
        await self._subchannel.run()

    def subchannel_changed(self, subchannel: Subchannel) -> None:
        self._owner.connectivity_changed()

    def subchannel_has_room(self, subchannel: Subchannel) -> None:
        self._owner.room_opened()


class RoundRobin:
    """Each address is a server of its own: connect to all, and spread the calls."""

    def __init__(
        self,
        target: Target,
        tls: ClientTls | None,
        owner: BalancerOwner,
        alarms: Alarms,
        options: SubchannelOptions,
    ) -> None:
        self._target = target
        self._tls = tls
        self._owner = owner
        self._alarms = alarms
        self._options = options
        self._subchannels: dict[Address, Subchannel] = {}
        self._turn = 0
        self._working = trio.CancelScope()
        self._wanted = trio.Event()
        self._stale = trio.Event()
        self._resolving: Connectivity = Connectivity.IDLE
        self._resolve_failure = ""

    @property
    def state(self) -> Connectivity:
        if not self._subchannels:
            return self._resolving
        return overall_state(subchannel.state for subchannel in self._subchannels.values())

    @property
    def failure(self) -> str:
        failures = [subchannel.failure for subchannel in self._subchannels.values() if subchannel.failure]
        return "; ".join(failures) or self._resolve_failure

    def order(self) -> Sequence[Subchannel]:
        subchannels = list(self._subchannels.values())
        if len(subchannels) < 2:
            return subchannels
        self._turn = turn = (self._turn + 1) % len(subchannels)
        return [*subchannels[turn:], *subchannels[:turn]]

    def connect(self) -> None:
        self._wanted.set()

    def close(self) -> None:
        self._working.cancel()
        for subchannel in self._subchannels.values():
            subchannel.close()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            with self._working:
                await self._wanted.wait()
                await self._keep_resolved(nursery)

    async def _keep_resolved(self, nursery: trio.Nursery) -> None:
        backoff = Backoff(self._options.backoff, self._options.rng)
        while True:
            self._stale = trio.Event()
            next_attempt_at = trio.current_time() + backoff.next_delay_s()
            if self._resolving is Connectivity.IDLE:
                self._resolving = Connectivity.CONNECTING
                self._owner.connectivity_changed()
            try:
                addresses = await self._target.resolve()
            except OSError as error:
                self._resolving = Connectivity.TRANSIENT_FAILURE
                self._resolve_failure = f"{self._target.text}: {error}"
                self._owner.connectivity_changed()
            else:
                backoff.reset()
                next_attempt_at = trio.current_time() + RESOLVE_INTERVAL_S
                self._use(addresses, nursery)
                await self._stale.wait()
            await trio.sleep_until(next_attempt_at)

    def _use(self, addresses: Sequence[Address], nursery: trio.Nursery) -> None:
        """Connect to the new addresses, let those that are gone end their calls."""
        for address in set(self._subchannels) - set(addresses):
            self._subchannels.pop(address).retire()
        for address in addresses:
            if address not in self._subchannels:
                subchannel = Subchannel(
                    str(address), _dialer(address, self._tls), self, self._alarms, self._options
                )
                self._subchannels[address] = subchannel
                nursery.start_soon(subchannel.run)
                subchannel.connect()
        self._owner.connectivity_changed()

    def subchannel_changed(self, subchannel: Subchannel) -> None:
        if subchannel not in self._subchannels.values():
            return
        if subchannel.state is Connectivity.IDLE:
            subchannel.connect()
        if subchannel.state in (Connectivity.IDLE, Connectivity.TRANSIENT_FAILURE):
            self._stale.set()
        self._owner.connectivity_changed()

    def subchannel_has_room(self, subchannel: Subchannel) -> None:
        self._owner.room_opened()


def _dialer(address: Address, tls: ClientTls | None) -> Callable[[], Awaitable[ByteStream]]:
    async def dial_it() -> ByteStream:
        return await dial([address], tls)

    return dial_it


def overall_state(states: Iterable[Connectivity]) -> Connectivity:
    """What a channel with such subchannels can promise: ready if any is, failed only if all are."""
    seen = set(states)
    for state in (
        Connectivity.READY,
        Connectivity.CONNECTING,
        Connectivity.IDLE,
        Connectivity.TRANSIENT_FAILURE,
    ):
        if state in seen:
            return state
    return Connectivity.IDLE
