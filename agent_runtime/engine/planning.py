"""A plan before the work: requested, parsed, shown to the model with every step, and revised when a step fails.

Pure: the prompts and how replies are parsed, not when. A plan is never part of a session's messages; the work is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from agent_runtime.engine.formats import Prompt, messages_as_text
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


def prompt(system_prompt: str, messages: Sequence[Message], tools: Sequence[ToolSpec], failed: Plan | None) -> Prompt:
    """The request for a plan, or for the rest of one whose step failed. No tools are offered with it."""
    if failed is not None:
        request = _REVISE.format(plan=_as_list(failed))
    else:
        listed = "\n".join(f"- {tool.name}: {tool.description}" for tool in tools)
        request = _ASK.format(most=MAX_STEPS, tools=f"You will be able to use these tools:\n{listed}" if tools else "")
    system = Message("system", f"{system_prompt.rstrip()}\n\n{request}".strip())
    # Calls as text: providers refuse calls of tools that are not offered.
    return Prompt([system, *messages_as_text(messages, thought="{}\n", call="Called {} with {}", result="Result: {}")])


def parsed(text: str, failed: Plan | None) -> Plan:
    """The plan in a reply: its numbered or bulleted lines. A reply without any is one step, to answer.

    The steps of a `failed` plan that are done or failed stay in front.
    """
    steps = [PlanStep(match["text"]) for match in _ITEM.finditer(text)][:MAX_STEPS]
    done = tuple(step for step in failed.steps if step.status != "pending") if failed else ()
    return Plan((*done, *(steps or [PlanStep("Answer the question.")])))


def with_plan(system_prompt: str, plan: Plan) -> str:
    """The system prompt of a step that works on the plan."""
    return f"{system_prompt.rstrip()}\n\n{_WORK.format(plan=_as_list(plan))}".strip()


def advanced(plan: Plan, status: PlanStatus) -> Plan:
    """The plan with its first pending step done or failed."""
    steps = list(plan.steps)
    for index, step in enumerate(steps):
        if step.status == "pending":
            steps[index] = replace(step, status=status)
            break
    return Plan(tuple(steps))


def completed(plan: Plan) -> Plan:
    """The plan of a run that has its answer: no step is pending any more."""
    return Plan(tuple(replace(step, status="done") if step.status == "pending" else step for step in plan.steps))


def _as_list(plan: Plan) -> str:
    return "\n".join(f"{number}. [{_MARKS[step.status]}] {step.text}" for number, step in enumerate(plan.steps, 1))
