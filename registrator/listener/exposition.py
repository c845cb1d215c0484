"""The metrics as Prometheus' text: the only module that needs `prometheus_client`."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from registrator.status.board import Board
from registrator.status.instruments import Histogram
from registrator.status.metrics import COUNTER, HISTOGRAM, METRICS, PREFIX, Values, measured
from registrator.status.metrics import Metric as Known

KIND = "text/plain; version=0.0.4; charset=utf-8"


class Exposition(Collector):
    """Tells the library what the board holds, at each scrape. The library keeps nothing."""

    def __init__(self, board: Board, breathe: Callable[[], None]) -> None:
        self._board = board
        self._breathe = breathe
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The answer to a scrape."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every metric of ours."""
        values = measured(self._board, self._breathe)
        for metric in METRICS:
            yield _family(metric, values.get(metric.name, {}))


def _family(metric: Known, values: Values) -> Metric:
    name, labels = PREFIX + metric.name, metric.all_labels
    if metric.kind == HISTOGRAM:
        return _histogram(HistogramMetricFamily(name, metric.help, labels=labels), values)
    kind = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
    family = kind(name, metric.help, labels=labels)
    for key, value in values.items():
        assert not isinstance(value, Histogram)
        family.add_metric(key, float(value))
    return family


def _histogram(family: HistogramMetricFamily, values: Values) -> Metric:
    for key, value in values.items():
        assert isinstance(value, Histogram)
        counts, total = value.read()
        bounds = (*map(str, value.bounds), "+Inf")
        family.add_metric(key, list(zip(bounds, counts, strict=True)), total)
    return family
