"""What the log has to know of a ``LoggingConfig``, whoever's it is: the instance's, or one deployment's."""

from collections.abc import Sequence
from typing import Protocol


class LogSettings(Protocol):
    """``encoding`` is TEXT or JSON, ``log_level`` the name of a level."""

    @property
    def encoding(self) -> str: ...

    @property
    def log_level(self) -> str: ...

    @property
    def logs_dir(self) -> str | None: ...

    @property
    def enable_access_log(self) -> bool: ...

    @property
    def additional_log_standard_attrs(self) -> Sequence[str]: ...
