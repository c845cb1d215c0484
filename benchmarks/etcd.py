"""etcd as the benchmarks use it, with keys or with DNS records."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support import etcd as etcdctl
from support.servers import Etcd

from benchmarks.agents import Host
from benchmarks.registry import BASE, NAME, Registry

DOMAIN = "bench.local"


class EtcdRegistry(Registry):
    scheme = "etcd"
    prefix = BASE

    def __init__(self, folder: Path) -> None:
        self.server = self.etcd = Etcd(folder)

    @property
    def address(self) -> str:
        return self.etcd.address

    @functools.cached_property
    def rpc(self) -> tuple[Any, Any]:
        """The modules for a channel and for messages. The backend has them."""
        from registrator.backends.etcd import rpc as etcd_grpc

        return etcd_grpc.grpc, etcd_grpc.etcdrpc

    def call(self, method: str, requests: Sequence[bytes], at_once: int = 1) -> list[bytes]:
        """Send serialized requests, `at_once` at a time. Notes how long it `took`."""
        channel = self.rpc[0].insecure_channel(self.etcd.address)
        self.rpc[0].channel_ready_future(channel).result(timeout=60)
        call = channel.unary_unary(f"/etcdserverpb.{method}")
        answers: list[bytes] = []
        began = time.perf_counter()
        for first in range(0, len(requests), at_once):
            sent = [call.future(each, timeout=60) for each in requests[first : first + at_once]]
            answers += [each.result() for each in sent]
        self.took = time.perf_counter() - began
        channel.close()
        return answers

    def _places(self, host: Host | None) -> dict[str, bytes]:
        start = f"{self.prefix}/{NAME}/{self.start_of(host)}".encode()
        return {"key": start, "range_end": start[:-1] + bytes([start[-1] + 1])}

    def clear(self, host: Host) -> None:
        asked = self.rpc[1].DeleteRangeRequest(**self._places(host))
        self.call("KV/DeleteRange", [asked.SerializeToString()])

    def count(self, host: Host | None = None) -> int:
        asked = self.rpc[1].RangeRequest(count_only=True, **self._places(host))
        (answer,) = self.call("KV/Range", [asked.SerializeToString()])
        return int(self.rpc[1].RangeResponse.FromString(answer).count)

    def requests(self) -> int:
        shown = etcdctl.metrics(self.etcd)
        found = re.findall(r"^grpc_server_msg_received_total{.*} (\S+)", shown, re.M)
        return int(sum(map(float, found)))

    def floor(self, n: int) -> float:
        """Transactions as large as the agent's, one after the other."""
        self.reset()
        rpc = self.rpc[1]
        requests = []
        for first in range(0, n, 128):
            puts = [
                rpc.PutRequest(
                    key=f"{BASE}/{NAME}/floor:bench-{number}:80".encode(),
                    value=f"192.0.2.1:{10000 + number}".encode(),
                )
                for number in range(first, min(n, first + 128))
            ]
            txn = rpc.TxnRequest(success=[rpc.RequestOp(request_put=put) for put in puts])
            requests.append(txn.SerializeToString())
        self.call("KV/Txn", requests)
        return self.took


class SkyDNSRegistry(EtcdRegistry):
    """DNS records in etcd."""

    scheme = "skydns2"
    path = f"/{DOMAIN}"
    prefix = "/".join(["/skydns", *reversed(DOMAIN.split("."))])

    @staticmethod
    def start_of(host: Host | None) -> str:
        return f"{host.name}-" if host else ""
