"""Settings: frozen classes that plain data is read into, with every mistake told at once.

    {"port": "high", "hots": ""}  >  read_settings(HTTPOptions, ...)  >  Mistakes
                                                                           hots: unknown key; did you mean ...
                                                                           port: 'high' is not a whole number

A class declares each field as ``setting(reader)``.  A reader takes one plain value and returns what the field
holds, or raises `Mistakes`; whoever reads something nested puts its own step in front of the path.  The
readers run in the constructor, so an object built in Python is held to the same rules as a file.

Knows nothing of files, of their syntax, or of what the settings are for.
"""

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from sys import float_info
from typing import Any, TypeVar

import attrs

T = TypeVar("T")
Step = str | int
Path = tuple[Step, ...]
Reader = Callable[[Any], Any]

REQUIRED = attrs.NOTHING

TEXT_MAX = 800
"""Characters of one mistake: some of what was found can be as long as a file."""


@attrs.frozen
class Mistake:
    """One thing that is wrong, and where: ``path`` leads to it from the outermost value."""

    path: Path
    text: str
    at_key: bool = False
    """The mistake is the key itself (unknown, or there twice), not the value that it has."""

    def below(self, step: Step) -> "Mistake":
        return attrs.evolve(self, path=(step, *self.path))

    def __str__(self) -> str:
        return shortened(f"{path_text(self.path)}: {self.text}" if self.path else self.text)


class Mistakes(ValueError):
    """Plain data that is not what was wanted: everything that is wrong with it, in order."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))

    def below(self, step: Step) -> "Mistakes":
        return Mistakes(mistake.below(step) for mistake in self.mistakes)


def path_text(path: Path) -> str:
    """``("applications", 0, "import_path")`` as ``applications[0].import_path``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def wrong(text: str) -> Mistakes:
    """What a reader raises: one mistake, at the value that it was given."""
    return Mistakes([Mistake((), text)])


# -- classes -------------------------------------------------------------------------------------------------


def setting(read: Reader, default: Any = REQUIRED, *, is_path: bool = False) -> Any:
    """A field whose value ``read`` checks; lists and dicts as default are copied for each object."""
    metadata = {"read": read, "is_path": is_path}
    if isinstance(default, list | dict):
        return attrs.field(factory=default.copy, metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


def check_settings(self: attrs.AttrsInstance) -> None:
    """The ``__attrs_post_init__`` of a settings class: read each field, and raise all mistakes together."""
    mistakes: list[Mistake] = []
    for field in attrs.fields(type(self)):
        try:
            value = field.metadata["read"](getattr(self, field.name))
        except Mistakes as found:
            mistakes += found.below(field.name).mistakes
        else:
            object.__setattr__(self, field.name, value)
    if mistakes:
        raise Mistakes(mistakes)


def read_settings(cls: type[T], value: object) -> T:
    """Read ``value``, an object of ``cls`` or a mapping of its fields, and collect every mistake in it."""
    if isinstance(value, cls):
        return value
    fields = attrs.fields(cls)  # type: ignore[arg-type]  # every settings class is an attrs class
    known = [field.name for field in fields]
    if not isinstance(value, Mapping):
        raise wrong(f"{shown(value)} is not a mapping; its keys would be {', '.join(known)}")
    mistakes = [Mistake((key,), unknown_key(key, known), at_key=True) for key in value if key not in known]
    given = {name: value[name] for name in known if name in value}
    missing = {field.name: None for field in fields if field.default is REQUIRED and field.name not in value}
    mistakes += [Mistake((), f"{name!r} is missing") for name in missing]
    # None stands in for what is missing, so that the rest is read too; that it is missing was told already.
    try:
        read = cls(**missing, **given)
    except Mistakes as found:
        mistakes += [mistake for mistake in found.mistakes if not set(mistake.path[:1]) & missing.keys()]
    if mistakes:
        raise Mistakes(mistakes)
    return read


def from_folder(value: Any, folder: str) -> Any:
    """``value`` with the relative file names in its settings, however deep, taken from ``folder``."""
    if isinstance(value, list):
        return [from_folder(item, folder) for item in value]
    if not attrs.has(type(value)):
        return value
    changes = {}
    for field in attrs.fields(type(value)):
        held = getattr(value, field.name)
        changes[field.name] = (
            _joined(folder, held) if field.metadata["is_path"] else from_folder(held, folder)
        )
    return attrs.evolve(value, **changes)


def _joined(folder: str, held: Any) -> Any:
    if isinstance(held, list):
        return [os.path.join(folder, name) for name in held]
    return None if held is None else os.path.join(folder, held)


def unknown_key(key: object, known: Iterable[str]) -> str:
    """``unknown; did you mean 'port'? known are host, port``."""
    known = list(known)
    return f"unknown key;{did_you_mean(key, known)} known are {', '.join(known)}"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Name the nearest of ``known`` in a question, with a space before it, or nothing when none is near."""
    nearest = difflib.get_close_matches(str(word), list(known), n=1)
    return f" did you mean {nearest[0]!r}?" if nearest else ""


def shortened(text: str) -> str:
    """``text`` with its middle left out where it is longer than a person reads."""
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 200]} ... {text[-195:]}"


def shown(value: object) -> str:
    """``value`` as an error message shows it: short, on one line."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- readers -------------------------------------------------------------------------------------------------


def anything(value: Any) -> Any:
    return value


def optional(read: Reader) -> Reader:
    """None, or what ``read`` reads."""
    return lambda value: None if value is None else read(value)


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(f"{shown(value)} is not a text" + ("; put it in quotes" if value is not None else ""))
    return value


def nonempty_text(value: Any) -> str:
    if not text(value):
        raise wrong("is empty")
    return str(value)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(f"{shown(value)} is neither true nor false")
    return value


def whole_number(minimum: int, maximum: int | None = None) -> Reader:
    """An int in the range, ends included; a bool is none, and neither is a text of digits."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong(f"{shown(value)} is not a whole number")
        if maximum is not None and not minimum <= value <= maximum:
            raise wrong(f"{value} is not in {minimum} to {maximum}")
        if value < minimum:
            raise wrong(f"{value} is below {minimum}, the least that it may be")
        return value

    return read


def seconds(value: Any) -> float:
    """A duration in seconds: a finite number above zero."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong(f"{shown(value)} is not a number of seconds")
    if not 0 < value <= float_info.max:  # a whole number may be larger than every float
        raise wrong(f"{shown(value)} is not a duration; give seconds above 0")
    return float(value)


def one_of(*choices: str) -> Reader:
    """One of the words, in any case, as it is written here."""

    def read(value: Any) -> str:
        by_folded = {choice.casefold(): choice for choice in choices}
        chosen = by_folded.get(text(value).casefold())
        if chosen is None:
            raise wrong(
                f"{shown(value)} is not one of {', '.join(choices)};{did_you_mean(value, choices)}".rstrip(
                    ";"
                )
            )
        return chosen

    return read


def list_of(read: Reader) -> Callable[[Any], list[Any]]:
    """A list whose items ``read`` reads, each with its own mistakes."""

    def read_list(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise wrong(f"{shown(value)} is not a list")
        items: list[Any] = []
        mistakes: list[Mistake] = []
        for index, item in enumerate(value):
            try:
                items.append(read(item))
            except Mistakes as found:
                mistakes += found.below(index).mistakes
        if mistakes:
            raise Mistakes(mistakes)
        return items

    return read_list


def mapping_of(read: Reader) -> Callable[[Any], dict[str, Any]]:
    """A mapping with texts as keys, whose values ``read`` reads."""

    def read_mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise wrong(f"{shown(value)} is not a mapping")
        entries: dict[str, Any] = {}
        mistakes: list[Mistake] = []
        for key, item in value.items():
            try:
                entries[text(key)] = read(item)
            except Mistakes as found:
                mistakes += found.below(str(key)).mistakes
        if mistakes:
            raise Mistakes(mistakes)
        return entries

    return read_mapping


def settings(cls: type[T]) -> Callable[[Any], T]:
    """An object of ``cls``, or a mapping of its fields."""
    return lambda value: read_settings(cls, value)
