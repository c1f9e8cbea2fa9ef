"""What is counted, where the numbers live, and how Prometheus reads them.

instruments   every metric: its name, help, label or buckets
cells         float64 cells in memory, or in files that the workers share
recording     the counters of a model and of a worker
shadows       the counters of a version that is compared with another
exposition    the text of /metrics; only here is prometheus_client
"""

from service.metrics.cells import Blocks, Reading
from service.metrics.recording import Metrics, ModelMetrics, Statistics, Total
from service.metrics.shadows import ShadowMetrics

__all__ = ["Blocks", "Metrics", "ModelMetrics", "Reading", "ShadowMetrics", "Statistics", "Total"]
