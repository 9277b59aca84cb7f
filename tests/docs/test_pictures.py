"""The pictures of the pages: small, valid, without external resources, and with existing commands."""

import html
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.commands import commands_in, problem_with
from tests.docs.pages import ROOT

PICTURES = sorted((ROOT / "docs" / "pictures").iterdir())
DRAWN = [picture for picture in PICTURES if picture.suffix == ".svg"]
CAST = ROOT / "docs" / "pictures" / "first-minutes.svg"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_pictures_are_small(picture: Path) -> None:
    assert picture.stat().st_size < 250_000


@pytest.mark.parametrize("picture", DRAWN, ids=lambda picture: picture.name)
def test_drawings_are_valid_and_load_nothing(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?https?:", text) == []


def test_the_terminal_shows_existing_commands() -> None:
    text = CAST.read_text(encoding="utf-8")
    commands = [html.unescape(found) for found in re.findall(r'class="c"> ([^<]+)<', text)]
    assert len(commands) >= 5
    assert [found for line in commands for words in commands_in(line) if (found := problem_with(words))] == []
    typed = [words for line in commands for words in commands_in(line)]
    assert {"new", "validate", "chat", "discovery", "run", "agents"} <= {words[1] for words in typed if len(words) > 1}


def test_the_terminal_shows_the_current_agent_file() -> None:
    from agent_runtime.cli.project import AGENT_FILE

    text = html.unescape(re.sub(r"<[^>]+>", "", CAST.read_text(encoding="utf-8")))
    for line in AGENT_FILE.format(name="greeter").splitlines():
        assert line in text, "run scripts/cast again"
