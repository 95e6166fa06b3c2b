"""How the names of the package get to an instance: by what is asked, wherever the instance is.

    serve.set_traffic("app", weights)  >  reach.ask("set_traffic", "app", weights)

Knows the attributes of `Instance` by their names, and nothing of other processes.
"""

import operator
from typing import Any, Protocol

import attrs
import trio

from trio_serve.instance.crossing import in_thread_of
from trio_serve.instance.instance import Instance


class Reach(Protocol):
    """The way to one instance."""

    def ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        """Call the attribute ``what`` of the instance, or read it."""


@attrs.frozen
class Here:
    """The way to ``instance``, in this process.

    From its own Trio program it is just called, and who asks awaits what has to be awaited; from threads the
    answer is waited for.
    """

    instance: Instance

    def ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        found = operator.attrgetter(what)(self.instance)
        if not callable(found):
            return found
        if trio.lowlevel.in_trio_run():
            return found(*args, **kwargs)
        return in_thread_of(self.instance.trio_token, found, *args, **kwargs)
