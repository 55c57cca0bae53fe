"""What a comparison tells, in words, and what it does not: the answer in one line, then how far to trust it."""

import math
from collections.abc import Mapping, Sequence

from ...language import SEMICOLON, SPACE, Said, capital, joined, say, template
from ..statistics.crossed import REST, SAMPLE, SEED
from ..statistics.needed import MOST_SEEDS, seeds_needed
from .answer import answer, sizes
from .further import adapting, adapts, bases_of, counts, diverged, gaps
from .numbers import amount, brief, ends, level, named, step
from .pairs import ALPHA, FEW, Pair, Pairs, Status, judged
from .table import Line
from .units import several, unit

GAP = "gap"  # between training and test, where a recipe has both


def verdict(
    lines: Sequence[Line],
    data: str,
    margin: float | None = None,
    looks: Sequence[int] = (),
    pairs: Pairs | None = None,
) -> tuple[str, ...]:
    """Sentences for the reader in a hurry: the answer first, then how far to trust it.

    Nothing is called a difference below five seeds, and none but what stands with Holm's correction for all pairs.

    Args:
        lines: of the strategies.
        data: its name.
        margin: a difference of the compared figure below which it counts as none.
        looks: with how many seeds these runs were told before, where seeds were then added.
        pairs: of these strategies, with their margin, where they were held against each other before.
    """
    kind = lines[0].figures
    if len(lines) == 1:
        return (_alone(lines[0], data), *counts(lines), *diverged(lines))
    pairs = judged(lines, margin) if pairs is None else pairs
    words = _compared(pairs, data, looks)
    words += adapting(pairs) if lines[0].seeds >= FEW else []
    for gap, name in kind.gap_words.items():
        words += gaps(lines, gap, name)
    return (*words, *counts(lines), *diverged(lines))


def _alone(line: Line, data: str) -> str:
    kind = line.figures
    words = template("{name} reaches {figure} {mean} on {data} over {seeds}")
    if line.seeds == 1:
        words = template("{name} reaches {figure} {mean} on {data} with one seed, so without an interval")
    mean = level(kind, kind.compared, line.compared.mean)
    given = {"name": _beginning(named(line.strategy)), "figure": kind.title, "mean": mean, "data": data}
    found: str = say(words, seeds=several(kind, line.seeds), **given)
    if GAP in kind.gaps:
        gap = say("the train-test gap is {gap}", gap=step(kind, GAP, line.interval(GAP).mean))
        found = joined((found, gap), SEMICOLON)
    return say("{found}. One strategy alone says nothing about which is better.", found=found)


def _compared(pairs: Pairs, data: str, looks: Sequence[int]) -> list[str]:
    main, seeds = pairs.main, pairs.ranked[0].seeds
    words = [answer(pairs, data)]
    if main.status is Status.UNKNOWN:
        return words
    if seeds < FEW:
        return [*words, *_so_far(pairs), _start_again(pairs, seeds)]
    words += _about(pairs)
    words += _others(pairs)
    words.append(_family(pairs))
    words += [_stands_apart(pair) for pair in pairs.told if pair.outlying is not None]
    return [*words, *_needed(pairs), *_looked_before(pairs, looks)]


def _so_far(pairs: Pairs) -> list[str]:
    """What else was seen, of seeds that are too few to say."""
    rest = [pair for pair in pairs.told if not pair.same_as(pairs.main) and pair.status is not Status.UNKNOWN]
    found = [say(template("{name} against {other} {range}"), **_held(pair)) for pair in rest]
    return [say("So far: {details}.", details=joined(found, SEMICOLON))] if found else []


def _held(pair: Pair) -> dict[str, str]:
    """The names of a pair, and its difference with its interval."""
    range_ = brief(pair.one.figures, pair.difference)
    return {"name": named(pair.one.strategy), "other": named(pair.other.strategy), "range": range_}


def _start_again(pairs: Pairs, seeds: int) -> str:
    if pairs.ranked[0].figures.folds:
        return say("Nothing is called a difference below {few} folds. Start again with more, as in cv=10.", few=FEW)
    if seeds == 1:
        return say("Start with --seeds 5 or more, or go on with --until-settled and --resume.")
    words = template(
        "Nothing is called a difference below {few} seeds. Start again with more, or go on with --until-settled and "
        "--resume: its intervals hold at every look."
    )
    return say(words, few=FEW)


def _about(pairs: Pairs) -> list[str]:
    """What the interval is about: which seeds and samples might have been others; of folds a remark says it."""
    return [] if pairs.ranked[0].figures.folds else [_others_might_be(pairs)]


def _others_might_be(pairs: Pairs) -> str:
    if pairs.looked:
        return say(
            "Seeds were added until all was settled or no more were allowed; the interval holds at every look on the "
            "way. It is about this test set, for other seeds."
        )
    table = pairs.main.table
    if table is None:
        return say(
            "The interval is about this test set, for other seeds. There is no score for each test sample, so nothing "
            "is said about new samples."
        )
    kind, new = pairs.main.one.figures, table.new_samples()
    includes = say("which excludes 0") if new.excludes_zero else say("which includes 0")
    words = template(
        "The interval is about these test samples, for other seeds. For new test samples too it is {new}, {includes}; "
        "{most}."
    )
    return say(words, new=ends(kind, new), includes=includes, most=_most(table.shares))


def _most(shares: Mapping[str, float]) -> str:
    """Which source makes the most of the variance of that."""
    source = max(shares, key=lambda name: shares[name])
    if not shares[source]:
        return say("nothing varies")
    words = {
        SEED: template("{share:.0f} % of its variance comes from the seeds, so more seeds would narrow it"),
        SAMPLE: template("{share:.0f} % of its variance comes from the samples, so a larger test set would narrow it"),
        REST: template("{share:.0f} % of its variance comes from both together, so more of either would narrow it"),
    }
    return say(words[source], share=100 * shares[source])


def _others(pairs: Pairs) -> list[str]:
    """A sentence for each other pair; strategies that adapt have sentences of their own."""
    own = bool(bases_of(pairs))
    words: list[str] = []
    for pair in pairs.told:
        against_none = pair.other is pairs.base
        if pair.same_as(pairs.main) or pair.status is Status.UNKNOWN or (own and against_none and adapts(pair.one)):
            continue
        found = (_AGAINST_NONE if against_none else _AGAINST)[pair.status]
        if pair.status is Status.OPEN and pair.difference.excludes_zero and not pairs.looked:
            found = _BY_CHANCE
        given = _held(pair)
        words.append(say(found, Name=_beginning(given["name"]), unit=unit(pair.one.figures), **given, **sizes(pairs)))
    return words


def _beginning(name: str) -> str:
    """A name as it begins a sentence; a word that one types stays as it is typed."""
    return capital(name) if isinstance(name, Said) else name


_AGAINST_NONE = {
    Status.BETTER: template("{Name} helps: {range}."),
    Status.WORSE: template("{Name} hurts: {range}."),
    Status.WITHIN: template("{Name} differs from {other} by no more than {margin}: {range}."),
    Status.SAME: template("{Name} scores as {other} in every {unit}."),
    Status.OPEN: template("{Name} against {other} is not settled: {range}."),
}
_AGAINST = {
    **_AGAINST_NONE,
    Status.BETTER: template("{Name} is better than {other}: {range}."),
    Status.WORSE: template("{Name} is worse than {other}: {range}."),
}
_BY_CHANCE = template(
    "{Name} against {other} is not settled: {range} excludes 0 by itself, but among all pairs that may be chance."
)


def _family(pairs: Pairs) -> str:
    """What is promised of all pairs together."""
    n = math.comb(len(pairs.ranked), 2)
    words = template(
        "All {n} pairs count, by Holm's correction: with no true difference at all, at most one such comparison in "
        "twenty would name one."
    )
    if n == 1:
        words = template(
            "One pair is compared: with no true difference, one such comparison in twenty would still name one."
        )
    text: str = say(words, n=n)
    if pairs.margin is not None:
        more = template("That a difference is no larger than {margin} is held to the same, by itself.")
        text = joined((text, say(more, **sizes(pairs))), SPACE)
    return text


def _stands_apart(pair: Pair) -> str:
    """The seed that is unlike the others, and the answer without it."""
    seed = pair.outlying
    assert seed is not None
    words = template(
        "Seed {seed} stands apart from the others in {name} against {other}; without it the difference is {range}. It "
        "is left in."
    )
    if pair.one.figures.folds:
        words = template(
            "Fold {seed} stands apart from the others in {name} against {other}; without it the difference is {range}. "
            "It is left in."
        )
    return say(words, seed=seed, **{**_held(pair), "range": brief(pair.one.figures, pair.without(seed))})


def _needed(pairs: Pairs) -> list[str]:
    """How many seeds a new comparison would take; these runs, looked at again with more seeds, are no new one."""
    main = pairs.main
    if main.status is not Status.OPEN or pairs.looked or main.one.figures.folds:
        return []
    size = abs(main.difference.mean) if pairs.margin is None else pairs.margin
    needed = seeds_needed(main.difference, size, ALPHA / len(pairs.found))
    if needed is None:
        return []
    low, high = needed
    words = template(
        "A new comparison with {low} to {high} seeds would show a difference of {size} four times in five; these runs "
        "tell their spread no better."
    )
    if low is None:
        words = template("To show a difference of {size}, a new comparison would need more than {most} seeds.")
    elif high is None:
        words = template(
            "A new comparison with {low} to more than {most} seeds would show a difference of {size} four times in "
            "five; these runs tell their spread no better."
        )
    return [say(words, size=amount(main.one.figures, size, digits=2), low=low, high=high, most=MOST_SEEDS)]


def _looked_before(pairs: Pairs, looks: Sequence[int]) -> list[str]:
    if pairs.looked or not looks:
        return []
    words = template(
        "These runs were told before, with {before} seeds, and seeds were added since: such intervals miss more often "
        "than in 5 % of comparisons. Those of --until-settled do not."
    )
    return [say(words, before=looks[-1])]
