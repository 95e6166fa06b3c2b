"""What starts, told while it starts: a line in the log for each deployment whose state changes.

    'app1' Ranker: UPDATING, 1 RUNNING, 1 STARTING; Ranker#x7Kq2A waits for its constructor
    'app1' Ranker: HEALTHY, 2 RUNNING

Knows the status of an instance, and nothing of how things start.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import trio

from trio_serve.instance.errors_alone import errors_alone
from trio_serve.instance.instance import Instance
from trio_serve.serving.fleet import Fleet
from trio_serve.serving.replica import ReplicaState
from trio_serve.serving.status import DeploymentStatus

logger = logging.getLogger("trio_serve.run")

LOOK_EACH_S = 0.05
REMIND_EACH_S = 10.0
NAMED_MAX = 4
"""Replicas of one deployment that are named; how many there are is told besides."""


@asynccontextmanager
async def logged_progress(instance: Instance) -> AsyncIterator[None]:
    """Log, for the length of the block and at its end, what comes up and what is still waited for."""
    told: dict[str, str] = {}
    with errors_alone():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_look_again_and_again, instance, told)
            yield
            nursery.cancel_scope.cancel()
    _tell_changes(instance, told)


async def _look_again_and_again(instance: Instance, told: dict[str, str]) -> None:
    remind_at = trio.current_time() + REMIND_EACH_S
    while True:
        await trio.sleep(LOOK_EACH_S)
        _tell_changes(instance, told)
        if trio.current_time() >= remind_at:
            remind_at += REMIND_EACH_S
            for deployment, state, starts in _states(instance):
                if starts:
                    logger.info("still waiting for %s: %s", deployment, state)


def _tell_changes(instance: Instance, told: dict[str, str]) -> None:
    for deployment, state, _ in _states(instance):
        if told.get(deployment) != state:
            told[deployment] = state
            logger.info("%s: %s", deployment, state)


def _states(instance: Instance) -> Iterator[tuple[str, str, bool]]:
    """Each deployment, its state in words, and whether it is still on its way up."""
    for name, app in instance.status().applications.items():
        for deployment, overview in app.deployments.items():
            replicas = [f"{number} {state}" for state, number in overview.replica_states.items() if number]
            words = [overview.status, *replicas, *([overview.message] if overview.message else [])]
            state = ", ".join(words) + _waiting(instance.controller.applications[name].fleets[deployment])
            yield f"{name!r} {deployment}", state, overview.status is DeploymentStatus.UPDATING


def _waiting(fleet: Fleet) -> str:
    """Which replicas are starting, and what each of them waits for."""
    starting = [replica for replica in fleet.replicas() if replica.state is ReplicaState.STARTING]
    named = [f"{replica.tag} waits for {replica.waits_for}" for replica in starting[:NAMED_MAX]]
    return "".join(f"; {each}" for each in named)
