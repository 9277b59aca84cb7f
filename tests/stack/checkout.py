"""A fresh clone of this repository with what is not committed yet: what a newcomer would have."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, timeout: float = 600) -> str:
    """Run a command and return its output; its failure fails the test with the end of what it said."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def fresh_clone(folder: Path) -> Path:
    """Clone the repository into a folder and lay the working tree over it."""
    clone = folder / "myagent"
    run("git", "clone", "--quiet", ROOT, clone, cwd=folder)
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, clone / name
        if not source.exists():
            target.unlink(missing_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    return clone
