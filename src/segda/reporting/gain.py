"""What the second of two runs gained over the first, in plain lines: a number a data set, then what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segda.reporting.tables import percent, points

if TYPE_CHECKING:
    from segda.evaluation.domains import Domain
    from segda.reporting.comparison import Cell, Comparison, Entry

CLEAR = 1.0
"""Points. A smaller difference is none that words should make something of."""

FEW = 5
"""So many classes are named."""


@dataclass(frozen=True)
class Gain:
    """mIoU of the two on a data set, and the difference; zero: the classes at IoU 0 before and after."""

    data: str
    domain: Domain
    before: Cell
    after: Cell
    difference: Cell
    zero: tuple[list[str], list[str]]


def gains(comparison: Comparison) -> list[Gain]:
    """Of each data set on which both runs were measured; none unless there are exactly two."""
    if len(comparison.columns) != 2:
        return []
    found = []
    for data, domain in comparison.domains.items():
        before, after = entries = comparison.leading(data)
        first, second = (comparison.summary(data, entry) for entry in entries)
        if first.rates and second.rates and before.network == after.network:
            zero = _zero(comparison, data, before), _zero(comparison, data, after)
            found.append(Gain(data, domain, first, second, second.minus(first), zero))
    return found


def _zero(comparison: Comparison, data: str, entry: Entry) -> list[str]:
    """The classes whose IoU is printed as 0.0."""
    names = comparison.classes(data)
    return [name for name in names if percent(comparison.of_class(data, entry, name).mean) == "0.0"]


def gain_lines(comparison: Comparison) -> list[str]:
    """A line for each data set, the target first, then one in words; none unless there are exactly two runs."""
    found = gains(comparison)
    if not found:
        return []
    places = [comparison.title(gain.data) for gain in found]
    lines = []
    for number, (place, gain) in enumerate(zip(places, found, strict=True)):
        change = f"{gain.difference.text(points)}{' mIoU' if number == 0 else ''}"
        lines.append(f"{place:{max(map(len, places))}}  {gain.before.text()} -> {gain.after.text()}  ({change})")
    before, after = comparison.columns
    words = [_changed(gain, _place(gain, found)) for gain in found]
    zero = _at_zero(found[0], _place(found[0], found))
    return [*lines, f"{after.title} against {before.title}: {'; '.join([*words, zero])}."]


def _place(gain: Gain, found: list[Gain]) -> str:
    """`the target`, or the data set's name where nobody knows, or where there are several of the target."""
    alone = gain.domain and [one.domain for one in found].count(gain.domain) == 1
    return f"the {gain.domain}" if alone else gain.data


def _changed(gain: Gain, place: str) -> str:
    """A difference in words. It is clear above one point and, over several seeds, above its own spread."""
    mean, text = float(points(gain.difference.mean)), gain.difference.text(points)
    if abs(mean) <= CLEAR and gain.domain == "source":
        return f"kept {place} within one point ({text})"
    if abs(mean) <= CLEAR or abs(gain.difference.mean) <= gain.difference.deviation:  # a comparison with NaN is false
        return f"no clear difference on {place} ({text})"
    return f"{'gained' if mean > 0 else 'lost'} {gain.difference.text(_size)} points on {place}"


def _size(difference: float) -> str:
    return points(difference).lstrip("+-")


def _at_zero(gain: Gain, place: str) -> str:
    before, after = gain.zero
    if not before and not after:
        return f"no class has IoU 0 on {place}"
    return f"at IoU 0 on {place}: {_named(before)} before, {_named(after)} after"


def _named(classes: list[str]) -> str:
    """`2 classes (bus, train)`; `no class`."""
    if not classes:
        return "no class"
    named = f" ({', '.join(classes)})" if len(classes) <= FEW else ""
    return f"{len(classes)} class{'es' * (len(classes) > 1)}{named}"
