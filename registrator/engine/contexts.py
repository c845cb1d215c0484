"""Reads a context of the Docker CLI: where ``docker context create`` says that an engine is.

The SDK looks for contexts only beside a ``config.json``. But the CLI writes no such file if nothing
else is configured, so the agent reads contexts itself.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker.tls import TLSConfig


def context_arguments(environ: Mapping[str, str], name: str) -> dict[str, Any]:
    """Address and TLS of the context, for `docker.APIClient`.

    Raises `FileNotFoundError` if no context has this name, and `RuntimeError` if there is no home
    folder. Raises `OSError`, `ValueError`, `KeyError` or `TypeError` if its files differ from what
    the CLI writes.
    """
    config = environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser()
    contexts = Path(config, "contexts")
    folder = hashlib.sha256(name.encode()).hexdigest()
    meta = json.loads((contexts / "meta" / folder / "meta.json").read_text())
    endpoint = meta["Endpoints"]["docker"]
    found: dict[str, Any] = {"base_url": str(endpoint["Host"]), "tls": False}
    tls = contexts / "tls" / folder / "docker"
    if tls.is_dir():
        ca, cert, key = (str(tls / f"{each}.pem") for each in ("ca", "cert", "key"))
        has_cert = Path(cert).exists()
        skip = bool(endpoint.get("SkipTLSVerify"))
        found["tls"] = TLSConfig(
            client_cert=(cert, key) if has_cert else None,
            ca_cert=ca if Path(ca).exists() and not skip else None,
            verify=not skip,
        )
    return found
