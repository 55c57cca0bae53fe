"""What a run of a strategy stands for, so that sentences say what was compared: a seed, or a fold of one data set."""

from ...language import counted, say
from ..recipes.measures import Figures


def unit(kind: Figures) -> str:
    """What one of them is called.

    >>> from dropkit.lab.recipes.measures import CLASSIFICATION
    >>> unit(CLASSIFICATION)
    'seed'
    """
    return say("fold") if kind.folds else say("seed")


def several(kind: Figures, n: int) -> str:
    """So many of them.

    >>> from dataclasses import replace
    >>> from dropkit.lab.recipes.measures import CLASSIFICATION
    >>> several(CLASSIFICATION, 1), several(replace(CLASSIFICATION, folds=True), 5)
    ('1 seed', '5 folds')
    """
    if kind.folds:
        return counted(n, "{n} fold", "{n} folds")
    return counted(n, "{n} seed", "{n} seeds")
