"""AWS Secrets Manager with authorisation: what an agent's own role may read, and nothing else."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agent_runtime import Agent, ConfigError
from agent_runtime.agent_file import load
from agent_runtime.config import resolve
from agent_runtime.secrets import source_for
from tests.agents import myagent, write_agent

pytest.importorskip("aioboto3", reason="needs the aws extra")
pytest.importorskip("moto", reason="needs the dev extra")

from tests.aws import REGION, Aws, running_aws


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Generator[Aws]:
    with running_aws(tmp_path_factory.mktemp("aws")) as server:
        yield server


@pytest.fixture
def team() -> str:
    """The beginning of the names of a test's own secrets."""
    return f"team-{uuid4().hex}"


async def policy_of(file: Path) -> dict[str, Any]:
    """What the command prints."""
    done = await myagent("iam-policy", "--config", file, "--region", REGION, cwd=file.parent)
    assert done.status == 0, done.err
    return json.loads(done.out)


async def granted(aws: Aws, file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run as a role that has the policy which the command prints for the file, and nothing else."""
    environment = await aws.role(f"role-{uuid4().hex}", await policy_of(file))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)  # the SDK's own variables
    return {"AWS_REGION": REGION}


async def problems(file: Path, environment: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        await load(file, environment=environment)
    return [problem.message for problem in caught.value.problems]


async def test_a_role_with_the_printed_policy_reads_what_the_file_names(
    tmp_path: Path, aws: Aws, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await aws.put(f"{team}/text", SecretString="s3cret")
    await aws.put(f"{team}/json", SecretString='{"user": "ada", "password": "pw"}')
    await aws.put(f"{team}/binary", SecretBinary="clé".encode())
    prompt = f"${{secret:{team}/text}} ${{secret:{team}/json#password}} ${{secret:{team}/binary}}"
    file = write_agent(tmp_path, system_prompt=prompt)
    environment = await granted(aws, file, monkeypatch)
    assert (await load(file, environment=environment)).config.system_prompt == "s3cret pw clé"


async def test_what_the_policy_does_not_name_is_denied_alone_and_in_a_batch(
    tmp_path: Path, aws: Aws, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, foreign = f"{team}/own", f"finance-{team}/agents/ledger"
    await aws.put(own, SecretString="s3cret")
    await aws.put(f"{team}/binary", SecretBinary=b"\xff\xfe")
    await aws.put(foreign, SecretString="hush-hush")
    file = write_agent(tmp_path, system_prompt=f"${{secret:{own}}} ${{secret:{team}/binary}} ${{secret:{team}/none}}")
    environment = await granted(aws, file, monkeypatch)
    alone = write_agent(tmp_path / "alone", system_prompt=f"${{secret:{foreign}}}")
    assert await problems(alone, environment) == [f"secret {foreign}: access denied"]

    prompts = [own, foreign, f"{team}/binary", f"{team}/none", f"{own}2"]
    batch = write_agent(
        tmp_path / "batch", description=f"${{secret:{own}#key}}", tools=[f"${{secret:{name}}}" for name in prompts]
    )
    assert [message for message in await problems(batch, environment) if message.startswith("secret")] == [
        f"secret {own}: is not JSON, so #key cannot be read",
        f"secret {foreign}: access denied",
        f"secret {team}/binary: is binary and not UTF-8 text",
        f"secret {team}/none: not found",
        f"secret {own}2: access denied",
    ]


async def test_where_batches_are_denied_secrets_are_read_one_by_one(
    tmp_path: Path, aws: Aws, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        await aws.put(f"{team}/{name}", SecretString=name)
    file = write_agent(tmp_path, system_prompt=f"${{secret:{team}/a}} ${{secret:{team}/b}}")
    policy = await policy_of(file)
    policy["Statement"] = [part for part in policy["Statement"] if part["Sid"] == "ReadSecrets"]
    for name, value in (await aws.role(f"role-{team}", policy)).items():
        monkeypatch.setenv(name, value)
    assert (await load(file, environment={"AWS_REGION": REGION})).config.system_prompt == "a b"


async def test_credentials_that_aws_does_not_know_are_said(
    tmp_path: Path, aws: Aws, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_agent(tmp_path, system_prompt=f"${{secret:{team}/a}} ${{secret:{team}/b}}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    why = "AWS does not accept the credentials that the SDK's chain found"
    expected = [f"secret {team}/{name}: {why}" for name in ("a", "b")]
    assert await problems(file, {"AWS_REGION": REGION}) == expected


async def test_a_role_that_may_not_be_taken_is_said(
    tmp_path: Path, aws: Aws, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_agent(tmp_path, system_prompt=f"${{secret:{team}/a}}")
    environment = await granted(aws, file, monkeypatch)
    config = Path(os.environ["AWS_CONFIG_FILE"])
    text = await asyncio.to_thread(config.read_text)
    await asyncio.to_thread(config.write_text, text.replace(":role/", ":role/another-"))
    why = "no AWS credentials: AssumeRole failed with AccessDenied"
    assert await problems(file, environment) == [f"secret {team}/a: {why}"]


async def test_a_rotated_secret_is_read_again(
    tmp_path: Path, aws: Aws, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.agent_runtime.secrets.test_rotation import Provider, model, providing

    await aws.put(f"{team}/key", SecretString="sk-old")
    provider = Provider("sk-new")
    async with providing(provider) as url:
        file = write_agent(tmp_path, model=model(url, api_key=f"${{secret:{team}/key}}"))
        environment = await granted(aws, file, monkeypatch)
        async with Agent(file, environment=environment) as agent:
            await aws.put(f"{team}/key", SecretString="sk-new")
            assert (await agent.run("hi")).answer == "Hello."
    assert provider.asked == ["sk-old", "sk-new"]


@asynccontextmanager
async def slow_way(url: str, seconds: float | None) -> AsyncGenerator[str]:
    """A way to the server on which each connection waits at first; for ever where no time is named."""
    port = int(url.rpartition(":")[2])

    async def relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if seconds is None:
            await reader.read()
            writer.close()
            return
        await asyncio.sleep(seconds)  # the network of this test is slow
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(relay(reader, forth), relay(back, writer), return_exceptions=True)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_300_secrets_are_read_in_time_though_the_network_is_slow(
    tmp_path: Path, aws: Aws, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{team}/{number}" for number in range(300)]
    async with aws.client("secretsmanager") as manager:
        for first in range(0, 300, 50):
            batch = [manager.create_secret(Name=name, SecretString=name) for name in names[first : first + 50]]
            await asyncio.gather(*batch)
    file = write_agent(tmp_path, system_prompt=" ".join(f"${{secret:{name}}}" for name in names))
    environment = await granted(aws, file, monkeypatch)
    async with slow_way(aws.url, 0.3) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        loaded = await load(file, environment=environment)
    assert loaded.config.system_prompt == " ".join(names)


async def test_a_service_that_never_answers_is_said_of_each_secret(
    aws: Aws, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    async with slow_way(aws.url, None) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        source = source_for("aws", {"AWS_REGION": REGION})
        tree = [f"${{secret:{team}/a}}", f"${{secret:{team}/b}}"]
        resolution = await resolve(tree, environment={}, fetch=source.fetch, timeout_seconds=0.3)
    why = "the secret source did not answer within 0.3 s"
    assert [problem.message for problem in resolution.problems] == [f"secret {team}/{name}: {why}" for name in "ab"]


async def test_a_service_that_is_down_is_said_of_each_secret(
    tmp_path: Path, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_agent(tmp_path, system_prompt=f"${{secret:{team}/a}} ${{secret:{team}/b}}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with socket.socket() as unused:  # bound and not listening: nobody answers, and nobody else takes it
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        found = await problems(file, {"AWS_REGION": REGION})
    assert len(found) == 2
    for name, message in zip("ab", found, strict=True):
        assert message.startswith(f"secret {team}/{name}: AWS Secrets Manager cannot be reached: ")
