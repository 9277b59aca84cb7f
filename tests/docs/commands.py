"""Checks the commands of the pages with the real parsers and the files of the repository."""

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

# Tools of the reader's machine: only the files that they name are checked.
SYSTEM_TOOLS = {"cat", "cd", "chmod", "curl", "export", "git", "python", "sqlite3", "."}


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each command, without comments and leading variables; `a && b | c &` are three commands."""
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


def problem_with(words: list[str]) -> str | None:
    """The problem with a command, or None."""
    program, *arguments = words
    if program == "myagent" and arguments[:1] != ["discovery"]:
        return _usage_error(arguments)
    if program in {"myagent", "myagent-discovery"}:
        arguments = arguments[1:] if program == "myagent" else arguments
        is_command = bool(arguments) and arguments[0] in registry_commands.COMMANDS
        return _argparse_error(registry_commands._parser() if is_command else registry._parser(), arguments)
    if program == "pip":
        return _unknown_extras(" ".join(arguments))
    if program == "docker":
        return _missing_files(arguments)
    if "/" in program:
        return None if (ROOT / program).is_file() or program == "./billing" else f"{program} does not exist"
    return None if program in SYSTEM_TOOLS else f"{program} is not a known command"


def _usage_error(arguments: list[str]) -> str | None:
    """The usage error that `myagent` reports; nothing is run."""
    group = typer.main.get_command(app)
    names = [word for word in arguments[:1] if not word.startswith("-")]
    command = group.commands.get(names[0]) if names else group
    if command is None:
        return f"myagent {names[0]} does not exist"
    try:
        command.make_context(names[0] if names else "myagent", arguments[len(names) :])
    except typer.Exit:
        return None
    except typer.TyperException as error:
        return f"myagent {' '.join(arguments)}: {error.format_message()}"
    return None


def _argparse_error(parser: argparse.ArgumentParser, arguments: list[str]) -> str | None:
    try:
        parser.parse_args(arguments)
    except SystemExit as error:
        return None if error.code == 0 else f"{parser.prog} does not accept {' '.join(arguments)}"
    return None


def _unknown_extras(arguments: str) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for group in re.findall(r"myagent\[([\w,]+)\]", arguments) for extra in group.split(",")}
    unknown = named - set(project["optional-dependencies"])
    return f"unknown extras: {', '.join(sorted(unknown))}" if unknown else None


def _missing_files(arguments: list[str]) -> str | None:
    named = [arguments[place + 1] for place, word in enumerate(arguments) if word == "-f"]
    named += [word.partition("=")[2] for word in arguments if word.startswith("AGENT=")]
    missing = [name for name in named if not (ROOT / name).exists()]
    return f"{missing[0]} does not exist" if missing else None
