"""What the daemon counts, for `daemon.metrics` (Prometheus text) and `daemon.status`."""

import resource
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

_FAST = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)


class Tally:
    """How often each method had each outcome, and how long it took: a lookup and two additions a request.

    A list counts the times by their bucket, and ends with their sum in seconds.
    """

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], list[float]] = {}

    def note(self, method: str, outcome: str, seconds: float) -> None:
        """Count one request."""
        times = self.times(method, outcome)
        times[bisect_left(_FAST, seconds)] += 1
        times[-1] += seconds

    def times(self, method: str, outcome: str) -> list[float]:
        """The list of a method and outcome."""
        times = self._times.get((method, outcome))
        if times is None:
            times = self._times[method, outcome] = [0.0] * (len(_FAST) + 2)
        return times

    def total(self) -> int:
        """How many requests there were."""
        return int(sum(sum(times[:-1]) for times in self._times.values()))

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        requests = CounterMetricFamily("taskstore_requests", "Requests answered", labels=("method", "outcome"))
        by_method: dict[str, list[float]] = {}
        for labels, times in self._times.items():
            requests.add_metric(labels, sum(times[:-1]))
            of_all = by_method.setdefault(labels[0], [0.0] * len(times))
            by_method[labels[0]] = [one + other for one, other in zip(of_all, times, strict=True)]
        yield requests
        latency = HistogramMetricFamily("taskstore_request_seconds", "From a request's turn to its answer",
                                        labels=("method",))
        for method, times in by_method.items():
            sums = list(accumulate(times[:-1]))
            buckets = [(str(bound), count) for bound, count in zip((*_FAST, "+Inf"), sums, strict=True)]
            latency.add_metric((method,), buckets, times[-1])
        yield latency


class Spread:
    """A histogram without labels, for what happens with every commit: a look-up and two additions."""

    def __init__(self, name: str, help_: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._help = help_
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[Metric]:
        """For Prometheus."""
        family = HistogramMetricFamily(self._name, self._help)
        bounds = (*map(floatToGoString, self._bounds), "+Inf")
        family.add_metric((), list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)
        yield family


class Metrics:
    """Counters of one daemon, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = time.time()
        self.requests = Tally()
        self.registry.register(self.requests)
        self.group = Spread("taskstore_commit_requests", "Requests that shared one commit",
                            (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
        self.commit = Spread("taskstore_commit_seconds", "A commit: lock, fdatasync and logs", _FAST)
        self.registry.register(self.group)
        self.registry.register(self.commit)
        self.fsync = Histogram("taskstore_fsync_seconds", "The fdatasync of a commit", buckets=_FAST,
                               registry=self.registry)
        self.sync = Histogram("taskstore_sync_seconds", "Reading logs that somebody else changed", buckets=_FAST,
                              registry=self.registry)
        self.change_lag = Histogram("taskstore_change_lag_seconds", "From a change of a file to the cache and feed",
                                    buckets=_FAST, registry=self.registry)
        self.connections = Gauge("taskstore_connections", "Open connections", registry=self.registry)
        self.subscribers = Gauge("taskstore_subscribers", "Subscriptions to changes", registry=self.registry)
        self.resyncs = Counter("taskstore_resyncs", "Subscribers that were too slow and must look anew",
                               registry=self.registry)
        self.waiting = Gauge("taskstore_writes_waiting", "Writes that are not yet durable", registry=self.registry)
        self.oldest = Gauge("taskstore_oldest_write_seconds", "Age of the oldest of them", registry=self.registry)
        self.memory = Gauge("taskstore_memory_bytes", "Resident size", registry=self.registry)
        self.most_memory = Gauge("taskstore_max_memory_bytes", "Largest resident size so far", registry=self.registry)

    def text(self) -> str:
        """Everything, in Prometheus' text format."""
        with open("/proc/self/statm", encoding="ascii") as file:
            self.memory.set(int(file.read().split()[1]) * resource.getpagesize())
        self.most_memory.set(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return generate_latest(self.registry).decode()
