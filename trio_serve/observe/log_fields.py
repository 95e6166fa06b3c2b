"""Which request a log record is about: found in the context that logs, written onto the record.

    in a replica          component=replica application deployment replica request_id route
    ... of a backend      component=serve backend replica, and the others
    a proxy's own line    component=proxy application request_id route (set by whoever logs it)
    anywhere else         component=serve

A replica's thread runs its jobs in a copy of the task's context, so what a sync method logs is stamped too.

Source: Ray Serve's log fields, and those of its 1.3 for backends.
"""

import logging
from collections.abc import Mapping

from trio_serve.observe.log_settings import LogSettings
from trio_serve.serving.request_context import current

FIELDS = ("component", "application", "deployment", "replica", "backend", "request_id", "route")


class RequestFields(logging.Filter):
    """Stamps each record that it sees, and lets all of them pass.

    For handlers of your own: ``handler.addFilter(RequestFields())``; after that a format may use
    ``%(deployment)s`` and the other fields, which are "" where they say nothing.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if "component" not in record.__dict__:
            stamp(record)
        return True


def stamp(record: logging.LogRecord) -> None:
    """Write the fields of the context that logs onto ``record``."""
    fields = record.__dict__
    for name in FIELDS:
        fields.setdefault(name, "")
    request = current.get()
    replica = None if request is None else request.replica
    if request is None or replica is None:
        fields["component"] = "serve"
        return
    fields["application"] = request.application
    fields["deployment"] = replica.spec.name
    fields["replica"] = replica.tag
    fields["request_id"] = request.request_id
    fields["route"] = request.route
    if replica.options.is_backend:
        fields["component"] = "serve"
        fields["backend"] = replica.spec.name
    else:
        fields["component"] = "replica"


def settings_around(otherwise: LogSettings) -> LogSettings:
    """The log settings of the deployment whose code logs, or ``otherwise``."""
    request = current.get()
    if request is None or request.replica is None:
        return otherwise
    config = request.replica.options.logging_config
    if config is None or isinstance(config, Mapping):  # a mapping that no instance has read
        return otherwise
    settings: LogSettings = config
    return settings
