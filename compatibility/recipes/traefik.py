"""Traefik without the parts that are not among the modules of Go."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

from compatibility.recipe import run
from compatibility.recipes.go import Go

TRAEFIK, LEGO = "github.com/traefik/traefik/v3", "github.com/go-acme/lego/v5"
FORKS = "github.com/containous"
# Traefik's page, a module with two empty types, and the providers of DNS challenges.
LEFT_OUT = {
    "traefik/webui/static/index.html": "",
    "ext/go.mod": "module github.com/traefik/traefik/dynamic/ext\n",
    "ext/ext.go": "package ext\n\ntype HTTP struct{}\n\ntype Router struct{}\n",
    "lego/providers/dns/zz_gen_dns_providers.go": f"""package dns

import "{LEGO}/challenge"

func NewDNSChallengeProviderByName(string) (challenge.Provider, error) {{ panic("left out") }}
""",
}
# Traefik needs its own forks of two modules, of one the newest that can be had.
REPLACED = {
    TRAEFIK: "./traefik",
    LEGO: "./lego",
    "github.com/traefik/traefik/dynamic/ext": "./ext",
    "github.com/gorilla/mux": f"{FORKS}/mux@v0.0.0-20250523120546-41b6ec3aed59",
    "github.com/abbot/go-http-auth": f"{FORKS}/go-http-auth@v0.4.1-0.20200324110947-a37a7636d23e",
}


@dataclass(frozen=True)
class Traefik(Go):
    """Builds Traefik of the `modules`, which are Traefik's own and that of its ACME client."""

    def prepare(self, source: Path) -> None:
        for module, name in zip(self.modules, ("traefik", "lego"), strict=True):
            found = json.loads(run(["go", "mod", "download", "-json", module], source))
            copytree(found["Dir"], source / name)
            run(["chmod", "-R", "u+w", name], source)
        for path, text in LEFT_OUT.items():
            (source / path).parent.mkdir(exist_ok=True)
            (source / path).write_text(text)
        replaced = [f"-replace={module}={other}" for module, other in REPLACED.items()]
        run(["go", "mod", "edit", *replaced], source)
