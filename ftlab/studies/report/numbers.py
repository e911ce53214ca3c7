"""Numbers as a person reads them."""

from __future__ import annotations

import math

NONE = "–"
_LARGE, _SMALL = 1e6, 1e-3
_DIGITS = 4


def number(value: float | None) -> str:
    """Four digits."""
    if value is None or not math.isfinite(value):
        return NONE
    if value != 0 and not _SMALL <= abs(value) < _LARGE:
        return f"{value:.3g}"
    return f"{float(f'{value:.{_DIGITS}g}'):.{_DIGITS}g}" if abs(value) < 10**_DIGITS else f"{value:.0f}"


def decimals(spread: float | None, value: float) -> int:
    """Decimal places that show two digits of the spread, or four of the value where there is none.

    Args:
        spread: A standard deviation.
        value: What it belongs to.
    """
    size = spread if spread else abs(value)
    digits = 2 if spread else _DIGITS
    return 0 if not size or not math.isfinite(size) else min(8, max(0, digits - 1 - math.floor(math.log10(size))))


def fixed(value: float | None, places: int) -> str:
    """With that many decimal places."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def probability(value: float | None) -> str:
    """A p value, three decimals."""
    return NONE if value is None or not math.isfinite(value) else "< 0.001" if value < _SMALL else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """Seconds, minutes or hours."""
    if value is None or not math.isfinite(value):
        return NONE
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if value >= 1.5 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def count(value: float | None) -> str:
    """With k, M or G."""
    if value is None or not math.isfinite(value):
        return NONE
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.4g}"


def size(value: float | None) -> str:
    """Bytes, in powers of 1,000."""
    told = count(value)
    return told if told == NONE else f"{told[:-1]} {told[-1]}B" if told[-1].isalpha() else f"{told} B"
