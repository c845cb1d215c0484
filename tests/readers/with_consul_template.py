"""consul-template, which writes the upstream of an nginx. Its template is the example's."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from support.process import Process
from support.servers import Consul, free_ports, program
from support.wait import until

from readers.following import Reader, Scene

TEMPLATE = Path(__file__).resolve().parents[2] / "examples/nginx-upstream/upstream.ctmpl"
NGINX = """\
daemon off;
user nobody nogroup;
pid nginx.pid;
error_log stderr notice;
events {}
http {
    access_log off;
    include rendered/*.conf;
}
"""
# It tests the configuration first.
RELOAD = "nginx -p {folder} -c nginx.conf -s reload"


class Nginx(Process):
    """An nginx without an upstream, until consul-template has written one."""

    def __init__(self, folder: Path) -> None:
        binary = program("nginx", package="nginx")
        super().__init__("nginx", folder, [binary, "-p", str(folder), "-c", "nginx.conf"])
        (folder / "nginx.conf").write_text(NGINX)
        (folder / "rendered").mkdir()
        self.rendered = folder / "rendered/web.conf"
        (self.port,) = free_ports("127.0.0.1", 1)

    @property
    def reloads(self) -> int:
        """How often it has read its configuration again."""
        return self.log.count("reconfiguring")

    def answer(self) -> str:
        """The answer of an instance through it. Raises `OSError` if none answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=60) as answer:
            return str(answer.read().decode()).strip()


class ConsulTemplate(Reader):
    """Shows which instances answer to requests at nginx."""

    # The former workers of nginx may take connections beside the new ones for a moment.
    steady = 1.0

    def __init__(self, folder: Path, consul: Consul, template: str) -> None:
        self.nginx = Nginx(folder / "nginx")
        source = folder / "upstream.ctmpl"
        source.write_text(template.replace("listen 8080", f"listen 127.0.0.1:{self.nginx.port}"))
        reload = RELOAD.format(folder=self.nginx.folder)
        command = [
            program("consul-template", package="make compatibility"),
            f"-consul-addr={consul.address}",
            f"-template={source}:{self.nginx.rendered}:{reload}",
        ]
        self.programs = (self.nginx, Process("consul-template", folder, command))

    def start(self) -> None:
        """Start nginx first: its reload fails before it has written its process id."""
        nginx, consul_template = self.programs
        nginx.launch()
        until((nginx.folder / "nginx.pid").exists, nginx.tail)
        consul_template.launch()

    def addresses(self) -> set[str]:
        try:
            # It takes one instance after the other.
            return {self.nginx.answer() for _ in range(6)}
        except urllib.error.HTTPError as error:
            if error.code != 502:
                raise
            return set()


def test_nginx_is_reloaded(scene: Scene, consul: Consul, tmp_path: Path) -> None:
    reader = ConsulTemplate(tmp_path / "reader", consul, TEMPLATE.read_text())
    scene.follow(reader, f"consul://{consul.address}")
    # Nginx could do without the last one: it leaves out an instance that does not answer.
    assert reader.nginx.reloads >= 6
    rendered = set(re.findall(r"^ *server (.*);$", reader.nginx.rendered.read_text(), re.M))
    assert rendered == scene.addresses


def test_the_usual_template_needs_an_instance(scene: Scene, consul: Consul, tmp_path: Path) -> None:
    """The example's template has a line for no instance, which most templates lack."""
    usual, removed = re.subn(
        r"\{\{- else \}\}.*?(?=\{\{- end)", "", TEMPLATE.read_text(), flags=re.S
    )
    assert removed == 1
    reader = ConsulTemplate(tmp_path / "reader", consul, usual)
    consul_template = reader.programs[1]
    try:
        reader.start()
        assert consul_template.exited() != 0
        assert "no servers are inside upstream" in consul_template.log
    finally:
        reader.stop()
