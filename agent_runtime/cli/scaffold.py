"""`myagent new`: a folder with an agent that works without a key."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from agent_runtime.config import AgentConfig
from agent_runtime.errors import StartError

_FILE = """\
# yaml-language-server: $schema=agent.schema.json
name: {name}
description: Counts the days until a date.
agent_type: stateful

model:
  provider: local # the built-in model, without a key. A better one:
  # provider: openai
  # name: gpt-4o-mini
  # api_key: "${{OPENAI_API_KEY}}"

system_prompt: |
  You are a helpful assistant. Be brief.

tools: # functions in tools.py beside this file; `answer: direct` makes the result the answer, word for word
  - {{function: "tools:days_until", answer: direct}}

server: {{port: 8000}}
# discovery: {{url: "http://127.0.0.1:9000", heartbeat_seconds: 10}}
"""

_TOOLS = '''\
from datetime import date


def days_until(day: date) -> str:
    """Count the days until a date.

    Args:
        day: The date, such as 2030-12-24.
    """
    days = (day - date.today()).days
    return f"{abs(days)} days {'until' if days >= 0 else 'since'} {day:%A, %d %B %Y}"
'''


def create_agent(name: str, parent: Path) -> Path:
    """Create the folder `name` in `parent` with an agent file, its tools and the schema for editors.

    Raises:
        StartError: the name is invalid, or the folder exists.
    """
    try:
        AgentConfig.model_validate({"name": name, "model": {"provider": "local"}})
    except ValidationError as error:
        raise StartError(f"{name!r} is not a valid name: use lower-case letters, digits and hyphens") from error
    folder = parent / name
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise StartError(f"{folder} already exists; choose another name, or remove it first") from error
    (folder / "agent.yaml").write_text(_FILE.format(name=name), encoding="utf-8")
    (folder / "tools.py").write_text(_TOOLS, encoding="utf-8")
    schema = json.dumps(AgentConfig.model_json_schema(), indent=2)
    (folder / "agent.schema.json").write_text(schema + "\n", encoding="utf-8")
    return folder
