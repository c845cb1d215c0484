"""The mark of the ACL token on which a registration depends.

Consul keeps the token with a registration and syncs with it. After the token was revoked, Consul
syncs neither the service nor the status of its checks. So what depends on another token than the
one in use is registered again.
"""

import hashlib

from .api import Api
from .errors import Leaderless
from .settings import Token


class TokenMark:
    """`value` is a hash of the accessor id, which is no secret.

    It is empty without a token and without ACLs. It is None while it is not known.
    """

    def __init__(self, token: Token) -> None:
        self.value: str | None = None
        self._token = token
        self._secret: str | None = None

    def forget(self) -> None:
        """Ask again: another Consul agent may have other ACLs."""
        self.value = None

    def changed(self) -> bool:
        """Whether the token has changed since its mark was read."""
        return self.value is not None and self._token.value != self._secret

    def read(self, api: Api) -> None:
        """Find out the mark of the token in use. This takes one request for each token.

        A Consul agent without its servers may not know. The mark then stays unknown.
        """
        if self.value is not None and not self.changed():
            return
        self.value = None
        try:
            accessor = api.accessor_id() if self._token.value else ""
        except Leaderless:
            return
        # Only now: the request reads the token's file again if Consul refuses the token.
        self._secret = self._token.value
        self.value = hashlib.sha256(accessor.encode()).hexdigest()[:16] if accessor else ""
