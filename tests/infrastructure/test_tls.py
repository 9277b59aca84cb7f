"""https at the registry's door: which certificates open it, and what is said of files that cannot."""

import asyncio
import socket
import ssl
from pathlib import Path

import httpx
import pytest

from discovery.app import create_app
from discovery.client import DiscoveryClient, DiscoveryError, registered
from discovery.contract import Registration
from discovery.settings import Settings, SettingsError
from infrastructure.tls import TlsError, client_tls
from tests.certificates import Authority, options
from tests.discovery.conftest import eventually, registration
from tests.discovery.test_command import run, running
from tests.serving import serve


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "theirs")


def test_the_command_answers_over_https_and_nobody_without_its_authority_believes_it(
    ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    pair = ours.issue()
    flags = ("--tls-certificate", pair.certificate, "--tls-key", pair.key, "--database-url", "memory://")
    with running(tmp_path, *flags) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        with httpx.Client(verify=ours.client(), trust_env=False) as http:
            assert http.get(f"{url}/agents").json() == []
            with pytest.raises(httpx.RemoteProtocolError):
                http.get(f"{url}/agents".replace("https:", "http:"))
        for stranger in (theirs.client(), ssl.create_default_context()):
            with (
                httpx.Client(verify=stranger, trust_env=False) as http,
                pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
            ):
                http.get(f"{url}/agents")


def test_a_renewed_certificate_is_shown_without_a_restart_and_half_a_one_is_not(
    ours: Authority, tmp_path: Path
) -> None:
    pair = ours.issue()
    flags = ("--tls-certificate", pair.certificate, "--tls-key", pair.key, "--database-url", "memory://")
    with running(tmp_path, *flags) as (_, url):

        def shown() -> bytes | None:
            place = ("127.0.0.1", int(url.rpartition(":")[2]))
            with (
                socket.create_connection(place) as wire,
                ours.client().wrap_socket(wire, server_hostname=place[0]) as tls,
            ):
                return tls.getpeercert(binary_form=True)

        first = shown()
        assert shown() == first
        key = Path(pair.key).read_text()
        ours.issue()
        Path(pair.key).write_text(key)  # of the certificate before
        assert shown() == first
        ours.issue()
        second = shown()
        assert second is not None
        assert second != first
        with httpx.Client(verify=ours.client(), trust_env=False) as http:
            assert http.get(f"{url}/agents").json() == []


def test_the_files_may_be_named_by_variables_and_a_client_certificate_be_asked_for(
    ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    pair = ours.issue()
    variables = {
        "DISCOVERY_TLS_CERTIFICATE": pair.certificate,
        "DISCOVERY_TLS_KEY": pair.key,
        "DISCOVERY_TLS_CLIENT_CA": ours.ca,
        "DISCOVERY_DATABASE_URL": "memory://",
    }
    with running(tmp_path, **variables) as (_, url):
        with httpx.Client(verify=ours.client(ours.issue("agent")), trust_env=False) as http:
            assert http.get(f"{url}/agents").json() == []
        for shown in (None, theirs.issue("agent")):
            with (
                httpx.Client(verify=ours.client(shown), trust_env=False) as http,
                pytest.raises(httpx.TransportError),
            ):
                http.get(f"{url}/livez")


def test_files_that_cannot_be_used_end_the_command_with_a_sentence_and_none_of_their_text(
    ours: Authority, tmp_path: Path
) -> None:
    pair = ours.issue()
    ended = run("--tls-certificate", pair.certificate, "--tls-key", str(tmp_path / "missing.key"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"myagent-discovery: DISCOVERY_TLS_…: {tmp_path}/missing.key cannot be read: No such file or directory.\n"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"tls_certificate": "a.pem"}, "must be set together"),
        ({"tls_key": "a.key"}, "must be set together"),
        ({"tls_client_ca": "ca.pem"}, "requires DISCOVERY_TLS_CERTIFICATE"),
        ({"tls_certificate": "a.pem", "tls_key": "b.key"}, "b.key holds the private key of another certificate"),
        ({"tls_certificate": "a.pem", "tls_key": "a.pem"}, "a.pem holds no private key in PEM format"),
        ({"tls_certificate": "a.key", "tls_key": "a.key"}, "a.key holds no certificate in PEM format"),
        ({"tls_certificate": "a.pem", "tls_key": "a.key", "tls_client_ca": "."}, "cannot be read: Is a directory"),
        ({"tls_certificate": "a.pem", "tls_key": "a.key", "tls_client_ca": "bad.pem"}, "bad.pem holds a certificate"),
        ({"tls_certificate": "bad.pem", "tls_key": "a.key"}, "cannot be used as a certificate and its key"),
        ({"tls_certificate": "a.pem", "tls_key": "locked.key"}, "locked.key is encrypted, and needs a password"),
        (
            {"tls_certificate": "a.pem", "tls_key": "locked.key", "tls_key_password": "hush"},
            "locked.key is encrypted, and needs another password",
        ),
    ],
)
def test_every_wrong_file_is_named_with_what_is_wrong(
    ours: Authority, names: dict[str, str], expected: str, tmp_path: Path
) -> None:
    folder = tmp_path / "ours"
    ours.issue("a"), ours.issue("b")
    (folder / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    (folder / "locked.key").write_bytes(locked((folder / "a.key").read_bytes(), b"right"))
    files = {key: name if key == "tls_key_password" else str(folder / name) for key, name in names.items()}
    with pytest.raises(SettingsError) as caught:
        Settings(**files)
    (problem,) = caught.value.problems
    assert expected in problem
    assert "hush" not in problem


def test_an_encrypted_key_is_opened_with_its_password(ours: Authority, tmp_path: Path) -> None:
    pair = ours.issue()
    Path(pair.key).write_bytes(locked(Path(pair.key).read_bytes(), b"right"))
    settings = Settings(tls_certificate=pair.certificate, tls_key=pair.key, tls_key_password="right")
    assert settings.tls
    assert "right" not in repr(settings)
    assert "right" not in repr(settings.tls)


def locked(key: bytes, password: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as to

    loaded = to.load_pem_private_key(key, None)
    return loaded.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.BestAvailableEncryption(password))


async def test_the_client_trusts_the_authority_that_it_is_told_and_no_other(ours: Authority, theirs: Authority) -> None:
    app = create_app(Settings(database_url="memory://"))
    async with serve(app, **options(ours.issue())) as url:
        async with DiscoveryClient(url, tls=client_tls(ca=Path(ours.ca))) as client:
            await client.register(registration())
            assert [agent.name for agent in await client.agents()] == ["customer-service"]
        for tls in (None, client_tls(ca=Path(theirs.ca))):
            async with DiscoveryClient(url, tls=tls) as client:
                with pytest.raises(DiscoveryError, match="CERTIFICATE_VERIFY_FAILED"):
                    await client.agents()


async def test_a_registry_that_asks_for_a_certificate_takes_the_clients(ours: Authority) -> None:
    app = create_app(Settings(database_url="memory://"))
    shown = ours.issue("agent")
    async with serve(app, **options(ours.issue(), client_ca=ours.ca)) as url:
        tls = client_tls(ca=Path(ours.ca), certificate=Path(shown.certificate), key=Path(shown.key))
        async with DiscoveryClient(url, tls=tls) as client:
            assert await client.agents() == []
        async with DiscoveryClient(url, tls=client_tls(ca=Path(ours.ca))) as client:
            with pytest.raises(DiscoveryError):
                await client.agents()


async def test_what_is_served_over_https_is_announced_also_where_it_asks_its_callers_for_a_certificate(
    ours: Authority,
) -> None:
    async def agent(scope: dict[str, object], receive: object, send: object) -> None:
        raise AssertionError("nobody without a certificate gets here")

    async with (
        asyncio.timeout(20),
        serve(create_app(Settings(database_url="memory://"))) as registry,
        serve(agent, lifespan="off", **options(ours.issue(), client_ca=ours.ca)) as endpoint,
        registered(said(endpoint), url=registry, ready=f"{endpoint}/livez") as state,
    ):
        await eventually(lambda: state.registered)


def said(endpoint: str) -> Registration:
    return registration(endpoint=endpoint)


def test_a_client_certificate_without_its_key_is_of_no_use(ours: Authority) -> None:
    with pytest.raises(TlsError, match="of no use without the file with its private key"):
        client_tls(certificate=Path(ours.issue().certificate))
    assert client_tls() is None
