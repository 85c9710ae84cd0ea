"""A span of OpenTelemetry for each shard, where whoever started the process set a tracer up; else nothing.

The driver makes them, when a shard's answer is there: Ray's workers need no tracer. Its parent is the span that is open
there, such as that of Prefect's task run. A span holds ids, counts and seconds, never a source key or a secret.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

try:
    from opentelemetry import trace
except ModuleNotFoundError:  # Ray and Prefect bring the interface, neither promises to
    trace = None  # type: ignore[assignment]


def record_shard(
    began_s: float, attributes: Mapping[str, str | int | float], failure: BaseException | None = None
) -> None:
    """Record a shard that came to an end now.

    Parameters
    ----------
    began_s : float
        When its worker got it, in seconds since 1970.
    attributes : mapping
        Named without ``covseg.``, which is put before each.
    failure : exception or None
        What took it from its worker; only the name of its type is kept.
    """
    if trace is None:
        return
    span = trace.get_tracer("covseg.scoring").start_span("covseg.shard", start_time=int(began_s * 1e9))
    if span.is_recording():
        span.set_attributes({f"covseg.{name}": value for name, value in attributes.items()})
        if failure:
            span.set_status(trace.Status(trace.StatusCode.ERROR, type(failure).__name__))
    span.end(time.time_ns())
