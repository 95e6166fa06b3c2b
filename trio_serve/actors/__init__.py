"""Actors on Trio: envelope, mailbox, actor, supervisor.  Erlang's room; knows Trio and nothing else."""

from trio_serve.actors.actor import WOKEN, Actor
from trio_serve.actors.asking import Deliver, NotInTime, ask
from trio_serve.actors.envelope import Envelope, Reply
from trio_serve.actors.errors import (
    ActorStopped,
    CallCancelled,
    DeadlinePassed,
    HandlerExited,
    MailboxClosed,
    MailboxFull,
    as_exception,
)
from trio_serve.actors.mailbox import Mailbox
from trio_serve.actors.pace import Pace
from trio_serve.actors.restarting import Backoff, RestartIntensity
from trio_serve.actors.serial_thread import SerialThread
from trio_serve.actors.supervisor import Death, Supervised, Supervisor
from trio_serve.actors.threads_at_work import threads_at_work
from trio_serve.actors.turns import LONG_S

__all__ = [
    "LONG_S",
    "WOKEN",
    "Actor",
    "ActorStopped",
    "Backoff",
    "CallCancelled",
    "DeadlinePassed",
    "Death",
    "Deliver",
    "Envelope",
    "HandlerExited",
    "Mailbox",
    "MailboxClosed",
    "MailboxFull",
    "NotInTime",
    "Pace",
    "Reply",
    "RestartIntensity",
    "SerialThread",
    "Supervised",
    "Supervisor",
    "as_exception",
    "ask",
    "threads_at_work",
]
