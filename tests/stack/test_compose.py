"""`docker compose up` from this checkout: what a person would do, with the images that would be deployed."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
PROJECT = "myagent-test"
PORTAL = "http://127.0.0.1:9000"
# A person's shell may hold a key: the stack under test has none.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}


def docker(*command: str, timeout: float = 120) -> str:
    done = subprocess.run(
        ["docker", *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"docker {' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def compose(*command: str, timeout: float = 120, project: str = PROJECT) -> str:
    return docker("compose", "--project-name", project, *command, timeout=timeout)


@pytest.fixture(scope="module")
def stack() -> Iterator[None]:
    try:
        compose("up", "--detach", "--build", "--wait", timeout=1500)
        yield
    finally:
        compose("down", "--volumes", "--timeout", "10")


def until(question: str, url: str, holds: Any, seconds: float = 90) -> Any:
    """What a URL answers as soon as it holds; containers may still be on their way."""
    deadline = time.monotonic() + seconds
    answer: Any = None
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(url, timeout=5).json()
            if holds(answer):
                return answer
        except (httpx.HTTPError, ValueError) as error:
            answer = repr(error)
        time.sleep(0.5)  # another process's progress: there is no event to wait for
    raise AssertionError(f"{question}: {answer}\n{compose('logs', '--tail', '30')}")


def chat(record: dict[str, Any], message: str, session_id: str) -> dict[str, Any]:
    body = {"message": message, "session_id": session_id}
    answer = httpx.post(f"{record['public_endpoint']}/chat", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


def both_up(agents: Any) -> bool:
    return {agent["name"]: agent["status"] for agent in agents} == {"customer-service": "up", "handbook": "up"}


@pytest.mark.usefixtures("stack")
def test_both_agents_answer_through_their_published_ports_and_their_sessions_survive_a_restart() -> None:
    agents = {agent["name"]: agent for agent in until("both agents are listed", f"{PORTAL}/agents", both_up)}
    assert agents["customer-service"]["endpoint"] == "http://customer-service:8000"

    orders = chat(agents["customer-service"], "show me orders above 500 pounds last month", "compose")
    assert orders["steps"][0]["tool_calls"][0]["name"] == "search_orders"
    assert "| Order |" in orders["answer"]
    leave = chat(agents["handbook"], "How many days of holiday do I get?", "compose")
    assert "27 days" in leave["answer"]

    compose("restart", "--timeout", "10", timeout=180)
    agents = {agent["name"]: agent for agent in until("both are back", f"{PORTAL}/agents", both_up)}
    session = f"{agents['customer-service']['public_endpoint']}/sessions/compose"
    remembered = until("the agent answers again", session, lambda messages: isinstance(messages, list))
    assert [message["role"] for message in remembered] == ["user", "assistant", "tool", "assistant"]
    assert remembered[0]["content"] == "show me orders above 500 pounds last month"


def secret_as(service: str, path: str) -> str:
    """What an agent's container gets from the Secrets Manager, or why it does not."""
    read = (
        "import asyncio, sys, aioboto3\n"
        "from botocore.exceptions import ClientError\n"
        "async def main():\n"
        "    async with aioboto3.Session(region_name='eu-west-2').client('secretsmanager') as manager:\n"
        "        try:\n"
        "            print((await manager.get_secret_value(SecretId=sys.argv[1]))['SecretString'])\n"
        "        except ClientError as error:\n"
        "            print(error.response['Error']['Code'])\n"
        "asyncio.run(main())\n"
    )
    return compose("exec", "-T", service, "python", "-c", read, path).strip()


@pytest.mark.usefixtures("stack")
def test_each_agent_reads_its_own_secrets_under_its_own_role_and_no_others() -> None:
    agents = ("customer-service", "handbook")
    for service, other in (agents, agents[::-1]):
        for name in ("database", "model"):
            assert secret_as(service, f"myteam/{service}/{name}").startswith("{")
            assert secret_as(service, f"myteam/{other}/{name}") == "AccessDeniedException"
        assert secret_as(service, "finance/agents/ledger") == "AccessDeniedException"
        assert secret_as(service, "finance/agents/none") == "AccessDeniedException"  # nor which of them there are


@pytest.mark.usefixtures("stack")
def test_the_database_password_came_from_the_secrets_manager_and_stands_in_no_environment_and_no_file() -> None:
    password = json.loads(secret_as("customer-service", "myteam/customer-service/database"))["password"]
    container = compose("ps", "--quiet", "customer-service").strip()
    assert password not in docker("inspect", container)
    assert "${secret:myteam/customer-service/database#password}" in compose(
        "exec", "-T", "customer-service", "cat", "agent.compose.yaml"
    )
    for service in ("discovery", "customer-service", "handbook"):
        assert compose("exec", "-T", service, "id", "-u").strip() == "10001"
    rows = compose(
        "exec", "-T", "postgres", "psql", "-U", "postgres", "-At", "-c",
        "SELECT count(*) FROM pg_roles WHERE rolname IN ('customer_service', 'handbook')",
    )  # fmt: skip
    assert rows.strip() == "2"


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize("service", ["discovery", "customer-service", "handbook", "postgres", "secrets"])
def test_nobody_in_a_container_is_root_has_a_right_or_writes_beside_tmp_and_the_volumes(service: str) -> None:
    look = "id -u; grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs)' /proc/1/status; touch /here /usr/here 2>&1; touch /tmp/here"
    user, *lines = compose("exec", "-T", service, "sh", "-c", look).splitlines()
    assert int(user) > 0
    status = dict(line.split(":\t") for line in lines if "\t" in line)
    assert status == {"CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1"}
    assert sum("Read-only file system" in line for line in lines) == 2


def test_after_compose_down_nothing_is_left_behind() -> None:
    project = f"{PROJECT}-down"  # beside the stack of the other tests, whichever comes first: a service without a port
    compose("up", "--detach", "--no-build", "--wait", "postgres", timeout=300, project=project)
    compose("down", "--volumes", "--timeout", "10", project=project)
    label = f"label=com.docker.compose.project={project}"
    left = [docker(kind, "ls", "--all", "--quiet", "--filter", label) for kind in ("container",)]
    left += [docker(kind, "ls", "--quiet", "--filter", label) for kind in ("volume", "network")]
    assert "".join(left) == ""
