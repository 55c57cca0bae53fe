"""Random operations that are no known dropout: where they are, and whether they keep the mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, sqrt

from torch import nn

from ...torch.finding.intercept import Place
from ...torch.finding.inventory import Site as Found
from ...torch.layers import Drawn
from .handmade import Draw, Factor, Handmade, Key
from .measure import Run
from .passes import Passes

RUNS = 32  # forwards in training: the mean of so many masks
_EVALUATIONS = 4
_FAR = 0.02  # how far a mean may be off
_TORCHS = (nn.modules.dropout._DropoutNd, nn.RNNBase, nn.MultiheadAttention, Drawn)


@dataclass(frozen=True)
class Made:
    """What a random operation does.

    site: its number among the sites that are known; None for a new one.
    effects: "multiplies", "adds", "fills", "decides".
    zeros: share of the factors that are 0; centred: the factors have mean 1.
    ratio, error: mean in training over that in evaluation, and its standard error; None where it could not be measured.
    means: of what it gives over its input, in training and in evaluation.
    """

    draw: Draw
    site: int | None
    train: bool
    eval: bool
    effects: frozenset[str]
    shape: tuple[int, ...]
    zeros: float
    centred: bool
    ratio: float | None
    error: float | None
    means: tuple[float, float] | None = None

    @property
    def effect(self) -> str:
        """The one that matters most; "" where no data depend on it.

        It "drops" if it sets some of the data to zero, or multiplies them by noise around 1.
        """
        if "multiplies" in self.effects and (0 < self.zeros < 1 or (self.zeros == 0 and self.centred)):
            return "drops"
        return next((name for name in ("multiplies", "fills", "adds", "decides") if name in self.effects), "")


def listening(passes: Passes) -> Handmade:
    """What hears the random operations of a pass."""
    return Handmade(passes.model, frozenset(n for n, site in enumerate(passes.sites) if _torchs(site, passes)))


def evaluated_by(passes: Passes, heard: Handmade) -> Handmade:
    """What is heard in evaluation."""
    return _heard(passes, heard.drops, 0, None, evaluating=True)


def made_by_hand(passes: Passes, off: Run, again: Run, heard: Handmade, evaluated: Handmade) -> list[Made]:
    """The random operations of a model; none are measured where nothing is random that should not be.

    Args:
        passes: the model, with the sites that are known.
        off, again: of two passes with known dropout off.
        heard: what was heard in the second of them.
        evaluated: what was heard in evaluation.
    """
    torchs = heard.drops
    foreign = [n for n in range(len(passes.sites)) if n not in torchs]
    unruly = any(off.outputs.get(path) != again.outputs.get(path) for path in {*off.outputs, *again.outputs})
    if not (
        unruly or heard.drawn or evaluated.drawn or any(passes.sites[n].p and passes.sites[n].train for n in foreign)
    ):
        return []
    first, second = (_heard(passes, torchs, seed, None) for seed in (0, 1))
    arrays = frozenset(draw for draw, values in first.brought.items() if second.brought.get(draw, values) != values)
    if not (heard.drawn or first.drawn or arrays or evaluated.drawn):
        return []
    training = [_heard(passes, torchs, seed, arrays) for seed in range(RUNS)]
    evaluation = [_heard(passes, torchs, seed, arrays, evaluating=True) for seed in range(_EVALUATIONS)]
    draws = dict.fromkeys(draw for heard in (*training, *evaluation) for draw in heard.drawn)
    ratios = _ratios(training, evaluation)
    return [_made(draw, training, evaluation, ratios.get(draw), _number(draw, passes, foreign)) for draw in draws]


def scaled_in_evaluation(passes: Passes, heard: Handmade, evaluated: Handmade) -> dict[int, float]:
    """Known dropouts that keep the mean in training, and behind which data are scaled in evaluation: by how much.

    Args:
        passes: the model, with the sites that are known.
        heard: what was heard in training with dropout off.
        evaluated: what was heard in evaluation.
    """
    scaled: dict[Key, float] = {}
    for key in evaluated.consumed.keys() & heard.consumed.keys():
        off, now = (each.means.get(key, (frozenset(), 1.0)) for each in (heard, evaluated))
        if off is None or now is None or off[0] or now[0] or not off[1]:
            continue  # nothing is known, or random numbers by hand are in it
        if evaluated.consumed[key] & {n for n, site in enumerate(passes.sites) if site.eval}:
            continue  # nor is anything where known dropout is on in evaluation
        if now[1] and abs(now[1] / off[1] - 1) > _FAR:
            scaled[key] = now[1] / off[1]
    if not scaled:
        return {}
    training = _heard(passes, heard.drops, 0, None)
    found: dict[int, float] = {}
    for key, c in scaled.items():
        for n in training.consumed.get(key, ()):
            law = passes.sites[n].noise
            if law is not None and law.off(0.5) is None:  # else it is meant so
                found.setdefault(n, c)
    return found


def _heard(
    passes: Passes, torchs: frozenset[int], seed: int, arrays: frozenset[Draw] | None, evaluating: bool = False
) -> Handmade:
    hears = Handmade(passes.model, torchs, arrays)
    passes.run(seed, evaluating=evaluating, listener=hears, mode=hears)
    return hears


def _torchs(site: Found, passes: Passes) -> bool:
    """Whether a site is a dropout of torch or of ours, which keeps the mean."""
    if site.place is not None:
        return not site.kind.startswith("random.")
    return isinstance(passes.model.get_submodule(site.name), _TORCHS)


def _number(draw: Draw, passes: Passes, foreign: Sequence[int]) -> int | None:
    """The known site that draws there."""
    for n in foreign:
        site = passes.sites[n]
        if site.place is None:
            if draw.path == site.name:
                return n
        elif (draw.path, draw.file, draw.line) == (site.name.partition(":")[0], site.place.filename, site.place.line):
            return n
    return None


def _made(
    draw: Draw,
    training: Sequence[Handmade],
    evaluation: Sequence[Handmade],
    ratio: tuple[float, float, float, float] | None,
    site: int | None,
) -> Made:
    seen: list[Factor] = [heard.drawn[draw] for heard in (*training, *evaluation) if draw in heard.drawn]
    zeros = [share for factor in seen for share in factor.zeros]
    return Made(
        draw,
        site,
        train=any(draw in heard.drawn for heard in training),
        eval=any(draw in heard.drawn for heard in evaluation),
        effects=frozenset().union(*(factor.effects for factor in seen)),
        shape=seen[0].shape,
        zeros=sum(zeros) / len(zeros) if zeros else 0.0,
        centred=all(factor.centred for factor in seen),
        ratio=None if ratio is None else ratio[0],
        error=None if ratio is None else ratio[1],
        means=None if ratio is None else ratio[2:],
    )


def _ratios(
    training: Sequence[Handmade], evaluation: Sequence[Handmade]
) -> dict[Draw, tuple[float, float, float, float]]:
    """For each draw the mean in training over that in evaluation, its standard error, and both; the farthest from 1."""
    found: dict[Draw, tuple[float, float, float, float]] = {}
    for key, first in training[0].means.items():
        measured = [heard.means.get(key) for heard in training]
        same = [each for each in measured if each is not None and first is not None and each[0] == first[0]]
        if first is None or not first[0] or len(same) < len(training):
            continue
        evaluated = [_evaluated(heard, key) for heard in evaluation]
        off = [c for c in evaluated if c is not None]
        if len(off) < len(evaluated):
            continue
        (mean, error), (c, wrong) = _mean([c for _, c in same]), _mean(off)
        if abs(mean) <= 4 * error or abs(c) <= 4 * wrong:  # noise around 0
            continue
        ratio, error = mean / c, abs(mean / c) * hypot(error / mean, wrong / c)
        draw = min(first[0])
        if draw not in found or abs(ratio - 1) - 4 * error > abs(found[draw][0] - 1):
            found[draw] = ratio, error, mean, c
    return found


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    mean = sum(values) / len(values)
    return mean, sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _evaluated(heard: Handmade, key: tuple[str, str, int]) -> float | None:
    """What the data are scaled by in evaluation where training scales them at random."""
    if key not in heard.consumed:
        return None
    means = heard.means.get(key, (frozenset(), 1.0))
    return None if means is None else means[1]


def as_sites(made: Sequence[Made], found: Sequence[Found]) -> list[Found]:
    """A site for each random operation that is at none of those found and does something to the data."""
    names = {site.name for site in found}
    new = []
    for each in made:
        if each.site is not None or not each.effect:
            continue
        draw = each.draw
        plain = f"{draw.path}:{draw.function.replace(' ', '_')}"
        name, number = plain, 0
        while name in names:
            number += 1
            name = f"{plain}#{number}"
        names.add(name)
        place = Place(draw.file, draw.line, _NO_CALL)
        kind = draw.function if " " in draw.function else f"torch.{draw.function}"
        source = f"{draw.file}:{draw.line}"
        shape = each.shape if each.effect == "drops" else None
        new.append(Found(name, kind, _ANY, shape, each.train, each.eval, source=source, place=place))
    return new


def by_hand(site: Found) -> bool:
    """Whether a site is one of these."""
    return site.place is not None and site.place.instruction == _NO_CALL


_NO_CALL = -1  # in the place of a site: a line of code, and no call of a known function in it
_ANY = 0.5  # the rate of what has none, for comparisons of masks
