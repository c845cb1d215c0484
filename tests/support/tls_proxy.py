"""A proxy whose clients may use TLS, in front of a server that knows none."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta

from support.certificates import DAY, Authority
from support.proxy import TCPProxy


class TLSProxy(TCPProxy):
    """A `TCPProxy` that also takes TLS, at `tls_address`, and asks there for a certificate.

    All that breaks the one breaks the other. With `serial`, it closes a connection whose client
    shows another certificate than this one, as if that had ended.
    """

    serial: int | None = None

    def __init__(self, upstream: str, ip: str, authority: Authority) -> None:
        super().__init__(upstream, ip)
        self._authority, self._ip = authority, ip
        self._name = f"proxy-{self.address.rpartition(':')[2]}"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_verify_locations(authority.ca)
        self._context.set_alpn_protocols(["h2"])  # gRPC insists on it
        self.renew()
        self.tls_address = self._listen(ip, ssl=self._context)

    def renew(self, lasts: timedelta = DAY) -> None:
        """Show a new certificate from the next handshake on."""
        self._call(self._show(lasts))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert")
        if shown and self.serial not in (None, int(shown["serialNumber"], 16)):
            writer.transport.abort()
            return
        await super()._serve(reader, writer)

    async def _show(self, lasts: timedelta) -> None:
        """In the thread of the handshakes, so that none sees a half of it."""
        cert, key = self._authority.issue(self._name, self._ip, lasts=lasts)
        self._context.load_cert_chain(cert, key)
