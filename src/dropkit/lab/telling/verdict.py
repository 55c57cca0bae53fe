"""What a comparison tells, in words, and what it does not."""

import math
from collections.abc import Sequence

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
    over = f"over {seeds} seeds" if seeds > 1 else "with one seed, so without an interval"
    gap = f"; the train-test gap is {line.interval(GAP).mean:+.4f}" if GAP in line.figures.gaps else ""
    return (
        f"{_name(line)} reaches {line.figures.title} {line.compared.mean:.4f} on {data} {over}{gap}. "
        "One strategy alone says nothing about which is better."
    )


def _compared(ranked: Sequence[Line], data: str, seeds: int) -> list[str]:
    best, others, kind = ranked[0], ranked[1:], ranked[0].figures
    figure, most = best.compared.mean, "lowest" if kind.lower_is_better else "highest"
    if seeds == 1:
        second = figure - others[0].compared.mean
        return [
            f"{_name(best)} has the {most} {kind.title} on {data}, {figure:.4f}, {second:+.4f} from "
            f"{_name(others[0])}; but one seed has no interval, so this run cannot tell a difference from chance.",
            "Run again with --seeds 5 or more.",
        ]
    pairs = [(other, between(best, other)) for other in others]
    apart = [(other, difference) for other, difference in pairs if difference.excludes_zero]
    close = [(other, difference) for other, difference in pairs if not difference.excludes_zero]
    if not close:
        head = f"{_name(best)} is best on {data}: {kind.title} {figure:.4f} over {seeds} paired seeds."
    else:
        names = _listed([_name(other) for other, _ in close], "or")
        head = (
            f"{_name(best)} has the {most} mean {kind.title} on {data}, {figure:.4f} over {seeds} paired seeds, "
            f"but these runs do not tell it apart from {names}."
        )
    words = [head]
    by = ": the difference is" if kind.lower_is_better else " by"
    words += [f"It beats {_name(other)}{by} {_range(difference)}." for other, difference in apart]
    words += [
        f"Against {_name(other)} the difference is {_range(difference)}: {_more(difference)}"
        for other, difference in close
    ]
    if best.strategy != BASELINE:
        words += _rest(ranked)
    words.append(_multiplicity(ranked, apart))
    if seeds < FEW:
        words.append(f"{seeds} seeds are few for a t interval; run {FEW} or more before relying on it.")
    return words


def _rest(ranked: Sequence[Line]) -> list[str]:
    """How those that neither adapt nor are the best or "none" stand against "none"."""
    words = []
    for line in ranked[1:]:
        difference = line.difference
        if difference is None or _adapts(line):  # those get a sentence of their own
            continue
        if difference.excludes_zero:
            side = "better" if line.figures.better(difference.mean) else "worse"
            words.append(f"{_name(line)} is {side} than no dropout: {_range(difference)}.")
        else:
            words.append(f"{_name(line)} is not told apart from no dropout: {_range(difference)}.")
    return words


def _adapting(ranked: Sequence[Line]) -> list[str]:
    """Whether it helped to learn or control the rate, against fixed rates and against none."""
    adaptive = [line for line in ranked if _adapts(line)]
    bases = [line for name in ("fixed", BASELINE) for line in ranked if line.strategy.split(":")[0] == name]
    if not adaptive or not bases:
        return []
    helped = [_helped(adaptive, base) for base in bases]
    details = [
        f"{_name(line)} {' and '.join(f'{_range(between(line, base))} against {_name(base)}' for base in bases)}"
        for line in adaptive
    ]
    return [*helped, "Paired differences: " + "; ".join(details) + "."]


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
    said = [
        f"{_listed(names, 'and')} {verb}"
        for names, verb in (
            (better, "did better"),
            (worse, "did worse"),
            (open_, "cannot be told apart from it"),
        )
        if names
    ]
    head = "Adapting the rate helped" if better else "Adapting the rate did not visibly help"
    return f"{head} against {_name(base)}: {', '.join(said)}."


def _range(difference: Interval) -> str:
    return f"{_number(difference.mean)} (95 % interval {_number(difference.low)} to {_number(difference.high)})"


def _number(value: float | None) -> str:
    # An end so near zero that four digits would hide its side is written out.
    return f"{value:+.4f}" if not value or abs(value) >= 0.00005 else f"{value:+.1e}"


def _more(difference: Interval) -> str:
    if not difference.mean:
        return "no difference was seen at all."
    needed = seeds_to_separate(difference)
    if needed is None and not difference.sd:
        return "it does not vary over seeds."
    if needed is None:
        return f"if it is that small, more than {MOST_SEEDS} seeds would be needed to show it."
    return (
        f"if it is real and this size, about {needed} seeds would show it four times in five "
        f"(--resume --seeds {needed})."
    )


def _multiplicity(ranked: Sequence[Line], apart: Sequence[tuple[Line, Interval]]) -> str:
    comparisons = math.comb(len(ranked), 2)
    if comparisons == 1:
        return "One comparison at 95 %: with no true difference, its interval would still exclude 0 one time in twenty."
    chance = min(100, 5 * comparisons)
    text = (
        f"{comparisons} pairs can be compared, each at 95 % and uncorrected: with no true differences at all, some "
        f"interval would still exclude 0 in up to {chance} % of such experiments."
    )
    if apart:
        kept = [_name(other) for other, difference in apart if difference.within(comparisons).excludes_zero]
        leads = f"the lead over {_listed(kept, 'and')} still excludes" if kept else "no lead still excludes"
        text += f" With Bonferroni's correction for all {comparisons}, {leads} 0."
    return text


def _gaps(lines: Sequence[Line], gap: str, name: str) -> list[str]:
    ordered = sorted(lines, key=lambda line: -line.interval(gap).mean)
    widest, narrowest = ordered[0], ordered[-1]
    difference = between(widest, narrowest, gap)
    told = "" if difference.half is None else f"; paired difference {_range(difference)}"
    return [
        f"{name} is widest under {_name(widest)} ({widest.interval(gap).mean:+.4f}), narrowest under "
        f"{_name(narrowest)} ({narrowest.interval(gap).mean:+.4f}){told}."
    ]


def _counted(lines: Sequence[Line]) -> list[str]:
    """Of each count of a recipe, how many runs of each strategy; those of which it cannot be told are left out."""
    words = []
    for count in lines[0].figures.counts:
        found = [(line, *line.counted(count)) for line in lines]
        told = [f"{_name(line)} in {some} of {_count(all_, 'run')}" for line, some, all_ in found if all_]
        if any(some for _, some, _ in found):
            words.append(f"{count.heading.capitalize()}, that is, {count.words}: {', '.join(told)}.")
        elif told:
            words.append(f"No run {count.heading}, that is, {count.words}.")
    return words


def _diverged(lines: Sequence[Line]) -> list[str]:
    words = []
    for line in lines:
        losses = line.values[line.figures.loss]
        count = sum(not math.isfinite(loss) for loss in losses)
        if count:
            words.append(f"{_name(line)} diverged (loss not finite) in {count} of {_count(len(losses), 'seed')}.")
    return words


def _name(line: Line) -> str:
    return "no dropout" if line.strategy == BASELINE else line.strategy


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _listed(names: Sequence[str], last: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
