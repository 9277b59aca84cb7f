"""A folder of files, laid out as Docker and Kubernetes do."""

import os
from pathlib import Path

import pytest

from agent_runtime import ConfigError
from agent_runtime.agent_file import load
from agent_runtime.secrets import source_for
from agent_runtime.secrets.sources import FileSecrets
from tests.agents import write_agent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    (folder / "team").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("hush-hush")
    return folder


async def fetched(folder: Path, path: str) -> str:
    """The text, or the reason."""
    return str((await source_for(f"file:{folder}", {}).fetch([path]))[path])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"s3cret\n\n", "s3cret\n"),
        (b"\n s3cret ", "\n s3cret "),
        ("clé".encode(), "clé"),
    ],
)
async def test_a_secret_is_its_file_without_one_newline_at_the_end(folder: Path, written: bytes, text: str) -> None:
    (folder / "team" / "key").write_bytes(written)
    assert await fetched(folder, "team/key") == text


async def test_a_file_of_kubernetes_is_found_through_its_links(folder: Path) -> None:
    (folder / "..2026_01_01").mkdir()
    (folder / "..2026_01_01" / "key").write_text("s3cret")
    (folder / "..data").symlink_to("..2026_01_01")
    (folder / "key").symlink_to("..data/key")
    assert await fetched(folder, "key") == "s3cret"


@pytest.mark.parametrize("path", ["../elsewhere", "team/../../elsewhere", "/etc/hostname", "link", "linked/elsewhere"])
async def test_nothing_outside_of_the_folder_is_read(folder: Path, path: str) -> None:
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    (folder / "linked").symlink_to(folder.parent)
    assert await fetched(folder, path) == f"is outside of {folder}"


@pytest.mark.parametrize("path", ["none", "team/none", "team/key/none", "nul\0"])
async def test_a_file_that_is_not_there_is_not_found(folder: Path, path: str) -> None:
    (folder / "team" / "key").write_text("x")
    assert await fetched(folder, path) == f"not found in {folder}"


async def test_what_is_no_text_or_no_file_is_said(folder: Path) -> None:
    (folder / "binary").write_bytes(b"\xff\xfe")
    assert await fetched(folder, "binary") == "is binary and not UTF-8 text"
    assert await fetched(folder, "team") == f"its file in {folder} cannot be read: Is a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
async def test_a_file_that_must_not_be_read_is_said(folder: Path) -> None:
    (folder / "key").write_text("x")
    (folder / "key").chmod(0)
    assert await fetched(folder, "key") == f"access denied to its file in {folder}"


async def test_an_agent_file_takes_texts_and_json_keys_from_it_and_reports_all_that_is_missing(folder: Path) -> None:
    (folder / "team" / "db").write_text('{"password": "pw-1"}\n')
    environment = {"MYAGENT_SECRETS": f"file:{folder}"}
    file = write_agent(folder.parent, system_prompt="${secret:team/db#password}")
    assert (await load(file, environment=environment)).config.system_prompt == "pw-1"

    prompt = "${secret:team/none} ${secret:team/db#user}"
    file = write_agent(folder.parent, description="${secret:../elsewhere}", system_prompt=prompt)
    with pytest.raises(ConfigError) as caught:
        await load(file, environment=environment)
    assert [problem.message for problem in caught.value.problems] == [
        f"secret ../elsewhere: is outside of {folder}",
        f"secret team/none: not found in {folder}",
        "secret team/db: its JSON has no key user",
    ]
    assert all(problem.line for problem in caught.value.problems)
    assert "pw-1" not in str(caught.value)


def test_the_usual_folder_need_not_be_named() -> None:
    assert vars(source_for("file", {})) == vars(FileSecrets(Path("/run/secrets")))
