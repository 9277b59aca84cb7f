"""Getting started as its reader has it: every line typed into a fresh container."""

import subprocess

import pytest

from tests.docs.pages import ROOT


@pytest.mark.docker
def test_whoever_types_every_line_of_the_page_ends_with_the_agent_in_the_portal() -> None:
    script = ROOT / "scripts" / "follow-getting-started"
    done = subprocess.run([script], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the agent is in the portal" in done.stdout
