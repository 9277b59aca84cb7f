"""A plan before the work: asked for, read, shown to the model with every step, and revised when a step fails.

Pure: what is asked and how it is read, not when. A plan is never part of the history; only the work is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from agent_runtime.events import Message, Plan, PlanStatus, PlanStep, ToolSpec

MAX_STEPS = 10

_ASK = """\
Before you answer the last message, write a short plan: a numbered list of at most {most} steps, one line each, and \
nothing else. Do not carry it out yet.
{tools}"""
_REVISE = """\
A step of your plan failed:
{plan}
What was tried and what came back stands above. Write the steps that are still to do as a new numbered list, one line \
each, and nothing else. Leave out what is done."""
_WORK = """\
Your plan:
{plan}
Work on the first step that is not done. When all is done, answer the user."""
_ITEM = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s+(?P<text>.+?)\s*$", re.MULTILINE)
_MARKS: dict[PlanStatus, str] = {"pending": " ", "done": "x", "failed": "!"}


def ask(system_prompt: str, tools: Sequence[ToolSpec], failed: Plan | None) -> str:
    """The system prompt that asks for a plan, or for the rest of one whose step failed."""
    if failed is not None:
        request = _REVISE.format(plan=written(failed))
    else:
        listed = "\n".join(f"- {tool.name}: {tool.description}" for tool in tools)
        request = _ASK.format(most=MAX_STEPS, tools=f"You will be able to use these tools:\n{listed}" if tools else "")
    return f"{system_prompt.rstrip()}\n\n{request}".strip()


def read(text: str, failed: Plan | None) -> Plan:
    """The plan in a reply: its numbered or bulleted lines. A reply without any is one step: to answer.

    What a failed plan had done stays in front.
    """
    steps = [PlanStep(match["text"]) for match in _ITEM.finditer(text)][:MAX_STEPS]
    done = tuple(step for step in failed.steps if step.status != "pending") if failed else ()
    return Plan((*done, *(steps or [PlanStep("Answer the question.")])))


def guided(system_prompt: str, plan: Plan) -> str:
    """The system prompt of a step of the work."""
    return f"{system_prompt.rstrip()}\n\n{_WORK.format(plan=written(plan))}".strip()


def marked(plan: Plan, status: PlanStatus) -> Plan:
    """The plan with its first open step done or failed."""
    steps = list(plan.steps)
    for index, step in enumerate(steps):
        if step.status == "pending":
            steps[index] = replace(step, status=status)
            break
    return Plan(tuple(steps))


def closed(plan: Plan) -> Plan:
    """The plan of a run that has its answer: nothing is open any more."""
    return Plan(tuple(replace(step, status="done") if step.status == "pending" else step for step in plan.steps))


def written(plan: Plan) -> str:
    """The plan as lines of a check list."""
    return "\n".join(f"{number}. [{_MARKS[step.status]}] {step.text}" for number, step in enumerate(plan.steps, 1))


def conversation(history: Sequence[Message]) -> list[Message]:
    """The history as text only: a plan is asked for without tools, and providers refuse calls of tools not offered."""
    told: list[Message] = []
    for message in history:
        if message.role == "tool":
            told.append(Message("user", f"Result: {message.content}"))
        elif message.tool_calls:
            calls = "\n".join(f"Called {call.name} with {call.arguments}" for call in message.tool_calls)
            told.append(Message("assistant", f"{message.content}\n{calls}".strip()))
        else:
            told.append(message)
    return told
