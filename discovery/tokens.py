"""Bearer tokens: read from one line of text, kept as digests only, compared in constant time. Knows nothing of HTTP."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, cast, get_args

Scope = Literal["read", "register", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
FILE = "file:"
BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what may follow `Bearer ` in a header (RFC 6750, 2.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What somebody may do. `names` are the patterns that a name it registers must match; None takes every name."""

    scopes: frozenset[Scope]
    names: tuple[str, ...] | None = None

    def may(self, scope: Scope) -> bool:
        """`admin` may do everything; `register` may not read, nor the other way round."""
        return scope in self.scopes or "admin" in self.scopes

    def may_name(self, name: str) -> bool:
        """Whether an entry of this name is its to write and to remove."""
        return self.names is None or any(fnmatchcase(name, pattern) for pattern in self.names)


ANYONE = Caller(scopes=frozenset({"admin"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One entry of DISCOVERY_TOKENS; all that is kept of its token is a digest."""

    scope: Scope
    digest: bytes = field(repr=False)
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a registry. Without any entry nobody gets in."""

    grants: tuple[Grant, ...] = ()

    def caller(self, token: str) -> Caller | None:
        """What the holder of a token may do, or None for a token that is none; its entries add up.

        Every entry is compared, and in constant time: how long it takes says nothing of what was right.
        """
        digest = _digest(token)
        held = [grant for grant in self.grants if hmac.compare_digest(grant.digest, digest)]
        if not held:
            return None
        writes = [grant for grant in held if grant.scope != "read"]
        bound = tuple(grant.pattern for grant in writes if grant.pattern is not None)
        free = len(bound) < len(writes)
        return Caller(scopes=frozenset(grant.scope for grant in held), names=None if free else bound)


def read_tokens(text: str | None) -> Tokens | None:
    """Read `scope:token[:name-pattern], …`, where an entry `file:/path` stands for the entries in that file.

    In a file an entry stands on a line of its own; blank lines and lines that begin with # are left out.

    Raises:
        ValueError: Saying which entry is wrong and how, without any of its text.
    """
    if text is None:
        return None
    grants = tuple(_grants(text, ""))
    if not grants:
        raise ValueError("holds no token")
    return Tokens(grants)


def _grants(text: str, place: str) -> Iterator[Grant]:
    lines = [line.strip() for line in text.splitlines()]
    entries = [entry.strip() for line in lines if not line.startswith("#") for entry in line.split(",")]
    for number, entry in enumerate(filter(None, entries), start=1):
        if entry.startswith(FILE) and not place:
            path = entry.removeprefix(FILE)
            yield from _in_file(path)
        else:
            yield _grant(entry, f"entry {number}{place}")


def _in_file(path: str) -> list[Grant]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"names the file {path}, which cannot be read: {error.strerror}") from None
    except ValueError:  # no UTF-8, or a path that cannot be one; the text of either may hold a token
        raise ValueError("names a file that is no text in UTF-8") from None
    grants = list(_grants(text, f" of {path}"))
    if not grants:
        raise ValueError(f"names the file {path}, which holds no token")
    return grants


def _grant(entry: str, place: str) -> Grant:
    scope, _, rest = entry.partition(":")
    token, colon, pattern = rest.partition(":")
    if scope not in SCOPES:
        raise ValueError(f"{place} must begin with read:, register: or admin: and go on with the token")
    if not token:
        raise ValueError(f"{place} has no token after its scope")
    if not BEARER.fullmatch(token):
        raise ValueError(f"{place} has a token with a character that no header takes: use letters, digits and -._~+/")
    if colon and scope != "register":
        raise ValueError(f"{place} goes on after its token: only a register token is bound to a name pattern")
    if colon and not pattern.strip():
        raise ValueError(f"{place} ends with a colon: name a pattern like team-a-*, or leave the colon out")
    return Grant(scope=cast("Scope", scope), digest=_digest(token), pattern=pattern.strip() if colon else None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
