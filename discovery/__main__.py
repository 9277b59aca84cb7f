"""The command `myagent-discovery`: reads options and environment, binds the port, and serves until it is stopped."""

import argparse
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from discovery import cli as commands
from discovery.app import create_app
from discovery.cli import COMMANDS
from discovery.registry import Watch
from discovery.settings import Settings, SettingsError, version
from infrastructure.heads import bounded_heads

SHUTDOWN_SECONDS = 5
# Longer than the pause between two heartbeats, and than the 55 s after which our client closes an idle connection.
KEEP_ALIVE_SECONDS = 75
MIN_OPEN_FILES = 4096
EPILOG = """\
commands, each with a --help of its own; without one, the registry runs:
  export [FILE]               write the table and its history as lines of JSON
  import [FILE]               fill an empty registry from such lines
  migrate --from URL --to URL move a registry to another database

environment:
  DISCOVERY_HOST, DISCOVERY_PORT      what to listen on
  DISCOVERY_DATABASE_URL              where the table is kept
  DISCOVERY_TOKENS                    scope:token, comma separated, where scope is read, register or admin (both and
                                      more); register:token:team-a-* takes such names only. file:/run/secrets/tokens
                                      reads them from a file, one a line. Entries of one token add up: read:t,register:t
                                      Open to all: the portal's page, /livez, /readyz. Read once, at the start.
  DISCOVERY_ALLOW_ANONYMOUS=1         without tokens: listen on more than loopback although anyone there may change
                                      the registry
  DISCOVERY_TLS_CERTIFICATE, …_KEY    files in PEM format: serve HTTPS only (…_KEY_PASSWORD where the key
                                      is encrypted)
  DISCOVERY_TLS_CLIENT_CA             require client certificates issued by these authorities
  DISCOVERY_CORS_ORIGINS              origins of portals on other hosts, comma separated
  DISCOVERY_PROBE=on                  call every endpoint now and then, and show whether it answers, and whether in
                                      the protocols it says: an agent card that parses, MCP. Off by default. Sends no
                                      token, follows no redirect, never calls link-local, metadata or multicast
                                      addresses, nor this machine's own unless the registry listens on no others
  DISCOVERY_PROBE_SECONDS             how often (30)
  DISCOVERY_PROBE_ALLOW               call these only: hosts, addresses and networks, comma separated, like
                                      *.agents.example,10.0.0.0/8
  DISCOVERY_ARD=0                     switch the Agentic Resource Discovery API off: /ard and /.well-known/ard.json
  DISCOVERY_DOMAIN                    the domain of the ARD identifiers, urn:air:DOMAIN:a2a:NAME (myagent.internal)

An agent finds the registry by `discovery.url` in its file or by MYAGENT_DISCOVERY_URL, and sends `discovery.token`: a
register token, which reads nothing; one that also has read where the agent asks other agents.
"""

logger = logging.getLogger("discovery")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the registry until SIGINT or SIGTERM, or one of the commands.

    Returns the exit status: 2 for invalid settings, 1 for a port that cannot be used.
    """
    given = sys.argv[1:] if argv is None else argv
    if given and given[0] in COMMANDS:
        return commands.run(given)
    arguments = _parser().parse_args(given)
    try:
        settings = Settings.from_environment(
            host=arguments.host,
            port=arguments.port,
            database_url=arguments.database_url,
            tls_certificate=arguments.tls_certificate,
            tls_key=arguments.tls_key,
            tls_client_ca=arguments.tls_client_ca,
        )
    except SettingsError as error:
        print(*(f"myagent-discovery: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if arguments.log_level != "debug":
        for name in ("uvicorn", "httpx", "mcp"):  # they log every request, also those of the probe and of find_agent
            logging.getLogger(name).setLevel(logging.WARNING)
    _raise_open_file_limit()
    try:
        listener = _bind(settings.host, settings.port)
    except OSError as error:
        print(f"myagent-discovery: {_bind_error(settings, error)}", file=sys.stderr)
        return 1
    server = _Server(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,  # an open stream would keep the process running
        **bounded_heads(),
        **(settings.tls.options if settings.tls else {}),
    )
    with listener:
        # uvicorn handles signals while it runs, and raises them again after its shutdown: the exit status is still 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, server.stop)
        server.run(sockets=[listener])
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, **options))
        self._watch = cast("Watch", app.state.watch)

    def stop(self, *_: object) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._watch.close()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Loaded modules are excluded from garbage collection: its full passes block the loop for tenths of a second.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
            scheme = "https" if self.config.is_ssl else "http"
            print(f"Portal and registry: {scheme}://{shown}:{port}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="myagent-discovery",
        description="The registry of deployed agents: which there are, where, and in which state.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (9000)")
    parser.add_argument(
        "--database-url",
        help="sqlite:///registry.db, postgresql://host/database for several registries, memory:// for no storage",
    )
    parser.add_argument("--tls-certificate", metavar="FILE", help="serve HTTPS with this certificate")
    parser.add_argument("--tls-key", metavar="FILE", help="the private key of the certificate")
    parser.add_argument("--tls-client-ca", metavar="FILE", help="require client certificates of these authorities")
    levels = ["debug", "info", "warning", "error"]
    parser.add_argument("--log-level", choices=levels, default="info", help="how much to log (info)")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    return parser


def _raise_open_file_limit() -> None:
    """Raise the soft limit to the hard limit: every agent keeps a connection open between its heartbeats."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS refuses an unlimited soft limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < MIN_OPEN_FILES:
        logger.warning(
            "the limit of open files is %d, and each agent keeps a connection open: raise it (ulimit -Hn) above the "
            "number of agents",
            limit,
        )


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _bind_error(settings: Settings, error: OSError) -> str:
    where = f"{settings.host}:{settings.port}"
    match error:
        case socket.gaierror():
            return f"{settings.host} is not a host name or address of this machine: choose another with --host."
        case PermissionError():
            return f"{where} needs more rights than this user has: choose a port over 1023 with --port."
        case _ if "in use" in str(error):
            return f"{where} is in use, perhaps by another registry: stop it, or choose another port with --port."
        case _:
            return f"cannot listen on {where}: {error.strerror or error}."


if __name__ == "__main__":
    sys.exit(main())
