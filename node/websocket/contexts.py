"""TLS for WebSockets, by the standard library: our certificate as listener, whom to trust as dialler.

A certificate is read again when its file has changed, so that one that is renewed needs no new start; one that can't be
read then leaves the last one in place.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from node.log import get_logger

# a WebSocket begins as HTTP
_ALPN = ["http/1.1"]

log = get_logger("websocket")


class Contexts:
    """`certificate` and `key` are PEM files, the second the first unless named; so is `roots`. Without `check` every
    certificate is taken: the road is nobody's then, and only the peer's proof within counts."""

    def __init__(
        self,
        certificate: Path | None = None,
        key: Path | None = None,
        roots: Path | None = None,
        *,
        check: bool = True,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._roots = roots
        self._check = check
        self._server: ssl.SSLContext | None = None
        self._read_at: tuple[int, ...] = ()
        self._client: ssl.SSLContext | None = None

    def client(self) -> ssl.SSLContext:
        """For dialling: certificate and name are checked. Raises OSError for roots that can't be read."""
        if self._client is None:
            context = ssl.create_default_context(cafile=self._roots)
            if not self._check:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(_ALPN)
            self._client = context
        return self._client

    def server(self) -> ssl.SSLContext:
        """For listening. Raises ValueError without a certificate, OSError for one that can't be read the first time."""
        if self._certificate is None:
            raise ValueError("expected a certificate (wss_certificate), got none")
        try:
            files = [file for file in (self._certificate, self._key) if file is not None]
            changed = tuple(file.stat().st_mtime_ns for file in files)
            if changed != self._read_at:
                context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(self._certificate, self._key)
                context.set_alpn_protocols(_ALPN)
                self._server, self._read_at = context, changed
        except OSError as error:
            if self._server is None:
                raise OSError(
                    f"{self._certificate}: expected a certificate and its key in PEM, got: {error}"
                ) from error
            log.warning("certificate_not_read", file=str(self._certificate), error=str(error))
        assert self._server is not None
        return self._server
