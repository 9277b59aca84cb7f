"""A real server that speaks AWS and enforces authorisation: the one of the local stack, in a process of its own."""

import configparser
import json
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioboto3

from deploy.seed import create_role
from tests.agents import free_port

ROOT = Path(__file__).parents[1]
REGION = "eu-west-2"


@dataclass(frozen=True, slots=True)
class Aws:
    """Its address, and what its administrator does there."""

    url: str
    folder: Path

    def client(self, service: str) -> Any:
        """An administrator's client; to be entered."""
        found = configparser.ConfigParser()
        found.read(self.folder / "administrator")
        keys = dict(found["default"])
        return aioboto3.Session(**keys, region_name=REGION).client(service, endpoint_url=self.url)

    async def put(self, name: str, **value: Any) -> None:
        """Create a secret, or give it a new value."""
        async with self.client("secretsmanager") as manager:
            try:
                await manager.create_secret(Name=name, **value)
            except manager.exceptions.ResourceExistsException:
                await manager.put_secret_value(SecretId=name, **value)

    async def role(self, name: str, policy: dict[str, Any]) -> dict[str, str]:
        """A role with this policy: the environment of a process that runs under it."""
        async with self.client("iam") as iam:
            config = self.folder / name
            config.write_text(await create_role(iam, name, json.loads(json.dumps(policy))), encoding="utf-8")
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": str(config),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def running_aws(folder: Path) -> Generator[Aws]:
    """Start it; it ends with the block."""
    port = free_port()
    command = [sys.executable, "deploy/secrets_manager.py", "127.0.0.1", str(port), str(folder / "administrator")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the mocked AWS did not start")
            time.sleep(0.05)  # another process's progress: there is no event to wait for
        yield Aws(f"http://127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))
