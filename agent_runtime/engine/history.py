"""What of a conversation the model is shown: the latest turns that fit, and what was said before them in short.

The store keeps everything; only what is shown is cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from agent_runtime.engine.untrusted import RULE, Fence
from agent_runtime.errors import ModelError
from agent_runtime.events import Message
from agent_runtime.models import Model
from agent_runtime.sessions.base import SessionKey, SessionStore, Summary

_log = logging.getLogger(__name__)

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_MOST_MESSAGES = 1_000  # of those that no summary covers yet
_SUMMARY_SECONDS = 60
_QUOTED_CHARACTERS = 1_500  # of one message, for the summary
_INSTRUCTIONS = (
    "You keep the memory of a conversation. Write what was said so far in at most 200 words: who the user is, what "
    "they want, names, numbers and decisions word for word, and what is still open. Only the summary, no remarks. "
    + RULE
)


class Remembering(Protocol):
    """How much is shown; the agent file's section `session` fits."""

    @property
    def history_messages(self) -> int: ...
    @property
    def history_tokens(self) -> int: ...
    @property
    def summarize(self) -> bool: ...


async def recalled(store: SessionStore, key: SessionKey, model: Model, settings: Remembering) -> list[Message]:
    """The history that a turn begins with. Call it while the turn is held: it may write a summary.

    Raises:
        StoreError: the store cannot be read. A summary that fails is only logged: the turns that fit are shown.
    """
    if not settings.summarize:
        messages = await store.load(key, limit=settings.history_messages)
        return fitting(messages, settings.history_messages, settings.history_tokens)
    total, summary = await store.count(key), await store.load_summary(key)
    if summary and summary.covered > total:
        summary = None  # of a conversation of that name which was deleted
    covered = summary.covered if summary else 0
    messages = await store.load(key, limit=min(total - covered, _MOST_MESSAGES))
    if _is_too_long(messages, settings):
        # Half of what may be shown, so that the summary is not written anew with every turn.
        begin = _begin(messages, settings.history_messages // 2, settings.history_tokens // 2)
        text = await _summarised(model, summary, messages[:begin], settings) if begin else ""
        if text:
            summary = Summary(text, total - len(messages) + begin)
            await store.save_summary(key, summary)
            messages = messages[begin:]
    shown = fitting(messages, settings.history_messages, settings.history_tokens)
    return [*_told(summary), *shown]


def fitting(messages: Sequence[Message], most: int, tokens: int) -> list[Message]:
    """The latest whole turns, at most so many messages and tokens.

    Of a latest turn that is too long by itself, only the question and the answer are left.
    """
    kept = list(messages[_begin(messages, most, tokens) :])
    if estimated_tokens(kept) <= tokens and len(kept) <= most:
        return kept
    short = [kept[0], kept[-1]] if kept[-1].role == "assistant" and not kept[-1].tool_calls else []
    return short if estimated_tokens(short) <= tokens and len(short) <= most else []


def estimated_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens a model reads: four bytes each, which is near enough to stay within a window."""
    return _tokens(sum(map(_size, messages)), len(messages))


def _size(message: Message) -> int:
    """The bytes of one message."""
    texts = (message.content, *(call.arguments for call in message.tool_calls))
    return sum(len(text) if text.isascii() else len(text.encode(errors="surrogatepass")) for text in texts)


def _tokens(size: int, messages: int) -> int:
    return size // _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE * messages


def _begin(messages: Sequence[Message], most: int, tokens: int) -> int:
    """Where the latest turns begin that fit; the last turn is always among them."""
    begin, size = len(messages), 0
    for index in reversed(range(len(messages))):
        size += _size(messages[index])
        shown = len(messages) - index
        if begin < len(messages) and (shown > most or _tokens(size, shown) > tokens):
            break
        if messages[index].role == "user":
            begin = index
    return begin


def _is_too_long(messages: Sequence[Message], settings: Remembering) -> bool:
    return len(messages) > settings.history_messages or estimated_tokens(messages) > settings.history_tokens


async def _summarised(model: Model, before: Summary | None, messages: Sequence[Message], settings: Remembering) -> str:
    """The summary of what was said; empty where the model could not write it."""
    text = ""
    try:
        async with asyncio.timeout(_SUMMARY_SECONDS):
            async with aclosing(model.stream(_question(before, messages, settings))) as chunks:
                async for chunk in chunks:
                    text += chunk if isinstance(chunk, str) else ""
    except (ModelError, TimeoutError) as error:
        _log.warning("older turns could not be summarised: %s", error or "it took too long")
        return ""
    return text.strip()


def _question(before: Summary | None, messages: Sequence[Message], settings: Remembering) -> list[Message]:
    quoted = [replace(message, content=message.content[:_QUOTED_CHARACTERS]) for message in messages]
    said = [f"{message.role}: {message.content}" for message in Fence().around(quoted) if message.content]
    transcript = "\n\n".join(said)[-settings.history_tokens * _BYTES_PER_TOKEN :]
    earlier = f"What was said before:\n{before.text}\n\nWhat was said then:\n" if before else ""
    return [Message("system", _INSTRUCTIONS), Message("user", f"{earlier}{transcript}")]


def _told(summary: Summary | None) -> list[Message]:
    """A summary as an exchange of its own: every chat template takes one, and not every one takes a second system."""
    if summary is None:
        return []
    return [
        Message("user", f"What we said earlier, in short:\n{summary.text}"),
        Message("assistant", "I will keep that in mind."),
    ]
