"""Commands of the pages against what would read them: the real parsers, the files of the repository."""

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator

import typer

from agent_runtime.cli.main import app
from discovery import __main__ as registry
from discovery import cli as registry_commands
from tests.docs.pages import ROOT

# Tools of the reader's own machine. What they do is not ours to check, beyond the files that they name.
THEIRS = {"cat", "cd", "chmod", "curl", "export", "git", "python", "sqlite3", "."}


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each command: without comments and variables in front, one for each part of `a && b | c &`."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                if words:
                    yield words
                words = []
            elif words or not re.match(r"\w+=", word):
                words.append(word)


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command, if anything."""
    program, *arguments = words
    if program == "myagent" and arguments[:1] != ["discovery"]:
        return _refused(arguments)
    if program in {"myagent", "myagent-discovery"}:
        arguments = arguments[1:] if program == "myagent" else arguments
        is_command = bool(arguments) and arguments[0] in registry_commands.COMMANDS
        return _parsed(registry_commands._parser() if is_command else registry._parser(), arguments)
    if program == "pip":
        return _unknown_extras(" ".join(arguments))
    if program == "docker":
        return _missing_files(arguments)
    if "/" in program:
        return None if (ROOT / program).is_file() or program == "./billing" else f"there is no {program}"
    return None if program in THEIRS else f"nobody knows {program}"


def _refused(arguments: list[str]) -> str | None:
    """What `myagent` does not accept; nothing is run."""
    group = typer.main.get_command(app)
    names = [word for word in arguments[:1] if not word.startswith("-")]
    command = group.commands.get(names[0]) if names else group
    if command is None:
        return f"there is no myagent {names[0]}"
    try:
        command.make_context(names[0] if names else "myagent", arguments[len(names) :])
    except typer.Exit:
        return None
    except typer.TyperException as error:
        return f"myagent {' '.join(arguments)}: {error.format_message()}"
    return None


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> str | None:
    try:
        parser.parse_args(arguments)
    except SystemExit as error:
        return None if error.code == 0 else f"{parser.prog} does not take {' '.join(arguments)}"
    return None


def _unknown_extras(arguments: str) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for group in re.findall(r"myagent\[([\w,]+)\]", arguments) for extra in group.split(",")}
    unknown = named - set(project["optional-dependencies"])
    return f"there are no extras {', '.join(sorted(unknown))}" if unknown else None


def _missing_files(arguments: list[str]) -> str | None:
    named = [arguments[place + 1] for place, word in enumerate(arguments) if word == "-f"]
    named += [word.partition("=")[2] for word in arguments if word.startswith("AGENT=")]
    missing = [name for name in named if not (ROOT / name).exists()]
    return f"there is no {missing[0]}" if missing else None
