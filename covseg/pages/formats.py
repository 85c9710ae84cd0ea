"""How numbers, ids, codes and folders are written on every page; those of `FILTERS` are filters of the templates."""

from __future__ import annotations

from pathlib import Path

from covseg.metrics import intervals

NARROW = "\N{NARROW NO-BREAK SPACE}"


def percent(fraction: float | None) -> str:
    """Write a fraction as a percentage; what is above 0 never reads 0.

    Examples
    --------
    >>> [percent(value).replace(NARROW, " ") for value in (0.0, 0.0001, 0.3456, 1.0, None)]
    ['0 %', '<0.1 %', '34.6 %', '100 %', '–']
    """
    if fraction is None:
        return "–"
    if 0 < fraction < 0.0005:
        return f"<0.1{NARROW}%"
    return f"{100 * fraction:.{0 if fraction in (0, 1) else 1}f}{NARROW}%"


def number(value: float | None) -> str:
    """Write a number with at most two decimals.

    Examples
    --------
    >>> [number(value) for value in (3, 3.0, 0.61234, None)]
    ['3', '3', '0.61', '–']
    """
    return "–" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def probability(value: float | None) -> str:
    """Write a probability with two decimals; what is above 0 never reads 0.

    Examples
    --------
    >>> [probability(value).replace("\N{NO-BREAK SPACE}", " ") for value in (0.0, 0.00003, 0.005, 0.5, None)]
    ['0.00', '< 0.01', '0.01', '0.50', '–']
    """
    if value is None:
        return "–"
    return "<\N{NO-BREAK SPACE}0.01" if 0 < value < 0.005 else f"{value:.2f}"


def limit(value: float) -> str:
    """Write a threshold with three significant digits.

    Examples
    --------
    >>> [limit(value) for value in (0.28112291687520796, 0.5, 0.0)]
    ['0.281', '0.5', '0']
    """
    return f"{value:.3g}"


def brief(count: int) -> str:
    """Write a count in at most five characters, for the bars of a chart.

    Examples
    --------
    >>> [brief(count) for count in (7, 9_999, 12_345, 2_500_000)]
    ['7', '9,999', '12k', '2.5M']
    """
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.1f}M"


def short(value: float | None, digits: int = 3) -> str:
    """Write a metric as tables of results do, without a leading zero; a dash for none and for NaN."""
    return "-" if value is None else intervals.short(float(value), digits)


def short_id(name: str) -> str:
    """Cut a long id to its first twelve characters, which tell images of one cohort apart."""
    return name if len(name) <= 16 else name[:12]


def spoken(code: str) -> str:
    """Write a code in plain letters.

    Examples
    --------
    >>> spoken("lung_area_out_of_range")
    'lung area out of range'
    """
    return code.replace("_", " ")


def tails(folders: list[Path]) -> list[str]:
    """Name each folder by the end of its path, as long as it takes to tell all of them apart.

    Examples
    --------
    >>> tails([Path("/runs/base/evaluation"), Path("/runs/gates/evaluation")])
    ['base/evaluation', 'gates/evaluation']
    >>> tails([Path("/runs/a"), Path("/runs/b")]), tails([Path("/runs/a")] * 2)
    (['a', 'b'], ['a', 'a'])
    """
    parts = [folder.absolute().parts[1:] for folder in folders]
    different = len(set(parts))
    depth = next(n for n in range(1, max(map(len, parts)) + 1) if len({one[-n:] for one in parts}) == different)
    return ["/".join(one[-depth:]) for one in parts]


FILTERS = {
    "count": "{:,}".format,
    **{write.__name__: write for write in (percent, number, probability, limit, brief, short, short_id, spoken)},
}
