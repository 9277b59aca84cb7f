"""The section `model` and its fallbacks, as an owner of a file writes them."""

from pathlib import Path

import pytest

from agent_runtime.agent_file import load
from agent_runtime.models import model_for
from tests.agent_runtime.config.test_problems import problems

FILE = """\
name: helper
model:
  provider: azure_openai
  endpoint: https://my-resource.openai.azure.com
  deployment: gpt-4o
  api_key: ${AZURE_KEY}
  fallback:
    - {provider: openai, name: gpt-4o-mini, api_key: "${OPENAI_KEY}"}
    - provider: local
"""


async def test_a_model_and_its_fallbacks_are_read_with_their_placeholders(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(FILE)
    file = await load(tmp_path / "agent.yaml", environment={"AZURE_KEY": "hush", "OPENAI_KEY": "hush-too"})
    model = file.config.model
    assert (model.api_version, [one.provider for one in model.fallback]) == ("2024-10-21", ["openai", "local"])
    assert model.fallback[0].api_key
    assert model.fallback[0].api_key.get_secret_value() == "hush-too"
    assert "hush" not in repr(model)
    assert model_for(model).label == "azure_openai/gpt-4o"


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "message"),
    [
        ("- provider: local", "- {provider: local, nam: x}", 9, "model.fallback[1].nam", "unknown key; did you mean"),
        ("- provider: local", "- {provider: openai}", 9, "model.fallback[1].name", "is required for the provider open"),
        ("- provider: local", "- {provider: local, fallback: []}", 7, "model.fallback", "has no `fallback` of its own"),
        ("  deployment: gpt-4o", "  name: gpt-4o", 5, "model.name", "is not for the provider azure_openai"),
        ("  provider: azure_openai", "  provider: azure", 3, "model.provider", "must be 'openai', 'azure_openai' or"),
    ],
)
async def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, path: str, message: str
) -> None:
    found = await problems(tmp_path, FILE.replace(old, new), AZURE_KEY="a", OPENAI_KEY="b")
    assert (line, path) in [(problem[0], problem[1]) for problem in found]
    [said] = [problem[2] for problem in found if problem[1] == path]
    assert said.startswith(message)


async def test_a_secret_that_is_missing_in_a_fallback_is_said(tmp_path: Path) -> None:
    [(line, path, message)] = await problems(tmp_path, FILE, AZURE_KEY="a")
    assert (line, path) == (8, "model.fallback[0].api_key")
    assert "OPENAI_KEY" in message
