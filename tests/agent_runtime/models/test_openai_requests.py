"""What goes out with a request to a model: keys, headers, and the way through a proxy."""

import asyncio
import logging
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from agent_runtime import ModelError, Usage
from agent_runtime.config import ModelConfig
from agent_runtime.events import Message
from agent_runtime.models import model_for
from agent_runtime.models.openai import OpenAIModel
from agent_runtime.secrets import Credential
from tests.openai_server import OpenAIServer, refuses, says, serving_openai

KEY = "sk-hush-hush"
QUESTION = [Message("user", "2 + 3?")]


def config(url: str, **more: Any) -> ModelConfig:
    return ModelConfig.model_validate({"name": "test-model", "endpoint": url, "max_retries": 0, **more})


async def ask(server: OpenAIServer, **more: Any) -> None:
    async with asyncio.timeout(10), model_for(config(server.url, **more)) as model:
        [chunk async for chunk in model.stream(QUESTION)]


class Rotated(Credential[Any]):
    """A secret that has another value once it is refused."""

    def __init__(self, *values: Any) -> None:
        super().__init__(values[0])
        self._next = list(values[1:])

    async def renewed(self, refused: Any) -> Any:
        self._value = self._next.pop(0) if self._next else self._value
        return None if self._value == refused else self._value


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t\n"])
async def test_blanks_and_line_ends_around_a_key_are_not_part_of_it(end: str) -> None:
    async with serving_openai(says("5")) as server:
        await ask(server, api_key=f"{KEY}{end}", headers={"X-Team": f"red{end}"})
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.asked[0].headers["x-team"] == "red"


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ({"api_key": f"{KEY}\nX-Other: 1"}, "api_key"),
        ({"api_key": "sk-schlüssel"}, "api_key"),
        ({"headers": {"X-Team": "a\rb"}}, "headers.X-Team"),
    ],
)
async def test_a_value_that_no_header_can_carry_is_named_and_not_shown(section: dict[str, Any], name: str) -> None:
    async with serving_openai(says("5")) as server:
        with pytest.raises(ModelError) as caught:
            await ask(server, **section)
    assert caught.value.fault == "auth"
    assert str(caught.value) == f"model.{name} for test-model contains characters that an HTTP header cannot carry"
    assert server.asked == []


async def test_headers_of_the_file_go_with_every_request() -> None:
    headers = {"OpenAI-Organization": "org-1", "X-Gateway-Key": "gate-hush", "User-Agent": "ours"}
    async with serving_openai(refuses(500, headers={"retry-after-ms": "1"}), says("5")) as server:
        await ask(server, headers=headers, max_retries=1)
    for asked in server.asked:
        assert {name: asked.headers[name.lower()] for name in headers} == headers


async def test_a_header_that_the_provider_repeats_is_masked() -> None:
    async with serving_openai(refuses(400, "not for gate-hush")) as server:
        with pytest.raises(ModelError, match=r"not for \*\*\*$"):
            await ask(server, headers={"X-Gateway-Key": "gate-hush"})


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (Rotated("old", "new"), Credential({"X-Gateway-Key": "one"})),
        (Credential("old"), Rotated({"X-Gateway-Key": "one"}, {"X-Gateway-Key": "two"})),
    ],
    ids=["key", "header"],
)  # fmt: skip
async def test_a_refused_secret_that_was_rotated_is_sent_once_more(key: Any, headers: Any) -> None:
    async with (
        asyncio.timeout(10),
        serving_openai(refuses(401), says("5"), says("6")) as server,
        OpenAIModel(config(server.url), key, headers) as model,
    ):
        for expected in ("5", "6"):
            assert [chunk async for chunk in model.stream(QUESTION)] == [expected, Usage(10, 5)]
    sent = [(asked.headers["authorization"], asked.headers["x-gateway-key"]) for asked in server.asked]
    assert sent[0] != sent[1] == sent[2]


async def test_a_secret_that_stays_refused_is_sent_twice_and_no_more() -> None:
    key, headers = Rotated("old", "new", "newer"), Credential[dict[str, str]]({})
    async with (
        asyncio.timeout(10),
        serving_openai(refuses(401), refuses(401), says("5")) as server,
        OpenAIModel(config(server.url), key, headers) as model,
    ):
        with pytest.raises(ModelError):
            [chunk async for chunk in model.stream(QUESTION)]
    assert len(server.asked) == 2


@pytest.mark.parametrize("name", ["x-request-id", "apim-request-id", "x-ms-request-id"])
async def test_the_log_of_a_failure_has_the_providers_request_id(caplog: pytest.LogCaptureFixture, name: str) -> None:
    with caplog.at_level(logging.WARNING, "agent_runtime"):
        async with serving_openai(refuses(401, headers={name: "req_123"})) as server:
            with pytest.raises(ModelError):
                await ask(server, api_key=KEY)
    assert caplog.messages == [
        "openai/test-model: the provider refused model.api_key for test-model (HTTP 401) (auth, request id req_123)"
    ]


# --- proxies


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


JSON_REPLY = b'{"choices": [{"message": {"content": "5"}, "finish_reason": "stop"}]}'
HTTP_REPLY = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(JSON_REPLY), JSON_REPLY)
SOCKS_REPLIES = (b"\x05\x00", b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")  # no login is needed; connected


@pytest.mark.parametrize(
    ("scheme", "greetings", "first"),
    [("http", (), b"POST http://model.test/v1/chat/completions"), ("socks5", SOCKS_REPLIES, b"\x05")],
)
async def test_a_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, scheme: str, greetings: tuple[bytes, ...], first: bytes
) -> None:
    pytest.importorskip("socksio")
    received: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (*greetings, HTTP_REPLY):
            received.append(await reader.read(65536))
            writer.write(reply)
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        monkeypatch.setenv("all_proxy", f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await ask(OpenAIServer("http://model.test/v1"))
    assert received[0].startswith(first)


async def test_a_missing_package_for_socks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # as Python marks what cannot be imported
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"a SOCKS proxy needs a package: pip install socksio"):
        await ask(OpenAIServer("http://model.test/v1"))


async def test_an_address_that_the_environment_excepts_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with serving_openai(says("5")) as server:
        await ask(server)
    assert len(server.asked) == 1


# --- the file


@pytest.mark.parametrize(
    "section",
    [
        {"headers": {"Authorization": "Basic abc"}},
        {"headers": {"authorization": "Basic abc"}},
        {"headers": {"Content-Type": "text/plain"}},
        {"headers": {"bad name": "a"}},
        {"headers": {"": "a"}},
        {"provider": "local", "headers": {"X-Team": "red"}},
        {"provider": "azure_openai", "deployment": "a", "endpoint": "https://a", "headers": {"Api-Key": "a"}},
    ],
)
def test_headers_that_must_not_be_set_are_refused(section: dict[str, Any]) -> None:
    base = {} if "provider" in section else {"name": "m", "endpoint": "http://127.0.0.1:9/v1"}
    with pytest.raises(ValidationError) as caught:
        ModelConfig.model_validate({**base, **section})
    assert [error["loc"] for error in caught.value.errors()] == [("headers",)]


def test_the_client_is_not_imported_before_the_first_request() -> None:
    code = (
        "import sys; from agent_runtime.config import ModelConfig; from agent_runtime.models import model_for; "
        "model_for(ModelConfig(name='m', endpoint='http://127.0.0.1:9/v1')); print('openai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
