"""Actors on Trio: envelope, mailbox, actor, supervisor.  Erlang's room; knows Trio and nothing else."""

from trio_serve.actors.actor import Actor
from trio_serve.actors.envelope import Envelope, Reply
from trio_serve.actors.errors import (
    ActorStopped,
    CallCancelled,
    DeadlinePassed,
    HandlerExited,
    MailboxClosed,
    MailboxFull,
)
from trio_serve.actors.mailbox import Mailbox
from trio_serve.actors.restarting import Backoff, RestartIntensity
from trio_serve.actors.serial_thread import SerialThread
from trio_serve.actors.supervisor import Death, Supervised, Supervisor
from trio_serve.actors.threads_at_work import threads_at_work

__all__ = [
    "Actor",
    "ActorStopped",
    "Backoff",
    "CallCancelled",
    "DeadlinePassed",
    "Death",
    "Envelope",
    "HandlerExited",
    "Mailbox",
    "MailboxClosed",
    "MailboxFull",
    "Reply",
    "RestartIntensity",
    "SerialThread",
    "Supervised",
    "Supervisor",
    "threads_at_work",
]
