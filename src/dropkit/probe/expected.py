"""What dropout leaves to expect: how many sub-networks, how many units are active, how deep the network is."""

from collections.abc import Iterator, Sequence

from ..language import SEMICOLON, counted, joined, say, template
from .facts import Site
from .masks import drops_branch, shared_by_batch, unit
from .names import SHOWN


def expected(sites: Sequence[Site], batch: int | None) -> Iterator[str]:
    """Sub-networks, active units and depth, for sites whose mask was seen in a batch of a size; twins draw once."""
    seen: set[str] = set()
    drawn: list[Site] = []
    for site in sites:
        masks = site.p is not None and 0 < site.p < 1 and site.drawn == "mask" and site.target != "weights"
        if masks and site.draws and seen.isdisjoint(site.twins):
            drawn.append(site)
            seen.add(site.name)
    if not drawn:
        return
    choices = [_choices(site) for site in drawn]
    if None not in choices:
        power = _power(sum(filter(None, choices)))
        if all(shared_by_batch(site, batch) for site in drawn):
            yield say("Every training step draws, for the whole batch, one of {power} sub-networks.", power=power)
        else:
            yield say("Every training step draws, for each sample, one of {power} sub-networks.", power=power)
    branches = [site for site in drawn if drops_branch(site)]
    units = [site for site in drawn if not drops_branch(site)]
    if units:
        yield say("Active on average: {units}.", units=joined(_active(units), SEMICOLON))
    if branches:
        depth = sum(_kept(site) for site in branches)
        one = "Of {n} residual branch {depth} are active on average."
        many = template("Of {n} residual branches {depth} are active on average.")
        yield counted(len(branches), one, many, depth=_number(depth))


def _active(sites: Sequence[Site]) -> list[str]:
    counts: dict[tuple[str, int, float], list[str]] = {}  # of what, how many, and how much is kept
    for site in sites:
        what: str = say("attention weights") if site.target == "attention weights" else unit(site)
        draws = site.draws or 0
        if len({mask[1:] for mask in site.call_masks}) > 1:
            what, draws = say("{what} in {calls} calls", what=what, calls=site.calls), site.draws_of_a_forward or 0
        elif site.calls > 1:
            what = say("{what} in each of {calls} calls", what=what, calls=site.calls)
        counts.setdefault((what, draws, _kept(site)), []).append(site.name)
    rows: list[str] = []
    for (what, draws, kept), names in counts.items():
        place = names[0] if len(names) == 1 else say("each of {number} dropouts", number=len(names))
        active = _number(kept * draws)
        rows.append(say("{active} of {draws} {what} at {place}", active=active, draws=draws, what=what, place=place))
    return rows if len(rows) <= SHOWN else [*rows[:SHOWN], say("and {more} more kinds", more=len(rows) - SHOWN)]


def _choices(site: Site) -> float | None:
    """How many masks there are for one sample in one forward, as a power of 2; None where that is not known."""
    if not site.share:
        return site.draws_of_a_forward or 0
    return None if site.choices is None else site.calls * site.choices


def _power(bits: float) -> str:
    """A power of 2, with its value where that is small.

    >>> _power(4), _power(3.3219281), _power(40.5)
    ('2^4 = 16', '10', '2^40.5')
    """
    whole = float(bits).is_integer()
    if bits <= 20 and not whole:
        return f"{round(2**bits):,}"
    return f"2^{bits:.0f}{f' = {2 ** int(bits):,}' if bits <= 20 else ''}" if whole else f"2^{bits:.1f}"


def _kept(site: Site) -> float:
    return 1 - (site.p or 0) if site.kept is None else site.kept


def _number(value: float) -> str:
    """A number with one decimal, where it has any.

    >>> _number(14.4), _number(512.0)
    ('14.4', '512')
    """
    return f"{value:.1f}".removesuffix(".0")
