"""Certificates for tests: an authority, what it has signed, and an authority that nobody trusts."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as files."""

    certificate: str
    key: str


class Authority:
    """Signs certificates, and keeps everything as files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, name: str = "localhost", *more: str) -> Pair:
        """A certificate for these names; for a server on loopback, and for a client."""
        issued = self._ca.issue_cert(name, "127.0.0.1", *more)
        pair = Pair(str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key"))
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(pair.certificate, append=number > 0)
        issued.private_key_pem.write_to_path(pair.key)
        return pair

    def client(self, shown: Pair | None = None) -> ssl.SSLContext:
        """What a client trusts, and what it shows if anything."""
        context = ssl.create_default_context(cafile=self.ca)
        if shown:
            context.load_cert_chain(shown.certificate, shown.key)
        return context


def options(pair: Pair, client_ca: str | None = None) -> dict[str, Any]:
    """How `tests.serving.serve` answers over https."""
    asked = {"ssl_ca_certs": client_ca, "ssl_cert_reqs": ssl.CERT_REQUIRED} if client_ca else {}
    return {"ssl_certfile": pair.certificate, "ssl_keyfile": pair.key, **asked}
