"""Finds the engine's address and TLS settings, from the variables that the Docker CLI reads."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker

from registrator.engine.contexts import context_arguments
from registrator.model import EngineUnavailable

SOCKETS = (Path("/var/run/docker.sock"), Path("/tmp/docker.sock"))


class WrongVariables(EngineUnavailable):
    """A variable for the engine's address is wrong. The text has no value: it may be a secret."""


def client_arguments(environ: Mapping[str, str]) -> dict[str, Any]:
    """The arguments for `docker.APIClient`, from the variables that the Docker CLI reads.

    Raises `WrongVariables`.
    """
    try:
        found: dict[str, Any] = docker.utils.kwargs_from_env(environment=dict(environ))
    except docker.errors.DockerException as error:
        raise WrongVariables(
            "put ca.pem, cert.pem and key.pem into DOCKER_CERT_PATH (~/.docker by default)"
        ) from error
    found["version"] = environ.get("DOCKER_API_VERSION") or "auto"
    if not re.fullmatch(r"auto|[0-9]+\.[0-9]+", found["version"]):
        raise WrongVariables("DOCKER_API_VERSION must be a version such as 1.44, or auto")
    if "base_url" not in found and environ.get("DOCKER_CONTEXT") not in (None, "", "default"):
        found |= _context(environ)
    if "base_url" not in found:
        present = [path for path in SOCKETS if path.exists()]
        found["base_url"] = f"unix://{(present or SOCKETS)[0]}"
    # The CLI's default port, also with TLS.
    if re.fullmatch(r"tcp://([^:/@]+|\[[^]/@]+\])/?", found["base_url"]):
        found["base_url"] = found["base_url"].rstrip("/") + ":2375"
    _check_address(found["base_url"])
    return found


def _context(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        return context_arguments(environ, environ["DOCKER_CONTEXT"])
    except FileNotFoundError as error:
        raise WrongVariables(
            "DOCKER_CONTEXT: no context has this name; `docker context ls` lists them"
        ) from error
    except RuntimeError as error:
        raise WrongVariables(
            "DOCKER_CONTEXT needs HOME or DOCKER_CONFIG: the contexts are in a folder there"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, docker.errors.DockerException) as error:
        raise WrongVariables("DOCKER_CONTEXT: the files of this context cannot be read") from error


def _check_address(address: str) -> None:
    try:
        read = docker.utils.parse_host(address)
    except (docker.errors.DockerException, ValueError):
        read = ""
    if not re.match(r"http\+unix://|https?://[^@]*$", read):
        raise WrongVariables(
            "DOCKER_HOST, or its context's host, must be unix:///path or tcp://host:port"
        )
