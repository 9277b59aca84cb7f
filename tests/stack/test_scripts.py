"""What keeps secrets and known vulnerabilities out: the scripts that CI runs, on files that have some."""

import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from tests.agents import free_port, running
from tests.serving import serve

ROOT = Path(__file__).parents[2]
# Put together here, so that this file does not hold them itself.
AWS_KEY = "AKIA" + "2E0A8F3B" + "9C6D1E4F"
PRIVATE_KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository that has the scripts, and nothing else yet."""
    for name in ("secrets", "audit"):
        target = tmp_path / "scripts" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / "scripts" / name, target)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / ".gitignore").write_text(".venv\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def scanned(checkout: Path) -> subprocess.CompletedProcess[str]:
    subprocess.run(["git", "add", "--all"], cwd=checkout, check=True)
    return subprocess.run(["scripts/secrets"], cwd=checkout, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("deploy.sh", f"export AWS_ACCESS_KEY_ID={AWS_KEY}\n"),
        ("tests/test_aws.py", f'KEY = "{AWS_KEY}"\n'),
        ("server.key", f"{PRIVATE_KEY}\nMIIE\n"),
        ("agent.yaml", "model: {api_key: correct-horse-battery}\n"),
        ("agent.yaml", "session: {store: postgresql://agents:correct-horse@db/agents}\n"),
    ],
)
def test_a_secret_in_a_tracked_file_is_found_and_named(checkout: Path, file: str, text: str) -> None:
    (checkout / file).parent.mkdir(exist_ok=True)
    (checkout / file).write_text(text)
    found = scanned(checkout)
    assert found.returncode != 0
    assert file in found.stdout


def test_placeholders_and_what_tests_invent_are_none(checkout: Path) -> None:
    (checkout / "agent.yaml").write_text('model: {api_key: "${secret:myteam/model#api_key}"}\n')
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_it.py").write_text('password = "correct-horse-battery"\n')
    found = scanned(checkout)
    assert (found.returncode, found.stdout) == (0, "")


@asynccontextmanager
async def osv(**vulnerable: str) -> AsyncGenerator[str]:
    """A service that speaks like OSV: it knows one vulnerability of each of these packages."""
    app = FastAPI()

    @app.post("/v1/query")
    async def _(request: Request) -> dict[str, Any]:
        asked = await request.json()
        known = vulnerable.get(asked["package"]["name"])
        if known is None or asked["version"] != known:
            return {}
        affected = {"package": asked["package"], "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]}
        return {"vulns": [{"id": "OSV-2026-1", "modified": "2026-01-01T00:00:00Z", "affected": [affected]}]}

    async with serve(app) as url:
        yield f"{url}/v1/query"


async def audited(checkout: Path, url: str) -> tuple[int, str]:
    (checkout / "constraints.txt").write_text("anyio==4.0.0\nhttpx==0.28.1\n")
    environment = {**os.environ, "OSV_URL": url, "XDG_CACHE_HOME": str(checkout / "cache"), "NO_PROXY": "127.0.0.1"}
    async with running([str(checkout / "scripts" / "audit")], checkout, environment) as process:
        out, err = await process.communicate()
    return process.returncode or 0, out.decode() + err.decode()


async def test_a_vulnerable_version_is_told_and_other_versions_are_clean(checkout: Path) -> None:
    async with osv(anyio="4.0.0") as url:
        status, said = await audited(checkout, url)
    assert status == 1
    assert "OSV-2026-1" in said
    async with osv(anyio="3.0.0") as url:
        assert (await audited(checkout, url))[0] == 0


async def test_where_nobody_answers_it_does_not_say_that_all_is_well(checkout: Path) -> None:
    status, said = await audited(checkout, f"http://127.0.0.1:{free_port()}/v1/query")
    assert status == 75
    assert "nothing was audited" in said
