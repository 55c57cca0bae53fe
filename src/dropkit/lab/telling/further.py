"""What a comparison tells beside the answer: adapting rates, gaps, counts, runs that diverged."""

import math
from collections.abc import Sequence
from dataclasses import replace

from ...language import AND, LIST, SEMICOLON, capital, counted, joined, say, template
from ..recipes.measures import Figures
from ..recipes.strategies import ADAPTIVE
from ..statistics.interval import Interval
from .numbers import brief, named, step, written
from .pairs import Pairs, Status
from .table import BASELINE, Line, between


def adapting(pairs: Pairs) -> list[str]:
    """Whether it helped to learn or control the rate, against fixed rates and against none."""
    adaptive = [line for line in pairs.ranked if adapts(line)]
    bases = bases_of(pairs)
    if not adaptive or not bases:
        return []
    helped = [_helped(pairs, adaptive, base) for base in bases]
    against = template("{range} against {name}")
    kind = bases[0].figures
    details = [
        say(
            "{name} {differences}",
            name=named(line.strategy),
            differences=joined(
                (
                    say(against, range=brief(kind, pairs.of(line, base).difference), name=named(base.strategy))
                    for base in bases
                ),
                AND,
                AND,
            ),
        )
        for line in adaptive
    ]
    return [*helped, say("Paired differences: {details}.", details=joined(details, SEMICOLON))]


def adapts(line: Line) -> bool:
    """Whether its rates learn or are controlled."""
    return line.strategy.split(":")[0] in ADAPTIVE


def bases_of(pairs: Pairs) -> list[Line]:
    """What adapting strategies are held against: fixed rates, and none."""
    return [line for name in ("fixed", BASELINE) for line in pairs.ranked if line.strategy.split(":")[0] == name]


def _helped(pairs: Pairs, adaptive: Sequence[Line], base: Line) -> str:
    """One sentence: which adaptive strategies beat a base, which lose to it, and which are not told apart from it."""
    better: list[str] = []
    worse: list[str] = []
    open_: list[str] = []
    for line in adaptive:
        status = pairs.of(line, base).status
        side = better if status is Status.BETTER else worse if status is Status.WORSE else open_
        side.append(named(line.strategy))
    said = joined(
        say(words, names=joined(names, LIST, AND))
        for names, words in (
            (better, template("{names} did better")),
            (worse, template("{names} did worse")),
            (open_, template("{names} cannot be told apart from it")),
        )
        if names
    )
    if better:
        return say("Adapting the rate helped against {base}: {said}.", base=named(base.strategy), said=said)
    return say("Adapting the rate did not visibly help against {base}: {said}.", base=named(base.strategy), said=said)


def gaps(lines: Sequence[Line], gap: str, name: str) -> list[str]:
    """Under which strategies a gap is widest and narrowest, and the paired difference between these."""
    ordered = sorted(lines, key=lambda line: -line.interval(gap).mean)
    widest, narrowest = ordered[0], ordered[-1]
    difference, kind = between(widest, narrowest, gap), lines[0].figures
    found: str = say(
        "{gap} is widest under {widest} ({most}), narrowest under {narrowest} ({least})",
        gap=name,
        widest=named(widest.strategy),
        most=step(kind, gap, widest.interval(gap).mean),
        narrowest=named(narrowest.strategy),
        least=step(kind, gap, narrowest.interval(gap).mean),
    )
    if difference.half is not None:
        found = joined((found, say("paired difference {range}", range=_range(kind, gap, difference))), SEMICOLON)
    return [say("{found}.", found=found)]


def _range(kind: Figures, gap: str, found: Interval) -> str:
    if kind.in_percent(gap):
        return say("{mean} points (95 % interval {low} to {high})", **written(replace(kind, proportion=True), found))
    low, high = _number(found.low), _number(found.high)
    return say("{mean} (95 % interval {low} to {high})", mean=_number(found.mean), low=low, high=high)


def _number(value: float | None) -> str:
    # An end so near zero that four digits would hide its side is written out.
    return f"{value:+.4f}" if not value or abs(value) >= 0.00005 else f"{value:+.1e}"


def counts(lines: Sequence[Line]) -> list[str]:
    """Of each count of a recipe, how many runs of each strategy; those of which it cannot be told are left out."""
    words: list[str] = []
    for count in lines[0].figures.counts:
        found = [(named(line.strategy), *line.counted(count)) for line in lines]
        given = {"did": count.heading, "what": count.words}
        if any(some for _, some, _ in found):
            told = joined(_some_of(*one) for one in found if one[2])
            given["did"] = capital(count.heading)
            words.append(say("{did}, that is, {what}: {told}.", told=told, **given))
        elif any(every for _, _, every in found):
            words.append(say("No run {did}, that is, {what}.", **given))
    return words


def _some_of(name: str, some: int, every: int) -> str:
    return say("{name} in {some} of {every}", name=name, some=some, every=counted(every, "{n} run", "{n} runs"))


def diverged(lines: Sequence[Line]) -> list[str]:
    """In how many seeds a strategy's loss was not finite at the end."""
    words: list[str] = []
    for line in lines:
        losses = line.values[line.figures.loss]
        count = sum(not math.isfinite(loss) for loss in losses)
        if count:
            one = "{name} diverged (loss not finite) in {count} of {n} seed."
            many = template("{name} diverged (loss not finite) in {count} of {n} seeds.")
            words.append(counted(len(losses), one, many, name=named(line.strategy), count=count))
    return words
