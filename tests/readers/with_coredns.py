"""CoreDNS with its etcd plugin. Its configuration is the example's."""

from __future__ import annotations

from pathlib import Path

from support.coredns import CoreDNS
from support.dns import ask, instances
from support.servers import Etcd
from support.wait import until

from readers.following import SERVICE, Reader, Scene

COREFILE = Path(__file__).resolve().parents[2] / "examples/etcd-coredns/Corefile"


class FromCoreDNS(Reader):
    """The SRV records of the service."""

    def __init__(self, coredns: CoreDNS) -> None:
        self._address = coredns.address
        self.programs = (coredns,)

    def addresses(self) -> set[str]:
        return instances(self._address, f"{SERVICE}.cluster.local")


def test_srv_records(scene: Scene, etcd: Etcd, tmp_path: Path) -> None:
    reader = FromCoreDNS(CoreDNS(tmp_path / "coredns", etcd, COREFILE.read_text()))
    scene.follow(reader, f"skydns2://{etcd.address}/cluster.local?dns-ttl=5")


def test_the_form_of_the_name(scene: Scene, etcd: Etcd, tmp_path: Path) -> None:
    """It has no labels for the protocol, unlike that of other SRV records."""
    coredns = CoreDNS(tmp_path / "coredns", etcd, COREFILE.read_text())
    reader = FromCoreDNS(coredns)
    scene.run(1, f"skydns2://{etcd.address}/cluster.local")
    try:
        reader.start()
        until(lambda: len(reader.addresses()) == 1, reader.tail, ignore=(OSError,))
        (record,) = ask(coredns.address, f"{SERVICE}.cluster.local", "A")
        assert record.data == (scene.engine.ip,)
        assert ask(coredns.address, f"_{SERVICE}._tcp.cluster.local", "SRV") == []
    finally:
        reader.stop()
