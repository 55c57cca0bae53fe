"""What a comparison tells, in words, and what it does not."""

import math
from collections.abc import Sequence

from ...language import AND, LIST, OR, SEMICOLON, SPACE, capital, counted, joined, say, template
from ..recipes.strategies import ADAPTIVE
from .stats import MOST_SEEDS, Interval, seeds_to_separate
from .table import BASELINE, Line, between

FEW = 5
GAP = "gap"  # between training and test, where a recipe has both


def verdict(lines: Sequence[Line], data: str) -> tuple[str, ...]:
    """Sentences for the reader in a hurry: the answer first, then how far to trust it.

    The best strategy is the one whose mean of the compared figure, such as test accuracy, is best. It is called better
    than another only where the 95 % interval of their paired difference excludes zero.
    """
    seeds, kind = lines[0].seeds, lines[0].figures
    ranked = sorted(lines, key=lambda line: line.compared.mean if kind.lower_is_better else -line.compared.mean)
    words = [_alone(ranked[0], data, seeds)] if len(ranked) == 1 else _compared(ranked, data, seeds)
    if len(ranked) > 1:
        words += _adapting(ranked) if seeds > 1 else []
        for gap, name in kind.gap_words.items():
            words += _gaps(lines, gap, name)
    return (*words, *_counted(lines), *_diverged(lines))


def _alone(line: Line, data: str, seeds: int) -> str:
    words = template("{name} reaches {figure} {mean:.4f} on {data} over {seeds} seeds")
    if seeds == 1:
        words = template("{name} reaches {figure} {mean:.4f} on {data} with one seed, so without an interval")
    given = {"name": _name(line), "figure": line.figures.title, "mean": line.compared.mean, "data": data}
    found: str = say(words, seeds=seeds, **given)
    if GAP in line.figures.gaps:
        gap = say("the train-test gap is {gap:+.4f}", gap=line.interval(GAP).mean)
        found = joined((found, gap), SEMICOLON)
    return say("{found}. One strategy alone says nothing about which is better.", found=found)


def _compared(ranked: Sequence[Line], data: str, seeds: int) -> list[str]:
    best, others, kind = ranked[0], ranked[1:], ranked[0].figures
    figure, most = best.compared.mean, say("lowest") if kind.lower_is_better else say("highest")
    given = {"best": _name(best), "most": most, "figure": kind.title, "mean": figure, "data": data, "seeds": seeds}
    if seeds == 1:
        only = template(
            "{best} has the {most} {figure} on {data}, {mean:.4f}, {second:+.4f} from {other}; but one seed has no "
            "interval, so this run cannot tell a difference from chance."
        )
        second = figure - others[0].compared.mean
        head = say(only, second=second, other=_name(others[0]), **given)
        return [head, say("Run again with --seeds 5 or more.")]
    pairs = [(other, between(best, other)) for other in others]
    apart = [(other, difference) for other, difference in pairs if difference.excludes_zero]
    close = [(other, difference) for other, difference in pairs if not difference.excludes_zero]
    if not close:
        head = say("{best} is best on {data}: {figure} {mean:.4f} over {seeds} paired seeds.", **given)
    else:
        names = joined((_name(other) for other, _ in close), LIST, OR)
        head = say(
            "{best} has the {most} mean {figure} on {data}, {mean:.4f} over {seeds} paired seeds, but these runs do "
            "not tell it apart from {names}.",
            names=names,
            **given,
        )
    beats = template("It beats {name} by {range}.")
    if kind.lower_is_better:
        beats = template("It beats {name}: the difference is {range}.")
    against = template("Against {name} the difference is {range}: {more}")
    words: list[str] = [head, *(say(beats, name=_name(other), range=_range(difference)) for other, difference in apart)]
    words += [say(against, name=_name(other), range=_range(each), more=_more(each)) for other, each in close]
    if best.strategy != BASELINE:
        words += _rest(ranked)
    words.append(_multiplicity(ranked, apart))
    if seeds < FEW:
        few = template("{seeds} seeds are few for a t interval; run {few} or more before relying on it.")
        words.append(say(few, seeds=seeds, few=FEW))
    return words


def _rest(ranked: Sequence[Line]) -> list[str]:
    """How those that neither adapt nor are the best or "none" stand against "none"."""
    better, worse = (
        template("{name} is better than no dropout: {range}."),
        template("{name} is worse than no dropout: {range}."),
    )
    words: list[str] = []
    for line in ranked[1:]:
        difference = line.difference
        if difference is None or _adapts(line):  # those get a sentence of their own
            continue
        if difference.excludes_zero:
            told = better if line.figures.better(difference.mean) else worse
        else:
            told = template("{name} is not told apart from no dropout: {range}.")
        words.append(say(told, name=_name(line), range=_range(difference)))
    return words


def _adapting(ranked: Sequence[Line]) -> list[str]:
    """Whether it helped to learn or control the rate, against fixed rates and against none."""
    adaptive = [line for line in ranked if _adapts(line)]
    bases = [line for name in ("fixed", BASELINE) for line in ranked if line.strategy.split(":")[0] == name]
    if not adaptive or not bases:
        return []
    helped = [_helped(adaptive, base) for base in bases]
    against = template("{range} against {name}")
    details = [
        say(
            "{name} {differences}",
            name=_name(line),
            differences=joined(
                (say(against, range=_range(between(line, base)), name=_name(base)) for base in bases), AND, AND
            ),
        )
        for line in adaptive
    ]
    return [*helped, say("Paired differences: {details}.", details=joined(details, SEMICOLON))]


def _adapts(line: Line) -> bool:
    return line.strategy.split(":")[0] in ADAPTIVE


def _helped(adaptive: Sequence[Line], base: Line) -> str:
    """One sentence: which adaptive strategies beat a base, which lose to it, and which are not told apart from it."""
    better: list[str] = []
    worse: list[str] = []
    open_: list[str] = []
    for line in adaptive:
        difference = between(line, base)
        side = open_ if not difference.excludes_zero else better if base.figures.better(difference.mean) else worse
        side.append(_name(line))
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
        return say("Adapting the rate helped against {base}: {said}.", base=_name(base), said=said)
    return say("Adapting the rate did not visibly help against {base}: {said}.", base=_name(base), said=said)


def _range(difference: Interval) -> str:
    low, high = _number(difference.low), _number(difference.high)
    return say("{mean} (95 % interval {low} to {high})", mean=_number(difference.mean), low=low, high=high)


def _number(value: float | None) -> str:
    # An end so near zero that four digits would hide its side is written out.
    return f"{value:+.4f}" if not value or abs(value) >= 0.00005 else f"{value:+.1e}"


def _more(difference: Interval) -> str:
    if not difference.mean:
        return say("no difference was seen at all.")
    needed = seeds_to_separate(difference)
    if needed is None and not difference.sd:
        return say("it does not vary over seeds.")
    if needed is None:
        return say("if it is that small, more than {most} seeds would be needed to show it.", most=MOST_SEEDS)
    return say(
        "if it is real and this size, about {needed} seeds would show it four times in five (--resume --seeds "
        "{needed}).",
        needed=needed,
    )


def _multiplicity(ranked: Sequence[Line], apart: Sequence[tuple[Line, Interval]]) -> str:
    comparisons = math.comb(len(ranked), 2)
    if comparisons == 1:
        return say(
            "One comparison at 95 %: with no true difference, its interval would still exclude 0 one time in twenty."
        )
    text = say(
        "{number} pairs can be compared, each at 95 % and uncorrected: with no true differences at all, some interval "
        "would still exclude 0 in up to {chance} % of such experiments.",
        number=comparisons,
        chance=min(100, 5 * comparisons),
    )
    if not apart:
        return text
    kept = [_name(other) for other, difference in apart if difference.within(comparisons).excludes_zero]
    words = template("With Bonferroni's correction for all {number}, no lead still excludes 0.")
    if kept:
        words = template("With Bonferroni's correction for all {number}, the lead over {names} still excludes 0.")
    return joined((text, say(words, number=comparisons, names=joined(kept, LIST, AND))), SPACE)


def _gaps(lines: Sequence[Line], gap: str, name: str) -> list[str]:
    ordered = sorted(lines, key=lambda line: -line.interval(gap).mean)
    widest, narrowest = ordered[0], ordered[-1]
    difference = between(widest, narrowest, gap)
    found: str = say(
        "{gap} is widest under {widest} ({most:+.4f}), narrowest under {narrowest} ({least:+.4f})",
        gap=name,
        widest=_name(widest),
        most=widest.interval(gap).mean,
        narrowest=_name(narrowest),
        least=narrowest.interval(gap).mean,
    )
    if difference.half is not None:
        found = joined((found, say("paired difference {range}", range=_range(difference))), SEMICOLON)
    return [say("{found}.", found=found)]


def _counted(lines: Sequence[Line]) -> list[str]:
    """Of each count of a recipe, how many runs of each strategy; those of which it cannot be told are left out."""
    words: list[str] = []
    for count in lines[0].figures.counts:
        found = [(_name(line), *line.counted(count)) for line in lines]
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


def _diverged(lines: Sequence[Line]) -> list[str]:
    words: list[str] = []
    for line in lines:
        losses = line.values[line.figures.loss]
        count = sum(not math.isfinite(loss) for loss in losses)
        if count:
            one = "{name} diverged (loss not finite) in {count} of {n} seed."
            many = template("{name} diverged (loss not finite) in {count} of {n} seeds.")
            words.append(counted(len(losses), one, many, name=_name(line), count=count))
    return words


def _name(line: Line) -> str:
    return say("no dropout") if line.strategy == BASELINE else line.strategy
