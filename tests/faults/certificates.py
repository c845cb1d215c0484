"""The certificates of a campaign: they end, and somebody puts new ones in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from support.certificates import DAY, Authority
from support.tls_proxy import TLSProxy

SHORT = timedelta(seconds=1)


class Certificates:
    """Those that the agent's files hold, and those that the proxies show."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority")
        self.folder = folder
        self._renew_files(DAY)

    def environ(self, authority: str, certificate: str, key: str) -> dict[str, str]:
        """The agent's variables of these names."""
        files = self.authority.ca, self.folder / "agent.pem", self.folder / "agent-key.pem"
        return dict(zip((authority, certificate, key), map(str, files), strict=True))

    def renew(self, proxies: Iterable[TLSProxy], lasts: timedelta = DAY) -> None:
        """Replace all of them, and ask for new handshakes. Those before count as ended."""
        serial = self._renew_files(lasts)
        for proxy in proxies:
            proxy.renew(lasts)
            proxy.serial = serial
            proxy.cut()

    def _renew_files(self, lasts: timedelta) -> int:
        """Replace the agent's. Returns the number of the new certificate."""
        issued: Sequence[Path] = self.authority.issue("new", lasts=lasts)
        serial = x509.load_pem_x509_certificate(issued[0].read_bytes()).serial_number
        for path, name in zip(issued, ("agent.pem", "agent-key.pem"), strict=True):
            path.replace(self.folder / name)
        return serial
