"""What compose.yaml and the Dockerfiles promise of every container, without an engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_and_writes_nowhere_but_to_tmp_and_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "devices", "pid", "ipc", "network_mode"} & service.keys()
    assert service["image"].startswith("myagent/") or service["user"] not in {"0", "root"}  # ours are no root anyway


@pytest.mark.parametrize("name", SERVICES)
def test_a_port_is_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("file", ["Dockerfile.agent", "Dockerfile.discovery"])
def test_an_image_ends_as_a_user_that_is_not_root(file: str) -> None:
    users = re.findall(r"^USER\s+(\S+)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert users
    assert int(users[-1]) > 0  # a number: Kubernetes can tell that it is not root
