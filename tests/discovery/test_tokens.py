"""DISCOVERY_TOKENS: what it takes, what it refuses, and that it never says a token."""

from pathlib import Path

import pytest

from discovery.tokens import Caller, Tokens, read_tokens


def caller(text: str, token: str) -> Caller | None:
    tokens = read_tokens(text)
    assert tokens is not None
    return tokens.caller(token)


def refused(text: str) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_tokens(text)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_no_variable_is_no_tokens_which_is_not_the_same_as_none_that_fit() -> None:
    assert read_tokens(None) is None
    assert Tokens().caller("anything") is None


def test_several_tokens_of_one_scope_are_all_good_so_that_they_can_be_rotated() -> None:
    for token in ("old", "new"):
        found = caller(" read:old, read:new ,\nregister:other", token)
        assert found == Caller(scopes=frozenset({"read"}), names=())
    assert caller("read:old,read:new", "ol") is None
    assert caller("read:old,read:new", "") is None


@pytest.mark.parametrize(
    ("scope", "may"),
    [("read", {"read"}), ("register", {"register"}), ("admin", {"read", "register", "admin"})],
)
def test_admin_may_everything_and_reading_and_registering_are_apart(scope: str, may: set[str]) -> None:
    found = caller(f"{scope}:t", "t")
    assert found is not None
    assert {one for one in ("read", "register", "admin") if found.may(one)} == may  # type: ignore[arg-type]


def test_the_entries_of_one_token_add_up() -> None:
    found = caller("read:t,register:t:team-a-*,register:t:shared,read:u", "t")
    assert found is not None
    assert found.scopes == {"read", "register"}
    names = ("team-a-x", "shared", "team-b-x", "TEAM-A-X")
    assert [name for name in names if found.may_name(name)] == ["team-a-x", "shared"]
    wider = caller("register:t:team-a-*,admin:t", "t")
    assert wider is not None
    assert wider.may_name("team-b-x")


def test_a_pattern_is_all_that_follows_the_second_colon() -> None:
    found = caller("register:t:urn:team-[ab]:*", "t")
    assert found is not None
    assert [found.may_name(name) for name in ("urn:team-a:x", "urn:team-c:x")] == [True, False]


def test_a_file_holds_an_entry_a_line_with_comments_and_stands_beside_others(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("\ufeff# ours, until May\nread:r1\n\n  register:w1:team-a-*\r\nread:r2, read:r3", encoding="utf-8")
    tokens = read_tokens(f"admin:a1,file:{file}")
    assert tokens is not None
    assert [grant.scope for grant in tokens.grants] == ["admin", "read", "register", "read", "read"]
    assert tokens.caller("w1") == Caller(scopes=frozenset({"register"}), names=("team-a-*",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",", "holds no token"),
        ("hush", "entry 1 must begin with read:, register: or admin:"),
        ("read:ok,hush:read", "entry 2 must begin with"),
        ("READ:hush", "entry 1 must begin with"),
        ("read:", "entry 1 has no token"),
        ("register::hush-*", "entry 1 has no token"),
        ("read:hush hush", "a character that no header takes"),
        ("read:hushé", "a character that no header takes"),
        ("read:ok:hush", "entry 1 goes on after its token"),
        ("register:hush:", "entry 1 ends with a colon"),
        ("register:hush: ", "entry 1 ends with a colon"),
        ("file:/nowhere/tokens", "/nowhere/tokens, which cannot be read: No such file"),
        ("file:/hush\0", "a file that is no text"),
    ],
)
def test_a_wrong_entry_is_told_by_its_number_and_without_its_text(text: str, words: str) -> None:
    found = refused(text)
    assert words in found
    assert "hush" not in found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no token"),
        (b"# read:hush\n", "holds no token"),
        (b"read:ok\nhush", "entry 2 of"),
        (b"file:/hush", "entry 1 of"),
        (b"\xff\xfehush", "no text in UTF-8"),
    ],
)
def test_a_wrong_file_is_told_without_its_text(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(content)
    found = refused(f"file:{file}")
    assert words in found
    assert "hush" not in found


def test_nothing_that_is_kept_shows_a_token() -> None:
    tokens = read_tokens("read:t0ps3cret,register:t0ps3cret:team-*")
    assert tokens is not None
    shown = repr(tokens) + repr(tokens.grants[0].digest) + repr(tokens.caller("t0ps3cret"))
    assert "t0ps3cret" not in shown
    assert "digest" not in repr(tokens)
