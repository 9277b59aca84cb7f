"""One suite for every session store, and what only those that outlive the process can do."""

import asyncio
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_runtime import StartError, StoreError
from agent_runtime.events import Message, ToolCall
from agent_runtime.sessions import Approval, SessionKey, SessionStore, Summary, store_for

KEY = SessionKey("helper", "ada", "s1")
Opened = Callable[[], SessionStore]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return "memory" if request.param == "memory" else "sqlite:///sessions.db"


@pytest.fixture
def opened(url: str, tmp_path: Path) -> Opened:
    """A store, to be opened by the test; called again, it is opened on the same data."""
    return lambda: store_for(url, tmp_path)


def turn(question: str, answer: str) -> list[Message]:
    return [Message("user", question), Message("assistant", answer)]


async def test_a_session_that_nobody_began_is_empty(opened: Opened) -> None:
    async with opened() as store:
        assert await store.load(KEY, limit=10) == []


async def test_what_was_appended_is_loaded_in_full_and_in_order(opened: Opened) -> None:
    messages = [
        Message("user", "2 + 3, and 'quotes' \"double\" \\ %s $1 ?"),
        Message("assistant", "", (ToolCall("c1", "add", '{"a": 2}'), ToolCall("c2", "add", ""))),
        Message("tool", "5", tool_call_id="c1"),
        Message("tool", "", tool_call_id="c2"),
        Message("assistant", "Fünf 🎉\n\u2028 \U0001f600"),
    ]
    async with opened() as store:
        await store.append(KEY, messages[:])
        await store.append(KEY, turn("again", "ok"))
        assert await store.load(KEY, limit=100) == [*messages, *turn("again", "ok")]


async def test_sessions_owners_and_agents_do_not_see_each_other(opened: Opened) -> None:
    keys = [
        KEY,
        SessionKey("helper", "ada", "s2"),
        SessionKey("helper", "bob", "s1"),
        SessionKey("other", "ada", "s1"),
        SessionKey("helper", "", "s1"),
    ]
    async with opened() as store:
        for number, key in enumerate(keys):
            await store.append(key, turn(f"q{number}", "a"))
        for number, key in enumerate(keys):
            assert await store.load(key, limit=10) == turn(f"q{number}", "a")
        assert await store.delete(KEY)
        assert [len(await store.load(key, limit=10)) for key in keys] == [0, 2, 2, 2, 2]


async def test_the_latest_messages_are_whole_turns(opened: Opened) -> None:
    acted = [
        Message("user", "old"),
        Message("assistant", "", (ToolCall("c1", "add", "{}"),)),
        Message("tool", "5", tool_call_id="c1"),
        Message("assistant", "5"),
    ]
    async with opened() as store:
        await store.append(KEY, acted)
        await store.append(KEY, turn("new", "yes"))
        assert await store.load(KEY, limit=6) == [*acted, *turn("new", "yes")]
        for limit in (2, 3, 4, 5):  # whatever is cut through the first turn begins with the second
            assert await store.load(KEY, limit=limit) == turn("new", "yes")
        assert await store.load(KEY, limit=1) == []


async def test_deleting_says_whether_there_was_a_conversation(opened: Opened) -> None:
    async with opened() as store:
        assert not await store.delete(KEY)
        await store.append(KEY, turn("q", "a"))
        assert await store.delete(KEY)
        assert not await store.delete(KEY)
        assert await store.load(KEY, limit=10) == []


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "half a pair: \ud83d", "\ude00 the other half"])
async def test_a_character_that_no_database_keeps_does_no_harm(opened: Opened, text: str) -> None:
    async with opened() as store:
        await store.append(KEY, turn(text, "ok"))
        question, answer = await store.load(KEY, limit=10)
        assert question.content in {text, re.sub("[\x00\ud800-\udfff]", "\ufffd", text)}
        assert answer.content == "ok"


async def test_turns_of_many_sessions_at_once_stay_whole(opened: Opened) -> None:
    keys = [SessionKey("helper", "ada", f"s{number}") for number in range(12)]
    async with asyncio.timeout(20), opened() as store:
        for _ in range(3):
            await asyncio.gather(*(store.append(key, turn(key.session_id, "a")) for key in keys))
        for key in keys:
            assert await store.load(key, limit=10) == turn(key.session_id, "a") * 3


async def test_an_owners_sessions_are_listed_latest_first_with_what_was_said_first(opened: Opened) -> None:
    long = "x" * 200
    async with opened() as store:
        before = datetime.now(UTC) - timedelta(seconds=5)
        for session_id, question in (("s1", "first"), ("s2", long), ("s3", "third")):
            await store.append(SessionKey("helper", "ada", session_id), turn(question, "a"))
        await store.append(SessionKey("helper", "bob", "s4"), turn("of another", "a"))
        await store.append(SessionKey("other", "ada", "s5"), turn("of another agent", "a"))
        await store.append(SessionKey("helper", "ada", "s1"), turn("and again", "a"))
        listed = await store.list("helper", "ada", limit=10)
        assert [(one.session_id, one.title, one.messages) for one in listed] == [
            ("s1", "first", 4),
            ("s3", "third", 2),
            ("s2", long[:80], 2),
        ]
        for one in listed:
            assert before < one.created_at <= one.updated_at < datetime.now(UTC) + timedelta(seconds=5)
        assert [one.session_id for one in await store.list("helper", "ada", limit=2)] == ["s1", "s3"]
        assert await store.list("helper", "nobody", limit=10) == []


async def test_the_messages_of_a_session_are_counted(opened: Opened) -> None:
    async with opened() as store:
        assert await store.count(KEY) == 0
        await store.append(KEY, turn("q", "a"))
        await store.append(KEY, turn("q", "a"))
        assert await store.count(KEY) == 4


async def test_the_latest_summary_is_kept_and_goes_with_its_session(opened: Opened) -> None:
    other = SessionKey("helper", "ada", "s2")
    async with opened() as store:
        assert await store.load_summary(KEY) is None
        for key in (KEY, other):
            await store.append(key, turn("q", "a"))
            await store.save_summary(key, Summary("first", 2))
        await store.save_summary(KEY, Summary("second\x00", 4))
        known = await store.load_summary(KEY)
        assert known
        assert (known.text.rstrip("\x00\ufffd"), known.covered) == ("second", 4)
        assert await store.load(KEY, limit=10) == turn("q", "a")
        await store.delete(KEY)
        assert await store.load_summary(KEY) is None
        assert await store.load_summary(other) == Summary("first", 2)


async def test_sessions_whose_last_message_is_older_are_forgotten(opened: Opened) -> None:
    keys = [SessionKey("helper", owner, f"s{number}") for owner in ("ada", "bob") for number in range(2)]
    other = SessionKey("other", "ada", "s1")
    async with opened() as store:
        for key in (*keys, other):
            await store.append(key, turn("q", "a"))
            await store.save_summary(key, Summary("short", 2))
        assert await store.expire("helper", before=datetime.now(UTC) - timedelta(days=1), limit=10) == 0
        later = datetime.now(UTC) + timedelta(days=1)
        assert await store.expire("helper", before=later, limit=3) == 3
        assert await store.expire("helper", before=later, limit=3) == 1
        assert await store.expire("helper", before=later, limit=3) == 0
        for key in keys:
            assert (await store.count(key), await store.load_summary(key)) == (0, None)
        assert (await store.count(other), await store.load_summary(other)) == (2, Summary("short", 2))


# --- those that outlive the process


async def test_a_store_that_is_opened_again_has_kept_everything(durable: str, tmp_path: Path) -> None:
    async with store_for(durable, tmp_path) as store:
        await store.append(KEY, turn("q", "a"))
    async with store_for(durable, tmp_path) as store:
        assert await store.load(KEY, limit=10) == turn("q", "a")


async def test_two_processes_may_share_a_store(durable: str, tmp_path: Path) -> None:
    stores = [store_for(durable, tmp_path) for _ in range(2)]
    async with asyncio.timeout(20):
        first, second = await asyncio.gather(*(store.__aenter__() for store in stores))
        try:
            await asyncio.gather(*(store.append(KEY, turn("q", "a")) for store in (first, second) * 4))
            assert await first.load(KEY, limit=100) == await second.load(KEY, limit=100) == turn("q", "a") * 8
        finally:
            await first.__aexit__(None, None, None)
            await second.__aexit__(None, None, None)


async def test_a_turn_is_appended_as_a_whole_or_not_at_all(durable: str, tmp_path: Path) -> None:
    async with store_for(durable, tmp_path) as store:
        await store.append(KEY, turn("before", "ok"))
        await _refuse_rows(durable, tmp_path, content="refused")
        with pytest.raises(StoreError):
            await store.append(KEY, turn("q", "refused"))
        await store.append(KEY, turn("after", "ok"))
        assert await store.load(KEY, limit=10) == [*turn("before", "ok"), *turn("after", "ok")]


async def _refuse_rows(url: str, folder: Path, *, content: str) -> None:
    """Make the database itself say no."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(folder / "sessions.db")) as admin:
            admin.execute(
                f"CREATE TRIGGER refuse BEFORE INSERT ON session_messages WHEN NEW.content = '{content}'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        return
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute(f"ALTER TABLE session_messages ADD CHECK (content <> '{content}')")
    await connection.close()


async def test_an_append_that_is_cancelled_leaves_the_store_usable(durable: str, tmp_path: Path) -> None:
    async with asyncio.timeout(20), store_for(durable, tmp_path) as store:
        appending = asyncio.create_task(store.append(KEY, turn("q", "x" * 1000) * 500))
        await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait({appending})
        await store.append(KEY, turn("after", "ok"))
        loaded = await store.load(KEY, limit=2000)
        assert loaded[-2:] == turn("after", "ok")
        assert len(loaded) in {2, 1002}


# --- failures


async def test_a_file_of_another_kind_is_no_session_store(tmp_path: Path) -> None:
    (tmp_path / "sessions.db").write_bytes(b"this is not a database at all" * 50)
    with pytest.raises(
        StartError, match=r"the session store .*sessions\.db cannot be opened: .*file is not a database"
    ):
        async with store_for("sqlite:///sessions.db", tmp_path):
            pass


async def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"the session store .*sessions\.db cannot be opened: ") as caught:
        async with store_for("sqlite:///file/sessions.db", tmp_path):
            pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://agents:hush-hush@127.0.0.1:9/agents",
        "postgresql://agents:hush-hush@127.0.0.1:not-a-port/agents",
        "postgresql://agents:hush-hush@/agents?host=/nowhere",
        "postgresql://agents:hush-hush@[::1/agents",
    ],
)
async def test_a_postgres_out_of_reach_is_one_sentence_without_the_password(tmp_path: Path, url: str) -> None:
    pytest.importorskip("asyncpg", reason="needs the postgres extra")
    with pytest.raises(StartError) as caught:
        async with asyncio.timeout(20), store_for(url, tmp_path):
            pass
    message = str(caught.value)
    assert message.startswith("the session store in Postgres cannot be opened: ")
    assert "hush-hush" not in message
    assert "\n" not in message


@pytest.mark.parametrize("url", ["redis://:hush-hush@cache", "sqlite://file.db", "memory:", "hush-hush"])
def test_a_url_of_no_store_is_refused_without_the_rest_of_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(StartError, match=r"use sqlite:///file\.db, postgresql://… or memory") as caught:
        store_for(url, tmp_path)
    assert ":hush-hush" not in str(caught.value)


async def test_a_database_that_goes_away_while_serving_is_a_store_error(postgres_url: str, tmp_path: Path) -> None:
    import asyncpg

    async with store_for(postgres_url, tmp_path) as store:
        await store.append(KEY, turn("q", "a"))
        admin = await asyncpg.connect(postgres_url)
        await admin.execute("DROP TABLE session_messages")
        await admin.close()
        for attempt in (store.load(KEY, limit=1), store.append(KEY, turn("q", "a")), store.delete(KEY)):
            with pytest.raises(StoreError, match="the session store in Postgres failed: "):
                await attempt


async def test_a_connection_that_was_cut_is_replaced(postgres_url: str, tmp_path: Path) -> None:
    import asyncpg

    async with asyncio.timeout(20), store_for(postgres_url, tmp_path) as store:
        await store.append(KEY, turn("q", "a"))
        admin = await asyncpg.connect(postgres_url)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await admin.close()
        with suppress(StoreError):  # the cut is noticed at the first use, at the latest
            await store.append(KEY, turn("lost", "a"))
        await store.append(KEY, turn("next", "a"))
        assert (await store.load(KEY, limit=10))[-2:] == turn("next", "a")


async def test_a_sqlite_file_that_somebody_emptied_is_a_store_error(tmp_path: Path) -> None:
    async with store_for("sqlite:///sessions.db", tmp_path) as store:
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as other:
            other.execute("DROP TABLE session_messages")
            other.commit()
        for attempt in (store.load(KEY, limit=1), store.append(KEY, turn("q", "a")), store.delete(KEY)):
            with pytest.raises(StoreError, match=r"the session store sessions\.db failed: "):
                await attempt


async def test_a_waiting_call_is_kept_until_exactly_one_takes_it(opened: Opened) -> None:
    now = datetime.now(UTC)
    key = SessionKey("helper", "ada", "s")
    first = Approval("a1", key, "r1", "refund", '{"pounds": 20}', '{"said": "\x00"}', now)
    second = Approval("a2", key, "r2", "refund", "{}", "{}", now + timedelta(seconds=1))
    async with opened() as store:
        await store.save_approval(second)
        await store.save_approval(first)
        listed = await store.approvals("helper", "ada")
        assert {approval.id for approval in listed} == {"a1", "a2"}
        assert await store.approvals("helper", "bob") == []
        assert await store.take_approval("helper", "bob", "a1") is None
        taken = await asyncio.gather(*(store.take_approval("helper", "ada", "a1") for _ in range(8)))
        [one] = [approval for approval in taken if approval]
        assert (one.key, one.run_id, one.tool, one.arguments, one.created_at) == (
            key, "r1", "refund", '{"pounds": 20}', now,
        )  # fmt: skip
        assert [approval.id for approval in await store.approvals("helper", "ada")] == ["a2"]


async def test_a_forgotten_conversation_and_the_passing_of_time_take_waiting_calls_with_them(opened: Opened) -> None:
    now = datetime.now(UTC)
    first = Approval("a1", SessionKey("helper", "ada", "s1"), "r1", "refund", "{}", "{}", now)
    second = Approval("a2", SessionKey("helper", "ada", "s2"), "r2", "refund", "{}", "{}", now)
    async with opened() as store:
        for approval in (first, second):
            await store.save_approval(approval)
        await store.delete(first.key)
        assert [approval.id for approval in await store.approvals("helper", "ada")] == ["a2"]
        await store.expire("helper", before=now - timedelta(days=1), limit=10)
        assert len(await store.approvals("helper", "ada")) == 1
        await store.expire("helper", before=now + timedelta(days=1), limit=10)
        assert await store.approvals("helper", "ada") == []
