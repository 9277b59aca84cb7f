import dataclasses

import pytest

from discovery.settings import Settings, SettingsError


def problems(environment: dict[str, str], **flags: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment, **flags)
    return caught.value.problems


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    assert Settings.from_environment({}) == Settings(
        host="127.0.0.1", port=9000, database_url="sqlite:///registry.db", allow_anonymous=False, cors_origins=()
    )


def test_variables_are_read_and_flags_win_over_them() -> None:
    environment = {
        "DISCOVERY_HOST": "0.0.0.0",
        "DISCOVERY_PORT": "9100",
        "DISCOVERY_DATABASE_URL": "memory://",
        "DISCOVERY_ALLOW_ANONYMOUS": "1",
        "DISCOVERY_CORS_ORIGINS": "https://a.example, http://localhost:5173/",
    }
    settings = Settings.from_environment(environment, port=9200, host=None)
    assert (settings.host, settings.port, settings.open_to_network) == ("0.0.0.0", 9200, True)
    assert settings.cors_origins == ("https://a.example", "http://localhost:5173")


def test_the_probe_is_off_and_the_domain_nobodys_until_they_are_set() -> None:
    assert (Settings().probe, Settings().probe_seconds, Settings().domain) == (False, 30, "myagent.internal")
    environment = {
        "DISCOVERY_PROBE": "on",
        "DISCOVERY_PROBE_SECONDS": "2.5",
        "DISCOVERY_PROBE_ALLOW": "*.agents.example, 10.0.0.0/8",
        "DISCOVERY_ARD": "0",
        "DISCOVERY_DOMAIN": "agents.acme.example",
    }
    settings = Settings.from_environment(environment)
    assert (Settings().ard, settings.ard) == (True, False)
    assert (settings.probe, settings.probe_seconds, settings.domain) == (True, 2.5, "agents.acme.example")
    assert settings.probe_allow == ("*.agents.example", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DISCOVERY_PROBE", "sometimes"),
        ("DISCOVERY_ARD", "0.91"),
        ("DISCOVERY_PROBE_SECONDS", "often"),
        ("DISCOVERY_PROBE_SECONDS", "0"),
        ("DISCOVERY_PROBE_SECONDS", "nan"),
        ("DISCOVERY_PROBE_SECONDS", "inf"),
        ("DISCOVERY_PROBE_ALLOW", "10.0.0.0/8,http://a.example"),
        ("DISCOVERY_DOMAIN", "acme"),
        ("DISCOVERY_DOMAIN", "https://acme.example"),
    ],
)
def test_what_the_probe_or_the_catalog_cannot_use_is_one_sentence(name: str, value: str) -> None:
    (found,) = problems({name: value})
    assert found.startswith(f"{name} must ")
    assert value.split(",")[-1] in found


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_all_that_is_wrong_is_told_at_once_a_sentence_each() -> None:
    found = problems(
        {
            "DISCOVERY_HOST": "0.0.0.0",
            "DISCOVERY_PORT": "ninety",
            "DISCOVERY_DATABASE_URL": "mysql://u:hush@h/d",
            "DISCOVERY_CORS_ORIGINS": "portal.example",
            "DISCOVERY_TOKENS": "hush:read",
            "DISCOVERY_ALLOW_ANONYMOUS": "perhaps",
        }
    )
    assert len(found) == 5  # not the network: tokens were meant
    assert all(problem.startswith("DISCOVERY_") and problem.endswith(".") for problem in found)
    assert "hush" not in " ".join(found)


def test_the_network_is_refused_without_saying_so_twice_and_told_what_to_do() -> None:
    (found,) = problems({"DISCOVERY_HOST": "0.0.0.0"})
    assert "DISCOVERY_ALLOW_ANONYMOUS=1" in found
    with pytest.raises(SettingsError):
        Settings(host="192.168.1.5")


def test_with_tokens_the_network_is_fine_and_settings_show_none_of_them() -> None:
    settings = Settings.from_environment({"DISCOVERY_HOST": "0.0.0.0", "DISCOVERY_TOKENS": "register:t0ps3cret:a-*"})
    assert settings.open_to_network is False
    assert settings.tokens is not None
    assert settings.tokens.caller("t0ps3cret") is not None
    assert "t0ps3cret" not in repr(settings) + str(dataclasses.asdict(settings))


def test_tokens_win_over_a_registry_that_was_told_to_let_anyone_in() -> None:
    settings = Settings.from_environment({"DISCOVERY_TOKENS": "read:t", "DISCOVERY_ALLOW_ANONYMOUS": "1"})
    assert settings.tokens is not None
    assert settings.tokens.caller("other") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("tokens", [",", "t0ps3cret", "register:t0ps3cret:", "file:/nowhere"])
def test_tokens_that_are_wrong_are_one_sentence_without_them(tokens: str, host: str) -> None:
    (found,) = problems({"DISCOVERY_TOKENS": tokens, "DISCOVERY_HOST": host})
    assert found.startswith("DISCOVERY_TOKENS ")
    assert found.endswith(".")
    assert "t0ps3cret" not in found


@pytest.mark.parametrize("port", ["-1", "65536", "80.5", "²"])
def test_a_port_is_a_port(port: str) -> None:
    assert "0 to 65535" in problems({"DISCOVERY_PORT": port})[0]


def test_the_variable_that_kubernetes_sets_for_a_service_named_discovery_is_not_ours() -> None:
    assert Settings.from_environment({"DISCOVERY_PORT": "tcp://10.0.0.1:9000"}).port == 9000


def test_a_database_in_a_folder_that_is_not_there_is_told_before_anything_starts(tmp_path) -> None:
    assert "does not exist" in problems({"DISCOVERY_DATABASE_URL": f"sqlite:///{tmp_path}/none/registry.db"})[0]
    assert "is a directory" in problems({"DISCOVERY_DATABASE_URL": f"sqlite:///{tmp_path}"})[0]
