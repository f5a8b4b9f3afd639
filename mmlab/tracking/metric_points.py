"""Metrics as MLflow stores them: finite values with a step and a time."""

from __future__ import annotations

import time
from typing import Any

from mlflow.entities import Metric


def metric_points(metrics: dict[str, float], step: int, at_ms: int | None = None) -> list[Metric]:
    """Return the finite metrics of a step as MLflow metrics.

    Their time is ``at_ms`` (Unix time in milliseconds), by default the current time. MLflow stores
    a metric only once if it is logged twice with the same value, step and time.
    """
    at_ms = int(time.time() * 1000) if at_ms is None else at_ms
    return [Metric(key, value, at_ms, step) for key, value in metrics.items() if is_finite(value)]


def is_finite(value: Any) -> bool:
    """Return True for a number that is neither NaN nor infinite.

    MLflow would store infinity as 1.8e308.
    """
    return isinstance(value, int | float) and value == value and abs(value) != float("inf")
