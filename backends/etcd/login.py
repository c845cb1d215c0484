"""The login of one user to an etcd cluster, for all connections to it.

A login costs the member 50 to 80 ms of processor time, because bcrypt is slow on purpose. So a
token serves every connection until a server refuses it, or does not answer in time. Every member
accepts it: a simple token goes through the cluster's log, and a JWT carries a signature. A member
forgets a simple token that it has not seen for ``--auth-token-ttl`` (5 minutes by default).
"""

from typing import Any

from registrator.backend import ConfigError, Context, Unavailable

from . import rpc
from .rpc import etcdrpc, grpc
from .settings import credentials

AUTHENTICATE = rpc.unary("Auth", "Authenticate")

# With this, a member without a leader answers at once instead of waiting for one.
_REQUIRE_LEADER: tuple[tuple[str, str], ...] = (("hasleader", "true"),)


class Login:
    """The token of the user that the URI or the environment names, if they name one."""

    def __init__(self, context: Context) -> None:
        """Read the credentials. Raises `ConfigError`."""
        self._context = context
        self._user = credentials(context)[0]
        self._token = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The pairs that go with every request."""
        return (*_REQUIRE_LEADER, ("token", self._token)) if self._token else _REQUIRE_LEADER

    def ensure(self, channel: Any, timeout: float) -> None:
        """Get a token, unless there is one. The first call that needs a better one will tell."""
        if not self._token:
            self.renew(channel, timeout)

    def wanted(self, error: grpc.RpcError) -> bool:
        """Whether a new token may help a call that failed."""
        return bool(self._user) and rpc.wants_login(error)

    def forget(self) -> None:
        """Log in anew before the next call, because a server did not answer in time.

        A simple token names a place in the cluster's log, and a server waits until it is there. A
        cluster that was wiped starts its log again, so it would wait for a very long time.
        """
        self._token = ""

    def renew(self, channel: Any, timeout: float) -> None:
        """Get a new token. This reads the password again, because its file may have changed."""
        try:
            user, password = credentials(self._context)
        except ConfigError as error:
            raise Unavailable(str(error)) from None
        if not user:
            self._token = ""
            return
        request = etcdrpc.AuthenticateRequest(name=user, password=password)
        try:
            answer = AUTHENTICATE(channel, request, timeout=timeout, metadata=_REQUIRE_LEADER)
        except grpc.RpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                self._token = ""
                return
            if rpc.refuses(error):
                raise Unavailable(f"etcd refuses user {user!r}: {error.details()}") from None
            raise
        self._token = answer.token
