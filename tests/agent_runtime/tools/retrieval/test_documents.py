"""Documents as passages: Markdown, plain text, HTML and PDF."""

import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import StartError
from agent_runtime.tools.retrieval.documents import MAX_PASSAGE_WORDS, Passage, read_documents, split
from tests.agent_runtime.tools.retrieval.pdf_file import write_pdf


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
    assert passage.text == "One.\n\nTwo.\n\n\nThree."


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


# --- HTML

PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><title>The handbook</title><style>p { color: red }</style></head>
<body>
  <nav><a href="/">Home</a></nav>
  <p>Before all
     headings.</p>
  <h1>Leave &amp; pay</h1>
  <p>First <b>bold</b> words,<br>then a line.</p>
  <h2>Annual <em>leave</em></h2>
  <ul><li>Twenty-five days</li><li>Carried over: <ul><li>five</li></ul></li></ul>
  <table><tr><th>Year</th><th>Days</th></tr><tr><td>2025</td><td>25</td></tr></table>
  <script>alert("never shown")</script>
  <h2>Pay</h2><div>Monthly.<div>In arrears.</div></div>
  <pre>
# no heading
  indented</pre>
</body></html>"""


@pytest.fixture
def html() -> None:
    pytest.importorskip("markdownify", reason="needs the vector extra")


@pytest.mark.usefixtures("html")
def test_a_page_is_cut_at_its_headings_and_keeps_its_lists_and_tables(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    assert read_documents(["a.html"], tmp_path) == [
        Passage("a.html", "The handbook", "Before all\nheadings."),
        Passage("a.html", "Leave & pay", "First bold words,  \nthen a line."),
        Passage(
            "a.html",
            "Leave & pay > Annual leave",
            "- Twenty-five days\n- Carried over:\n  - five\n\n| Year | Days |\n| --- | --- |\n| 2025 | 25 |",
        ),
        Passage("a.html", "Leave & pay > Pay", "Monthly.\n\nIn arrears.\n\n```\n# no heading\n  indented\n```"),
    ]


@pytest.mark.usefixtures("html")
@pytest.mark.parametrize(
    "content",
    [
        "<p>Fünf".encode(),
        b"\xef\xbb\xbf" + "<p>Fünf".encode(),
        '<meta charset="iso-8859-1"><p>Fünf'.encode("latin-1"),
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1252"><p>Fünf'.encode("cp1252"),
        '<meta charset="no-such-charset"><p>Fünf'.encode(),
    ],
)
def test_a_page_is_read_in_the_charset_that_it_declares(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.htm").write_bytes(content)
    assert read_documents(["a.htm"], tmp_path) == [Passage("a.htm", "a.htm", "Fünf")]


@pytest.mark.usefixtures("html")
def test_a_page_that_is_nested_beyond_reason_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<div>" * 5_000 + "deep")
    with pytest.raises(StartError, match=r"a\.html cannot be read: "):
        read_documents(["a.html"], tmp_path)


# --- PDF


@pytest.fixture
def pdf() -> None:
    pytest.importorskip("pypdf", reason="needs the vector extra")


@pytest.mark.usefixtures("pdf")
def test_passages_of_a_pdf_know_their_page_and_the_heading_of_its_outline(tmp_path: Path) -> None:
    pages = [["A title page"], ["Twenty-five days", "of holiday."], ["And five more."], [], ["Monthly."]]
    write_pdf(tmp_path / "a.pdf", pages, {"Leave": 1, "Pay": 4})
    assert read_documents(["a.pdf"], tmp_path) == [
        Passage("a.pdf", "a.pdf", "A title page", 1),
        Passage("a.pdf", "Leave", "Twenty-five days\nof holiday.", 2),
        Passage("a.pdf", "Leave", "And five more.", 3),
        Passage("a.pdf", "Pay", "Monthly.", 5),
    ]
    assert read_documents(["a.pdf"], tmp_path)[1].shown.startswith("**Leave** (a.pdf, page 2)\n\nTwenty-five")


@pytest.mark.usefixtures("pdf")
def test_a_pdf_without_text_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pdf(tmp_path / "scan.pdf", [[]])
    (tmp_path / "b.md").write_text("Text.")
    with caplog.at_level(logging.WARNING, "agent_runtime"):
        assert [passage.source for passage in read_documents(["*.*"], tmp_path)] == ["b.md"]
    assert "the document scan.pdf has no text; a scan contains only images" in caplog.text


@pytest.mark.usefixtures("pdf")
@pytest.mark.parametrize("content", [b"", b"%PDF-1.4\nbroken", b"<html>"])
def test_a_pdf_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    with pytest.raises(StartError) as caught:
        read_documents(["a.pdf"], tmp_path)
    assert str(caught.value).startswith(f"the document {tmp_path / 'a.pdf'} cannot be read: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("module", "name", "kind"), [("pypdf", "a.pdf", "PDF"), ("markdownify", "a.html", "HTML")])
def test_a_missing_extra_of_a_kind_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, kind: str
) -> None:
    (tmp_path / name).write_text("text")
    monkeypatch.setitem(sys.modules, module, None)  # as Python marks what cannot be imported
    with pytest.raises(StartError, match=rf"reading {kind} documents needs an extra: pip install 'myagent\[vector\]'"):
        read_documents([name], tmp_path)


def test_the_caches_own_folder_holds_no_documents(tmp_path: Path) -> None:
    (tmp_path / ".myagent").mkdir()
    (tmp_path / ".myagent" / "a.md").write_text("Not this.")
    (tmp_path / "a.md").write_text("This.")
    assert [passage.text for passage in read_documents(["**/*.md"], tmp_path)] == ["This."]
