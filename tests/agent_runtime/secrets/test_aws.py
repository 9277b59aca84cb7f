"""AWS Secrets Manager, spoken by a real HTTP server (moto)."""

import socket
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agent_runtime import ConfigError, StartError
from agent_runtime.agent_file import load
from agent_runtime.secrets import source_for
from tests.agents import write_agent

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
REGION = "eu-west-1"
Stored = Callable[..., str]


@pytest.fixture(scope="session")
def secrets_manager() -> Generator[str]:
    """The address of a mocked Secrets Manager."""
    pytest.importorskip("aioboto3", reason="needs the aws extra")
    moto = pytest.importorskip("moto.server", reason="needs the dev extra")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def stored(secrets_manager: str, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """Put a secret there and return its path; the SDK finds the server by its own variables."""
    import boto3

    for name, value in {"AWS_ENDPOINT_URL": secrets_manager, **CREDENTIALS}.items():
        monkeypatch.setenv(name, value)

    def store(region: str = REGION, **value: Any) -> str:
        name = f"team/{uuid4().hex}"
        client = boto3.client("secretsmanager", region_name=region)
        client.create_secret(Name=name, **value)
        client.close()
        return name

    return store


async def prompt(folder: Path, placeholder: str, *, region: str | None = REGION) -> str:
    """What an agent's system prompt becomes when it is this placeholder."""
    environment = {"AWS_REGION": region} if region else {}
    file = write_agent(folder, system_prompt=f"<{placeholder}>")
    return (await load(file, environment=environment)).config.system_prompt


async def refused(folder: Path, placeholder: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        await prompt(folder, placeholder, **options)
    [problem] = caught.value.problems
    assert problem.path == "system_prompt"
    return problem.message


async def test_a_secret_is_found(tmp_path: Path, stored: Stored) -> None:
    path = stored(SecretString="s3cret")
    assert await prompt(tmp_path, f"${{secret:{path}}}") == "<s3cret>"


async def test_a_key_of_a_json_secret_is_picked(tmp_path: Path, stored: Stored) -> None:
    path = stored(SecretString='{"user": "ada", "password": "pw"}')
    assert await prompt(tmp_path, f"${{secret:{path}#password}}") == "<pw>"
    assert await refused(tmp_path, f"${{secret:{path}#token}}") == f"secret {path}: its JSON has no key token"


async def test_a_binary_secret_is_used_as_text_where_it_is_text(tmp_path: Path, stored: Stored) -> None:
    assert await prompt(tmp_path, f"${{secret:{stored(SecretBinary='clé'.encode())}}}") == "<clé>"
    path = stored(SecretBinary=b"\xff\xfe")
    assert await refused(tmp_path, f"${{secret:{path}}}") == f"secret {path}: is binary and not UTF-8 text"


async def test_a_secret_that_is_not_there_is_not_found(tmp_path: Path, stored: Stored) -> None:
    assert await refused(tmp_path, "${secret:team/none}") == "secret team/none: not found"


async def test_a_deleted_secret_is_said_to_be_deleted(tmp_path: Path, stored: Stored) -> None:
    import boto3

    path = stored(SecretString="x")
    client = boto3.client("secretsmanager", region_name=REGION)
    client.delete_secret(SecretId=path)
    client.close()
    assert await refused(tmp_path, f"${{secret:{path}}}") == f"secret {path}: marked as deleted"


async def test_aws_region_says_where_secrets_are_looked_for(tmp_path: Path, stored: Stored) -> None:
    path = stored(region="eu-central-1", SecretString="central")
    assert await prompt(tmp_path, f"${{secret:{path}}}", region="eu-central-1") == "<central>"
    assert await refused(tmp_path, f"${{secret:{path}}}") == f"secret {path}: not found"


async def test_a_missing_region_is_said(tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    path = stored(SecretString="x")
    message = await refused(tmp_path, f"${{secret:{path}}}", region=None)
    assert message == f"secret {path}: no AWS region is set; set AWS_REGION"


async def test_missing_credentials_are_said(tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(SecretString="x")
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    message = await refused(tmp_path, f"${{secret:{path}}}")
    assert message == f"secret {path}: the SDK's credential chain found no AWS credentials"


async def test_an_endpoint_that_is_down_is_said(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:  # bound and not listening: nobody answers, and nobody else takes it
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        message = await refused(tmp_path, "${secret:team/key}")
    assert message.startswith("secret team/key: AWS Secrets Manager cannot be reached: ")


async def test_an_endpoint_that_is_no_url_is_said(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    message = await refused(tmp_path, "${secret:team/key}")
    assert message == "secret team/key: AWS Secrets Manager: Invalid endpoint: nonsense"


async def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aioboto3", None)  # as Python itself marks what cannot be imported
    monkeypatch.delitem(sys.modules, "agent_runtime.secrets.aws", raising=False)
    with pytest.raises(StartError, match=r"pip install 'myagent\[aws\]'"):
        source_for("aws", {})
