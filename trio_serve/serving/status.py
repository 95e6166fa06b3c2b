"""What runs and how it fares, in Ray Serve's words and with its attribute names.

    ServeStatus ── applications: {name: ApplicationStatusOverview}
                       └── deployments: {name: DeploymentStatusOverview}
                               └── replica_states: {word: number}

A snapshot: nothing in it changes later.
"""

import enum
from collections.abc import Mapping

from attrs import field, frozen


class ApplicationStatus(enum.StrEnum):
    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"


class DeploymentStatus(enum.StrEnum):
    UPDATING = "UPDATING"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    UPSCALING = "UPSCALING"
    DOWNSCALING = "DOWNSCALING"


class ProxyStatus(enum.StrEnum):
    STARTING = "STARTING"
    HEALTHY = "HEALTHY"
    DRAINING = "DRAINING"


@frozen
class DeploymentStatusOverview:
    """One deployment; ``replica_states`` counts its replicas by their state."""

    status: DeploymentStatus
    replica_states: Mapping[str, int]
    message: str = ""


@frozen
class ApplicationStatusOverview:
    """One application; ``last_deployed_time_s`` is Unix time, ``message`` says why it is not well."""

    status: ApplicationStatus
    message: str
    last_deployed_time_s: float
    deployments: Mapping[str, DeploymentStatusOverview]
    route_prefix: str | None = None


@frozen
class ServeStatus:
    """All applications, in the order in which they were deployed, and the proxies by name."""

    applications: Mapping[str, ApplicationStatusOverview]
    proxies: Mapping[str, ProxyStatus] = field(factory=dict)
