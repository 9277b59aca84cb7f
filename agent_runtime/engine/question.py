"""What may be asked: the limits of a message and of the name of a session."""

from __future__ import annotations

import uuid

from agent_runtime.errors import CallerError

MAX_MESSAGE_CHARACTERS = 200_000


def checked_message(message: str) -> str:
    """A message that a model can be asked; CallerError says what is wrong with another."""
    if not message.strip():
        raise CallerError("the message is empty")
    if len(message) > MAX_MESSAGE_CHARACTERS:
        raise CallerError(f"the message has {len(message)} characters; at most {MAX_MESSAGE_CHARACTERS} are read")
    return message


def checked_session_id(session_id: str | None) -> str:
    """The name of a session, or a new one; CallerError where it cannot be one."""
    if session_id is None:
        return uuid.uuid4().hex
    if not 1 <= len(session_id) <= 128 or not session_id.isprintable():
        raise CallerError("a session id has 1 to 128 printable characters")
    return session_id
