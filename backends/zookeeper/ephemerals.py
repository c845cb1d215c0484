"""The request ``getEphemerals``: which nodes hang on the session that asks. Since ZooKeeper 3.6.

kazoo has no method for it, but it sends any request object.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from kazoo.client import KazooClient
from kazoo.protocol.serialization import int_struct, read_string, write_string


@dataclass(frozen=True)
class GetEphemerals:
    """The request, in the form of kazoo's own requests. The server asks for no right."""

    prefix: str
    type: ClassVar[int] = 103

    def serialize(self) -> bytes:
        """The request's body."""
        body: bytes = write_string(self.prefix)
        return body

    @classmethod
    def deserialize(cls, body: bytes, offset: int) -> list[str]:
        """The paths in an answer."""
        (size,) = int_struct.unpack_from(body, offset)
        offset += int_struct.size
        paths = []
        for _ in range(size):
            path, offset = read_string(body, offset)
            paths.append(path)
        return paths


def ephemerals(client: KazooClient, prefix: str) -> Any:
    """Ask for the nodes of the client's session whose paths begin with `prefix`."""
    answer = client.handler.async_result()
    client._call(GetEphemerals(prefix), answer)
    return answer
