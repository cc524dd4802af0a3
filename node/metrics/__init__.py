"""The node's numbers, for Prometheus and for programs.

    metrics = Metrics(node)          # before the node starts, so that no event is missed
    nursery.start_soon(metrics.run)  # how late the event loop is
    metrics.text()                   # for GET /metrics
    metrics.snapshot()               # the same for programs

The parts of the node count for themselves, in plain numbers; these are read when somebody asks, and nothing is spent
between. What there is, and what to do when it moves, is one table: `node.metrics.catalogue`.
"""

from node.metrics.service import Metrics

__all__ = ["Metrics"]
