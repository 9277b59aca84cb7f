"""Registrations from their bytes: what was found good before is not validated again.

An agent that registers once more says what it said before, word for word, or but for a check, its version, its boot.
"""

from collections.abc import Callable, Mapping
from itertools import compress
from operator import ne
from typing import Any, NamedTuple

import msgspec
from pydantic import TypeAdapter

from discovery.contract import Registration

MOST_REMEMBERED = 16_384
_Members = Mapping[str, msgspec.Raw]

_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode  # strict: no NaN
_EMPTY = msgspec.Raw()
# What can be validated by itself. Rules about more than a field's own shape look at the other two.
_ALONE: dict[str, Callable[[bytes], Any]] = {
    name: TypeAdapter(field.rebuild_annotation()).validator.validate_json
    for name, field in Registration.model_fields.items()
    if name not in {"tools", "metadata"}
}


class Read(NamedTuple):
    """A registration, with the text that it was read from, and that of what makes it one."""

    registration: Registration
    body: bytes
    members: _Members
    key: tuple[bytes, bytes]


class Reader:
    """Reads registrations, and remembers the latest of each instance."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._latest: dict[tuple[bytes, bytes], Read] = {}

    def read(self, body: bytes) -> Read:
        """Read one from JSON.

        Raises:
            ValueError: It is none. `Registration` says why, and says it well when it is given what JSON makes of it.
        """
        members = _members_of(body)
        key = _key(members)
        latest = self._latest.get(key)
        if latest is not None and latest.body == body:
            return latest
        changed = None if latest is None else _changed(latest, members)
        return Read(changed or Registration.model_validate_json(body), body, members, key)

    def remember(self, read: Read) -> None:
        """Read the next one of this instance with its help."""
        latest, key = self._latest, read.key
        if latest.pop(key, None) is None and len(latest) >= self._most:
            del latest[next(iter(latest))]
        latest[key] = read


def _key(members: _Members) -> tuple[bytes, bytes]:
    return bytes(members.get("name", _EMPTY)), bytes(members.get("instance_id", _EMPTY))


def _changed(latest: Read, members: _Members) -> Registration | None:
    """The latest, with what is different now; None where only the whole can be read."""
    before = latest.members
    if list(members) != list(before):
        return None  # a member came or went, or stands elsewhere
    different = compress(members, map(ne, members.values(), before.values()))
    try:
        values = {name: _ALONE[name](bytes(members[name])) for name in different}
    except KeyError:
        return None  # it has to be seen beside others
    return latest.registration.model_copy(update=values)
