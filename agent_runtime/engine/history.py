"""The part of a session that the model is shown: the latest turns that fit, and a summary of those before them.

The store keeps everything; only what is shown is cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from agent_runtime.config import SessionConfig
from agent_runtime.engine.untrusted import RULE, marked, new_mark
from agent_runtime.errors import ModelError
from agent_runtime.events import Message
from agent_runtime.models import Model
from agent_runtime.sessions import SessionKey, SessionStore, Summary

_log = logging.getLogger(__name__)

_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_MAX_UNSUMMARISED = 1_000  # messages that no summary covers yet
_SUMMARY_TIMEOUT_SECONDS = 60
_QUOTED_CHARACTERS = 1_500  # of one message, for the summary
_INSTRUCTIONS = (
    "You keep the memory of a conversation. Write what was said so far in at most 200 words: who the user is, what "
    "they want, names, numbers and decisions word for word, and what is still open. Only the summary, no remarks. "
    + RULE
)


async def recall(store: SessionStore, key: SessionKey, model: Model, settings: SessionConfig) -> list[Message]:
    """The history that a turn begins with. Hold the session while it is read: a summary may be saved.

    A summary that fails is logged, and only the turns that fit are shown.

    Raises:
        StoreError: the store cannot be read.
    """
    if not settings.summarize:
        messages = await store.load(key, limit=settings.history_messages)
        return fitting(messages, settings.history_messages, settings.history_tokens)
    total, summary = await store.count(key), await store.load_summary(key)
    if summary and summary.covered > total:
        summary = None  # of a conversation of that name which was deleted
    covered = summary.covered if summary else 0
    messages = await store.load(key, limit=min(total - covered, _MAX_UNSUMMARISED))
    if _is_too_long(messages, settings):
        # Half of what may be shown, so that not every turn needs a new summary.
        begin = _begin(messages, settings.history_messages // 2, settings.history_tokens // 2)
        text = await _summarised(model, summary, messages[:begin], settings) if begin else ""
        if text:
            summary = Summary(text, total - len(messages) + begin)
            await store.save_summary(key, summary)
            messages = messages[begin:]
    shown = fitting(messages, settings.history_messages, settings.history_tokens)
    return [*_as_messages(summary), *shown]


def fitting(messages: Sequence[Message], most: int, tokens: int) -> list[Message]:
    """The latest whole turns, at most so many messages and tokens.

    A latest turn that is too long by itself is reduced to its question and answer.
    """
    kept = list(messages[_begin(messages, most, tokens) :])
    if estimated_tokens(kept) <= tokens and len(kept) <= most:
        return kept
    short = [kept[0], kept[-1]] if kept[-1].role == "assistant" and not kept[-1].tool_calls else []
    return short if estimated_tokens(short) <= tokens and len(short) <= most else []


def estimated_tokens(messages: Sequence[Message]) -> int:
    """An estimate of four bytes per token, close enough to stay within a context window."""
    return _tokens(sum(map(_size, messages)), len(messages))


def _size(message: Message) -> int:
    texts = (message.content, *(call.arguments for call in message.tool_calls))
    return sum(len(text) if text.isascii() else len(text.encode(errors="surrogatepass")) for text in texts)


def _tokens(size: int, messages: int) -> int:
    return size // _BYTES_PER_TOKEN + _TOKENS_PER_MESSAGE * messages


def _begin(messages: Sequence[Message], most: int, tokens: int) -> int:
    """The index at which the latest turns that fit begin; the last turn is always one of them."""
    begin, size = len(messages), 0
    for index in reversed(range(len(messages))):
        size += _size(messages[index])
        shown = len(messages) - index
        if begin < len(messages) and (shown > most or _tokens(size, shown) > tokens):
            break
        if messages[index].role == "user":
            begin = index
    return begin


def _is_too_long(messages: Sequence[Message], settings: SessionConfig) -> bool:
    return len(messages) > settings.history_messages or estimated_tokens(messages) > settings.history_tokens


async def _summarised(
    model: Model, before: Summary | None, messages: Sequence[Message], settings: SessionConfig
) -> str:
    """A summary of the messages; empty where the model could not write it."""
    text = ""
    try:
        async with asyncio.timeout(_SUMMARY_TIMEOUT_SECONDS):
            async with aclosing(model.stream(_summary_prompt(before, messages, settings))) as chunks:
                async for chunk in chunks:
                    text += chunk if isinstance(chunk, str) else ""
    except (ModelError, TimeoutError) as error:
        _log.warning("older turns could not be summarised: %s", error or "it took too long")
        return ""
    return text.strip()


def _summary_prompt(before: Summary | None, messages: Sequence[Message], settings: SessionConfig) -> list[Message]:
    quoted = [replace(message, content=message.content[:_QUOTED_CHARACTERS]) for message in messages]
    lines = [f"{message.role}: {message.content}" for message in marked(quoted, new_mark()) if message.content]
    transcript = "\n\n".join(lines)[-settings.history_tokens * _BYTES_PER_TOKEN :]
    earlier = f"What was said before:\n{before.text}\n\nWhat was said then:\n" if before else ""
    return [Message("system", _INSTRUCTIONS), Message("user", f"{earlier}{transcript}")]


def _as_messages(summary: Summary | None) -> list[Message]:
    """A summary as two messages: not every chat template accepts a second system message."""
    if summary is None:
        return []
    return [
        Message("user", f"What we said earlier, in short:\n{summary.text}"),
        Message("assistant", "I will keep that in mind."),
    ]
