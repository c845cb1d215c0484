"""A real Prometheus scrapes an agent on a real engine."""

from __future__ import annotations

from collections.abc import Callable

from support.agent import Agent
from support.engine import Dockerd
from support.prometheus import Prometheus
from support.servers import Consul

Watched = Callable[..., Agent]


def test_it_sees_services_come_and_a_registry_go(
    clean_engine: Dockerd, consul: Consul, watched: Watched, prometheus: Prometheus
) -> None:
    watched(f"consul://{consul.address}")
    clean_engine.api.run("web", publish_all=True)
    clean_engine.api.run("hidden")
    prometheus.wait('registrator_registry_entries{state="registered"}', 1)
    prometheus.wait('registrator_ports{outcome="not_published"}', 1)
    prometheus.wait('registrator_containers{state="running"}', 2)
    prometheus.wait('registrator_engine_events_total{action="start"}', 2)
    prometheus.wait('registrator_registry_writes_total{operation="register",cause="change"}', 1)
    prometheus.wait("registrator_event_to_visible_seconds_count", 1)
    prometheus.wait("up", 1)
    consul.stop()
    clean_engine.api.run("late", publish_all=True)
    prometheus.wait("registrator_registry_up", 0)
    prometheus.wait("registrator_registry_divergence_seconds > bool 0", 1)
    prometheus.wait('registrator_registry_entries{state="pending"}', 1)
    consul.start()
    prometheus.wait("registrator_registry_up", 1)
    prometheus.wait("registrator_registry_divergence_seconds", 0)
    prometheus.wait("registrator_event_to_visible_seconds_count", 2)
