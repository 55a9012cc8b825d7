"""Candidates take turns, so that what else the machine does hits all alike."""

import time
from collections.abc import Callable

import numpy as np

PAUSE = 0.2  # seconds before each turn


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(
    candidates: dict,
    rounds: int,
    warm_up: int = 1,
    settle: int = 0,
    pause: float = 0.0,
    measure: Callable = seconds_of,
) -> dict[object, list]:
    """
    What `measure` returns for each call, by the candidate's name: every round calls each candidate once, in order.

    Args:
        candidates: name → function without arguments.
        warm_up: calls of each before the first round.
        settle: calls of the same candidate before each measured one, which fill the caches again.
        pause: seconds of sleep before these. A runtime's threads spin for a while after a call and would take time
            from the next candidate.
    """
    for call in candidates.values():
        for _ in range(warm_up):
            call()
    measured = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            time.sleep(pause)
            for _ in range(settle):
                call()
            measured[name].append(measure(call))
    return measured


def median_and_spread(values: list[float]) -> tuple[float, float, float]:
    """Median, first and third quartile."""
    return tuple(float(value) for value in np.quantile(values, (0.5, 0.25, 0.75)))


def spread_columns(values: list[float], unit: str, scale: float = 1) -> dict[str, float]:
    """`median_<unit>`, `quartile1_<unit>`, `quartile3_<unit>` of the values times `scale`, four digits."""
    names = (f"median_{unit}", f"quartile1_{unit}", f"quartile3_{unit}")
    return {name: float(f"{value * scale:.4g}") for name, value in zip(names, median_and_spread(values), strict=True)}
