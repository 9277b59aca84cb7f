from pathlib import Path

import pytest

from agent_runtime.config import SecretNotAvailable
from agent_runtime.secrets import source_for


def secrets_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "secrets.yaml"
    file.write_bytes(text.encode())
    file.chmod(mode)
    return file


async def fetched(file: Path, path: str) -> str:
    secret = (await source_for(f"yaml:{file}", {}).fetch([path]))[path]
    if isinstance(secret, SecretNotAvailable):
        raise secret
    return secret


async def refused(file: Path, path: str = "team/key") -> str:
    with pytest.raises(SecretNotAvailable) as caught:
        await fetched(file, path)
    return str(caught.value)


async def test_a_secret_is_found_by_its_path(tmp_path: Path) -> None:
    assert await fetched(secrets_file(tmp_path, "team/key: s3cret\n"), "team/key") == "s3cret"


async def test_a_value_that_is_no_text_is_its_json(tmp_path: Path) -> None:
    file = secrets_file(tmp_path, "db: {user: ada, port: 5432}\npin: 1234\nuntil: 2030-01-31\n")
    assert await fetched(file, "db") == '{"user": "ada", "port": 5432}'
    assert await fetched(file, "pin") == "1234"
    assert await fetched(file, "until") == '"2030-01-31"'


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
async def test_a_file_that_others_can_use_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    file = secrets_file(tmp_path, "team/key: s3cret\n", mode)
    assert await refused(file) == f"{file} can be read by other users; run: chmod 600 {file}"


async def test_a_secret_that_is_not_there_or_empty_is_not_found(tmp_path: Path) -> None:
    file = secrets_file(tmp_path, "other: x\nteam/key:\n")
    assert await refused(file) == f"not found in {file}"
    assert await refused(file, "team/none") == f"not found in {file}"


async def test_a_missing_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    assert await refused(file) == f"{file} cannot be read: No such file or directory"


@pytest.mark.parametrize("text", ["hush: 'hush-hush", "hush-hush: [", "a: b: hush-hush", "\x00hush-hush"])
async def test_a_broken_file_is_said_without_a_word_of_its_text(tmp_path: Path, text: str) -> None:
    file = secrets_file(tmp_path, text)
    assert await refused(file) == f"{file} is not valid YAML"


@pytest.mark.parametrize("text", ["", "- hush-hush\n", "hush-hush\n"])
async def test_a_file_that_is_no_map_is_said(tmp_path: Path, text: str) -> None:
    file = secrets_file(tmp_path, text)
    assert await refused(file) == f"{file} must map secret paths to values"


async def test_one_that_is_missing_does_not_keep_the_others(tmp_path: Path) -> None:
    secrets = await source_for(f"yaml:{secrets_file(tmp_path, 'a: one')}", {}).fetch(["a", "b"])
    assert (secrets["a"], str(secrets["b"])) == ("one", f"not found in {tmp_path / 'secrets.yaml'}")
