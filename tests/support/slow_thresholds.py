"""The threshold of strong uses as it is told, one candidate after another."""

from itda_core.evaluation.strong_uses import MIN_USES


def slow_threshold(coefficients):
    """The rule as docs/method.md has it, one candidate after another: threshold and filler."""
    if len(coefficients) < MIN_USES:
        return None
    found = None
    for t in sorted({c for c in coefficients if c > 0}, reverse=True):
        positive = sum(c >= t for c in coefficients)
        negative = sum(c <= -t for c in coefficients)
        if 10 * negative <= positive:
            found = t, min(1.0, (negative + 1) / positive)
    return found
