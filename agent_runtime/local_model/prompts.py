"""The prompts of the built-in model.

Short, and with a stable beginning: a small model reads some 150 tokens a second, and reuses the part that a prompt
shares with the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent_runtime.events import Message, ToolSpec
from agent_runtime.local_model.tool_schema import parameters_of

Prompt = list[dict[str, str]]

NO_TOOL = "none"

# An earlier answer may be a long table; its beginning is enough context.
_REMEMBERED_CHARACTERS = 400


def current_turn(messages: Sequence[Message]) -> tuple[Message | None, list[Message]]:
    """The last message of the user, and the results of tools since then."""
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
    if last is None:
        return None, []
    return messages[last], [message for message in messages[last:] if message.role == "tool"]


def conversation(messages: Sequence[Message], *, characters: int) -> Prompt:
    """The conversation as text, its oldest part left out where it is longer than `characters`."""
    turns = [
        {"role": message.role, "content": message.content if message.role == "user" else _remembered(message.content)}
        for message in messages
        if message.role in {"user", "assistant"} and message.content
    ]
    if sum(len(turn["content"]) for turn in turns) > characters:
        # Half at once, so that the prompts of the next turns have the same beginning again.
        while len(turns) > 1 and sum(len(turn["content"]) for turn in turns) > characters // 2:
            del turns[0]
    return _system(messages) + turns


def grounded(messages: Sequence[Message], question: Message, results: Sequence[Message]) -> Prompt:
    """The question with the results of the tools, and nothing else that could distract the model."""
    found = "\n\n".join(result.content for result in results)
    return [*_system(messages), _from_text(found, question)]


def introduction(messages: Sequence[Message], question: Message, tools: Sequence[ToolSpec]) -> Prompt:
    """A question about the assistant, with the system prompt in the message: elsewhere, small models ignore it."""
    abilities = "\n".join(f"- {_first_paragraph(tool.description)}" for tool in tools)
    known = "\n".join(message["content"] for message in _system(messages))
    return [_from_text(f"{known}\nYou can:\n{abilities}".strip(), question)]


def tool_choice(tools: Sequence[ToolSpec], question: str) -> Prompt:
    """Which tool, by name."""
    listed = "\n".join(f"{tool.name}: {_first_paragraph(tool.description)}" for tool in tools)
    system = (
        f"Choose the tool that answers the question, or {NO_TOOL}. Reply in JSON.\n{listed}\n{NO_TOOL}: no tool fits."
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def tool_arguments(tool: ToolSpec, names: Sequence[str], question: str) -> Prompt:
    """The open arguments of a tool."""
    parameters = [parameter for parameter in parameters_of(tool.parameters) if parameter.name in names]
    listed = "\n".join(f"{parameter.name}: {parameter.description or parameter.kind}" for parameter in parameters)
    task = "Take these arguments from the question, as JSON; null if not said."
    system = f"{_first_paragraph(tool.description)}\n{task}\n{listed}"
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def _from_text(text: str, question: Message) -> dict[str, str]:
    request = f"{text}\n\nAnswer in one or two sentences, only from the text above: {question.content}"
    return {"role": "user", "content": request}


def _system(messages: Sequence[Message]) -> Prompt:
    text = "\n\n".join(message.content for message in messages if message.role == "system").strip()
    return [{"role": "system", "content": text}] if text else []


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def _remembered(text: str) -> str:
    return text if len(text) <= _REMEMBERED_CHARACTERS else text[:_REMEMBERED_CHARACTERS] + " …"
