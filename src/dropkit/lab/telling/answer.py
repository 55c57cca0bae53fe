"""The first line: one sentence that a newcomer understands, and that claims no more than the runs tell."""

from ...language import Said, capital, say, template
from .numbers import amount, change, introduced
from .pairs import FEW, Pair, Pairs, Status
from .units import several, unit


def answer(pairs: Pairs, data: str) -> str:
    """Whether dropout helps, by how much and how sure; or that it is not settled, and what would settle it."""
    main = pairs.main
    seeds, name, kind = main.one.seeds, introduced(main.one.strategy), main.one.figures
    given = {"name": name, "other": introduced(main.other.strategy), "data": data}
    if main.status is Status.UNKNOWN:
        words = template("Nothing to compare on {data}: {figure} is no finite number for {name} or {other}.")
        return say(words, figure=kind.title, **given)
    given["change"] = change(kind, main.difference, pairs.looked)
    if seeds == 1:
        words = template("One seed is too few to say on {data}: {name} against {other}, {change}, without an interval.")
        return say(words, **given)
    if seeds < FEW:
        words = template("{seeds} are too few to say on {data}: {name} against {other}, {change}.")
        return say(words, seeds=several(kind, seeds), **given)
    given["Name"] = capital(name) if isinstance(name, Said) else name
    return say(_words(pairs), over=_over(main), unit=unit(kind), **given, **sizes(pairs))


def sizes(pairs: Pairs) -> dict[str, str]:
    """The margin in words, for templates that have it."""
    return {"margin": "" if pairs.margin is None else amount(pairs.ranked[0].figures, pairs.margin)}


def _over(pair: Pair) -> str:
    seeds = several(pair.one.figures, pair.one.seeds)
    if pair.table is None:
        return say("over {seeds}", seeds=seeds)
    return say("over {seeds} and these {samples:,} test samples", seeds=seeds, samples=pair.table.samples)


def _words(pairs: Pairs) -> str:
    """The template of what is told of five seeds or more."""
    status, several = pairs.main.status, len(pairs.ranked) > 2
    if status is Status.OPEN:
        return _open(pairs)
    if pairs.base is None:
        several = False
        if status not in (Status.SAME, Status.WITHIN):
            return template("{Name} is best on {data}: against {other}, the next, {change}, {over}.")
    if status is Status.BETTER:
        return template("{Name} helps on {data}: {change}, {over}.")
    alone, among = _NONE_HELPS[status]
    return among if several else alone


def _open(pairs: Pairs) -> str:
    if pairs.ranked[0].figures.folds:  # other folds of the same data, looked at again, would be no new evidence
        return template(
            "Not settled on {data}: {name} against {other}, {change}, {over}; more data would tell, more folds of "
            "these would not."
        )
    if pairs.looked:
        return template(
            "Not settled on {data}: {name} against {other}, {change}, {over}, the most that were allowed; a larger "
            "--max-seeds with --resume goes on."
        )
    return template(
        "Not settled on {data}: {name} against {other}, {change}, {over}; --until-settled with --resume adds seeds "
        "until it is."
    )


# Of a strategy that does not help: where it is the only one, and where it is the best of several.
_NONE_HELPS = {
    Status.WORSE: (
        template("{Name} hurts on {data}: {change}, {over}."),
        template("Nothing helps on {data}: even the best, {name}, hurts, {change}, {over}."),
    ),
    Status.SAME: (
        template("No difference at all on {data}: {name} scores as {other} in every {unit}, {over}."),
        template("Nothing helps on {data}: the best, {name}, scores as {other} in every {unit}, {over}."),
    ),
    Status.WITHIN: (
        template("No difference larger than {margin} on {data}: {name} against {other}, {change}, {over}."),
        template("Nothing helps by more than {margin} on {data}: the best, {name}, {change}, {over}."),
    ),
}
