"""Every line of Getting started, run in a fresh container."""

import subprocess

import pytest

from tests.docs.pages import ROOT


@pytest.mark.docker
def test_every_line_of_the_page_leads_to_the_agent_in_the_portal() -> None:
    script = ROOT / "scripts" / "follow-getting-started"
    done = subprocess.run([script], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the agent is in the portal" in done.stdout
