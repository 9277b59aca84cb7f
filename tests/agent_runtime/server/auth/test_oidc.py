"""Callers with a token of an issuer, over real sockets: which tokens are good, and whose sessions they open."""

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jwt", reason="needs the oidc extra")

from agent_runtime.config import OidcConfig
from agent_runtime.errors import IssuerAway
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.server.auth.oidc import InvalidToken
from agent_runtime.server.auth.oidc import Issuer as Checker
from tests.agent_runtime.server.auth.test_authenticator import bearer
from tests.agent_runtime.server.served import is_problem, serving
from tests.agents import free_port
from tests.issuer import AUDIENCE, Issuer, serving_issuer, signing_key


def section(issuer: str, **more: Any) -> dict[str, Any]:
    return {"oidc": {"issuer": issuer, "audience": AUDIENCE, **more}}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_token_of_the_issuer_opens_the_door_and_its_subject_owns_the_sessions(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello Ada.", "Hello Bob.", "Hello again."])
    async with (
        serving_issuer() as issuer,
        serving(tmp_path, model, agent_type="stateful", server=section(issuer.url)) as client,
    ):
        ada, bob = bearer(issuer.token(sub="ada")), bearer(issuer.token(sub="bob"))
        for who in (ada, bob):
            answer = await client.post("/chat", headers=who, json={"message": "hi", "session_id": "s"})
            assert answer.status_code == 200, answer.text
        read = [(await client.get("/sessions/s", headers=who)).json()[1]["content"] for who in (ada, bob)]
        assert read == ["Hello Ada.", "Hello Bob."]
        again = bearer(issuer.token(sub="ada", jti="another"))  # the next token of the same person
        assert len((await client.get("/sessions/s", headers=again)).json()) == 2
    assert issuer.asked == [".well-known/openid-configuration", "keys"]  # once for all of them


async def test_keys_of_the_file_and_tokens_are_good_side_by_side_and_nothing_else_is(tmp_path: Path) -> None:
    async with serving_issuer() as issuer:
        server = section(issuer.url) | {"api_keys": ["key-one"]}
        async with serving(tmp_path, ScriptedModel(["a", "b"]), server=server) as client:
            for good in ("key-one", issuer.token()):
                answer = await client.post("/chat", headers=bearer(good), json={"message": "hi"})
                assert answer.status_code == 200
            none = is_problem(await client.post("/chat", json={"message": "hi"}), 401, "unauthorized")
            assert none["detail"] == f"this agent requires an API key or a token of {issuer.url}"
            answer = await client.post("/chat", headers=bearer("key-two"), json={"message": "hi"})
            wrong = is_problem(answer, 401, "unauthorized")
            assert wrong["detail"] == "the token cannot be read as a JSON Web Token"
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def now() -> int:
    return int(time.time())


STRANGER = signing_key("one")
BAD: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "over": (lambda i: i.token(exp=now() - 60), "has expired"),
    "early": (lambda i: i.token(nbf=now() + 600), "is not valid yet"),
    "made in the future": (lambda i: i.token(iat=now() + 600), "is not valid yet"),
    "for others": (lambda i: i.token(aud="billing"), "has another audience"),
    "for nobody": (lambda i: i.token(aud=None), "lacks one of exp, iss, aud and sub"),
    "endless": (lambda i: i.token(exp=None), "lacks one of exp, iss, aud and sub"),
    "nameless": (lambda i: i.token(sub=None), "lacks one of exp, iss, aud and sub"),
    "empty name": (lambda i: i.token(sub=""), "has an empty subject"),
    "another issuer's": (lambda i: i.token(iss="https://evil.example"), "has another issuer"),
    "another key under the name of a good one": (lambda i: i.token(STRANGER), "has an invalid signature"),
    "an unknown key": (
        lambda i: i.token(headers={"kid": "two"}),
        "is signed with a key that its issuer does not publish",
    ),
    "a kid that is no text": (lambda i: raw(i, {"alg": "RS256", "kid": 7}), "cannot be read as a JSON Web Token"),
    "unsigned": (lambda i: raw(i, {"alg": "none", "kid": "one"}), "is signed with an algorithm that is not accepted"),
    "signed with the public key as a password": (
        lambda i: confused(i),
        "is signed with an algorithm that is not accepted",
    ),
    "nested without end": (lambda _: deep(), "cannot be read as a JSON Web Token"),
    "a word": (lambda _: "e30.e30.e30", "is signed with an algorithm that is not accepted"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_token_that_is_no_good_is_refused_with_the_reason_and_without_its_text(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    make, reason = BAD[kind]
    async with (
        serving_issuer() as issuer,
        serving(tmp_path, ScriptedModel([]), server=section(issuer.url)) as client,
    ):
        token = make(issuer)
        for path in ("/chat", "/v1/chat/completions", "/a2a", "/mcp"):
            answer = await client.post(path, headers=bearer(token), json={})
            assert answer.status_code == 401
            assert reason in answer.text
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            assert token not in answer.text
    assert token not in caplog.text


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def deep() -> str:
    nested = base64.urlsafe_b64encode(b'{"a":' * 6000 + b"1" + b"}" * 6000).rstrip(b"=").decode()
    return f"{nested}.{nested}."


def raw(issuer: Issuer, header: dict[str, Any]) -> str:
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "exp": now() + 300}
    return f"{part(header)}.{part(claims)}."


def confused(issuer: Issuer) -> str:
    """A token that takes a published RSA key for the secret of a symmetric signature."""
    signed = raw(issuer, {"alg": "HS256", "kid": "one"})[:-1]
    signature = hmac.digest(json.dumps(issuer.keys[0].shown).encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def test_clocks_may_differ_by_some_seconds(tmp_path: Path) -> None:
    async with serving_issuer() as issuer, Checker(config(issuer, leeway_seconds=30), tmp_path) as checker:
        assert await checker.subject(issuer.token(exp=now() - 10, nbf=now() - 20))
        assert await checker.subject(issuer.token(nbf=now() + 10))


def config(issuer: Issuer, **more: Any) -> OidcConfig:
    return OidcConfig.model_validate(section(issuer.url, **more)["oidc"])


async def test_one_of_several_audiences_and_every_listed_signature_is_enough(tmp_path: Path) -> None:
    async with serving_issuer(signing_key("r"), signing_key("e", "ES256")) as issuer:
        wanted = config(issuer, audience=["agents", "helper"])
        async with Checker(wanted, tmp_path) as checker:
            same = {
                await checker.subject(issuer.token(issuer.keys[0])),
                await checker.subject(issuer.token(issuer.keys[1], aud=["agents", "others"])),
            }
            assert len(same) == 1
        async with Checker(config(issuer, algorithms=["ES256"]), tmp_path) as checker:
            with pytest.raises(InvalidToken, match="that is not accepted"):
                await checker.subject(issuer.token(issuer.keys[0]))


@pytest.mark.parametrize("more", [{"alg": "RS512"}, {"use": "enc"}])
async def test_a_key_is_used_for_what_it_is_for_only(tmp_path: Path, more: dict[str, str]) -> None:
    keys = signing_key("one", **more), signing_key("other")
    async with serving_issuer(*keys) as issuer, Checker(config(issuer), tmp_path) as checker:
        with pytest.raises(InvalidToken):
            await checker.subject(issuer.token(keys[0]))


async def test_a_token_without_the_name_of_a_key_is_of_the_only_one(tmp_path: Path) -> None:
    nameless = signing_key(None)
    async with serving_issuer(nameless) as issuer, Checker(config(issuer), tmp_path) as checker:
        assert await checker.subject(issuer.token())


async def test_a_new_key_is_found_at_once_and_made_up_ones_do_not_make_the_issuer_be_asked_without_end(
    tmp_path: Path,
) -> None:
    clock = Clock()
    async with serving_issuer() as issuer, Checker(config(issuer), tmp_path, clock=clock) as checker:
        await checker.subject(issuer.token())
        issuer.keys = [signing_key("two")]
        clock.now += 31
        await checker.subject(issuer.token())
        with pytest.raises(InvalidToken):  # the old one is not shown any more
            await checker.subject(issuer.token(headers={"kid": "one"}))
        assert issuer.asked.count("keys") == 2
        for number in range(50):
            with pytest.raises(InvalidToken):
                await checker.subject(issuer.token(headers={"kid": f"made-up-{number}"}))
        assert issuer.asked.count("keys") == 2
        clock.now += 31
        for number in range(50):
            with pytest.raises(InvalidToken):
                await checker.subject(issuer.token(headers={"kid": f"made-up-{number}"}))
        assert issuer.asked.count("keys") == 3


async def test_known_keys_outlive_an_issuer_that_is_away_for_a_day_and_not_longer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with serving_issuer() as issuer, Checker(config(issuer), tmp_path, clock=clock) as checker:
        await checker.subject(issuer.token())
        issuer.away = True
        clock.now += 23 * 3600
        await checker.subject(issuer.token())
        clock.now += 2 * 3600
        with pytest.raises(IssuerAway):
            await checker.subject(issuer.token())
        issuer.away = False
        clock.now += 31
        await checker.subject(issuer.token())
    assert "cannot fetch the keys of the token issuer" in caplog.text


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"issuer": "https://other.example"}, "copy it to server.oidc.issuer"),
        ({"jwks_uri": "http://keys.example/keys"}, "has no jwks_uri over https"),
        ({"jwks_uri": None}, "has no jwks_uri over https"),
    ],
)
async def test_an_issuer_that_cannot_be_used_is_its_operators_to_mend_and_the_caller_may_try_again(
    tmp_path: Path, document: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving_issuer() as issuer,
        serving(tmp_path, ScriptedModel([]), server=section(issuer.url)) as client,
    ):
        issuer.document = document
        answer = await client.post("/chat", headers=bearer(issuer.token()), json={"message": "hi"})
        is_problem(answer, 503, "issuer_unavailable")
        assert answer.headers["retry-after"]
    assert reason in caplog.text


async def test_an_issuer_that_is_not_there_lets_nobody_in_and_keys_are_still_good(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    server = section(away) | {"api_keys": ["key-one"]}
    token = Issuer(away, [signing_key()]).token()
    async with serving(tmp_path, ScriptedModel(["a"]), server=server) as client:
        is_problem(await client.get("/sessions", headers=bearer(token)), 503, "issuer_unavailable")
        openai = await client.get("/v1/models", headers=bearer(token))
        assert (openai.status_code, openai.json()["error"]["code"]) == (503, "issuer_unavailable")
        assert (await client.get("/sessions", headers=bearer("key-one"))).status_code == 200


def test_a_symmetric_signature_and_an_issuer_without_https_cannot_even_be_written_into_a_file() -> None:
    for wrong in ({"algorithms": ["HS256"]}, {"algorithms": ["none"]}, {"issuer": "http://login.example"}):
        with pytest.raises(ValueError, match=r"algorithms|https"):
            OidcConfig.model_validate({"issuer": "https://login.example", "audience": "x"} | wrong)
