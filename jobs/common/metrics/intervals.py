"""How sure a share is that was counted."""

from scipy.stats import binomtest

CONFIDENCE = 0.95


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, as if the counted were drawn at random; all of [0, 1] if there are none.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not count:
        return 0.0, 1.0
    interval = binomtest(successes, count).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
