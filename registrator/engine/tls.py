"""TLS to an engine, which asks no more of certificates than the Docker CLI does."""

import ssl
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.util import ssl_


class _Connection(HTTPSConnection):
    """Accepts certificates without key identifiers, as many private authorities make them.

    urllib3's own context refuses them with Python 3.13 and newer.
    """

    def connect(self) -> None:
        context = ssl_.create_urllib3_context(cert_reqs=ssl_.resolve_cert_reqs(self.cert_reqs))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self.ssl_context = context
        super().connect()


class _Pool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Connection


class Adapter(HTTPAdapter):
    """The transport of `requests` for ``https://``. It reads the files at each connection."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools, those over TLS with our connections."""
        super().init_poolmanager(*args, **options)
        pools = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {**pools, "https": _Pool}
