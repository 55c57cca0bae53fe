"""What a model is trained for, as plain values: the kind of its targets, a loss, and the metric of a comparison.

A metric that is a mean over samples has a formula of one sample's score, `each`, written in what arrays of NumPy, torch
and JAX have in common, so that every engine scores alike. A metric of the whole test set has `whole`, on NumPy arrays.
Outputs are what a model gives before any softmax or sigmoid; where there is one number for each sample, they have the
targets' shape.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ...errors import DropkitValueError, UnknownNameError
from ...language import say
from ..imported import is_named
from .judged import judged, lower_is_better, of_each
from .measures import CLASSIFICATION, Chart, Column, Figures, Line

KINDS = ("classification", "binary", "multi-label", "regression", "next-token")
CLASSES, BINARY, LABELS, NUMBERS, TOKENS = KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure of merit.

    Args:
        key: in the columns of metrics.csv, behind the part: `test_<key>`.
        title: of the test set's figure, in words.
        short: the same without "test".
        lower_is_better: of it.
        each: (outputs, targets) -> one score for each sample, of which the figure is the mean; None for another figure.
        whole: (outputs, targets) -> the figure, where it is no such mean; from NumPy arrays.
    """

    key: str
    title: str
    short: str
    lower_is_better: bool = False
    each: Callable[[Any, Any], Any] | None = None
    whole: Callable[[Any, Any], float] | None = None


def _mean(scores: Any) -> Any:
    """Over all axes but the first."""
    return scores.reshape(len(scores), -1).mean(-1)


def _right(outputs: Any, targets: Any) -> Any:
    return (outputs.argmax(-1) == targets) * 1.0


def _sided(outputs: Any, targets: Any) -> Any:
    return _mean(((outputs > 0) == (targets > 0.5)) * 1.0)


def _all_sided(outputs: Any, targets: Any) -> Any:
    wrong = ((outputs > 0) != (targets > 0.5)) * 1.0
    return (wrong.reshape(len(wrong), -1).sum(-1) == 0) * 1.0


def _tokens_right(outputs: Any, targets: Any) -> Any:
    known = (targets >= 0) * 1.0  # below 0 is padding
    return (_right(outputs, targets) * known).sum(-1) / (known.sum(-1) + (known.sum(-1) == 0) * 1.0)


def _squared(outputs: Any, targets: Any) -> Any:
    return _mean((outputs - targets) ** 2)


def _absolute(outputs: Any, targets: Any) -> Any:
    return _mean(abs(outputs - targets))


def _learned(name: str, kind: str) -> Callable[[Any, Any], float]:
    """A figure of scikit-learn's, by its name there."""

    def whole(outputs: Any, targets: Any) -> float:
        return judged(f"sklearn.metrics:{name}", kind, outputs, targets)

    return whole


def _one_against_others(outputs: Any, targets: Any) -> float:
    """The area under the curve of each class against the others, in the mean; of two classes of one."""
    from scipy.special import softmax
    from sklearn.metrics import roc_auc_score

    likely = softmax(outputs.astype("float64"), axis=1)
    found = roc_auc_score(targets, likely[:, 1] if outputs.shape[1] == 2 else likely, multi_class="ovr")
    return float(found)


def _root(outputs: Any, targets: Any) -> float:
    return float(((outputs - targets) ** 2).mean() ** 0.5)


_LOSS = Metric(key="loss", title=say("test loss"), short=say("loss"), lower_is_better=True)
_ACCURACY = {"title": say("test accuracy"), "short": say("accuracy")}


def _ranked(kind: str) -> dict[str, Metric]:
    """Of scores that order the samples, and of the sides that they fall on."""
    return {
        "auroc": Metric(
            key="auroc", title=say("test AUROC"), short=say("AUROC"), whole=_learned("roc_auc_score", kind)
        ),
        "average-precision": Metric(
            key="average_precision",
            title=say("test average precision"),
            short=say("average precision"),
            whole=_learned("average_precision_score", kind),
        ),
        "f1": _f1(kind),
        "loss": _LOSS,
    }


def _f1(kind: str) -> Metric:
    return Metric(key="f1", title=say("test F1"), short=say("F1"), whole=_learned("f1_score", kind))


METRICS: Mapping[str, Mapping[str, Metric]] = MappingProxyType(
    {
        CLASSES: {
            "accuracy": Metric(key="accuracy", each=_right, **_ACCURACY),  # type: ignore[arg-type]
            "balanced-accuracy": Metric(
                key="balanced_accuracy",
                title=say("test balanced accuracy"),
                short=say("balanced accuracy"),
                whole=_learned("balanced_accuracy_score", CLASSES),
            ),
            "f1": _f1(CLASSES),
            "auroc": Metric(key="auroc", title=say("test AUROC"), short=say("AUROC"), whole=_one_against_others),
            "loss": _LOSS,
        },
        BINARY: {
            "accuracy": Metric(key="accuracy", each=_sided, **_ACCURACY),  # type: ignore[arg-type]
            **_ranked(BINARY),
        },
        LABELS: {
            "accuracy": Metric(key="accuracy", each=_sided, **_ACCURACY),  # type: ignore[arg-type]
            "exact-match": Metric(
                key="exact_match", title=say("test exact match"), short=say("exact match"), each=_all_sided
            ),
            **_ranked(LABELS),
        },
        NUMBERS: {
            "mse": Metric(
                key="mse",
                title=say("test squared error"),
                short=say("squared error"),
                lower_is_better=True,
                each=_squared,
            ),
            "mae": Metric(
                key="mae",
                title=say("test absolute error"),
                short=say("absolute error"),
                lower_is_better=True,
                each=_absolute,
            ),
            "rmse": Metric(key="rmse", title=say("test RMSE"), short=say("RMSE"), lower_is_better=True, whole=_root),
            "r2": Metric(key="r2", title=say("test R2"), short=say("R2"), whole=_learned("r2_score", NUMBERS)),
            "loss": _LOSS,
        },
        TOKENS: {
            "loss": _LOSS,
            "accuracy": Metric(key="accuracy", each=_tokens_right, **_ACCURACY),  # type: ignore[arg-type]
        },
    }
)
"""Kind -> the metrics of its comparisons by name, the default first. "loss" is the mean of the loss of each sample."""

LOSSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        CLASSES: ("cross-entropy", "nll"),
        BINARY: ("binary-cross-entropy",),
        LABELS: ("binary-cross-entropy",),
        NUMBERS: ("mse", "mae", "huber"),
        TOKENS: ("cross-entropy",),
    }
)
"""Kind -> its losses by name, the default first. "nll" is of outputs that are logarithms of probabilities already."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What a model is trained for.

    Args:
        kind: of the targets: "classification" (class numbers, a logit for each class), "binary" (0 or 1, one logit),
            "multi-label" (a matrix of 0 and 1, a logit for each), "regression" (numbers), "next-token" (token numbers,
            samples x time, and logits for each).
        loss: a name of `LOSSES[kind]`, or `module:name` of a function (outputs, targets) of the model's framework.
        metric: a name of `METRICS[kind]`, or `module:name` of a function (outputs, targets) of NumPy arrays.

    >>> Objective.of("regression")
    Objective(kind='regression', loss='mse', metric='mse')
    >>> Objective().measured.title, Objective().figures.compared
    ('test accuracy', 'test_accuracy')
    """

    kind: str = CLASSES
    loss: str = "cross-entropy"
    metric: str = "accuracy"

    @classmethod
    def of(cls, kind: str, loss: str | None = None, metric: str | None = None) -> "Objective":
        """The objective of a kind, its defaults where nothing is said.

        Raises:
            UnknownNameError: no such kind, loss or metric.
            DropkitValueError: a loss or a metric of another kind.
        """
        if kind not in KINDS:
            raise UnknownNameError("kind", str(kind), KINDS)
        return cls(
            kind,
            _chosen("loss", loss, kind, LOSSES),
            _chosen("metric", metric, kind, METRICS),
        )

    @property
    def measured(self) -> Metric:
        """The metric."""
        return _own(self.metric, self.kind) if is_named(self.metric) else METRICS[self.kind][self.metric]

    @property
    def figures(self) -> Figures:
        """The figures of a run that is trained for this."""
        same = (self.kind, self.metric) == (CLASSES, "accuracy")
        return CLASSIFICATION if same else figures_of(self.measured)


def _chosen(what: str, name: str | None, kind: str, known: Mapping[str, Iterable[str]]) -> str:
    own = tuple(known[kind])
    if name is None:
        return own[0]
    if is_named(name) or name in own:
        return name
    if any(name in names for names in known.values()):
        raise DropkitValueError(
            f"{what} {name!r} does not fit {kind} data: choose from {', '.join(own)}, or give module:name of your own"
        )
    raise UnknownNameError(what, str(name), own)


def _own(name: str, kind: str) -> Metric:
    """The metric that a function of the user's makes."""
    called = name.rpartition(":")[2].rpartition(".")[2]
    title = say("test {metric}", metric=called)
    lower, each = lower_is_better(name, kind), of_each(name, kind)
    if each is None:
        whole = lambda *arrays: judged(name, kind, *arrays)  # noqa: E731
        return Metric(key=called, title=title, short=called, lower_is_better=lower, whole=whole)
    return Metric(key=called, title=title, short=called, lower_is_better=lower, each=each)


def figures_of(metric: Metric) -> Figures:
    """The figures of runs that are compared by a metric.

    >>> figures_of(METRICS["regression"]["mae"]).rows
    ('test_mae', 'test_loss', 'train_eval_mae', 'train_eval_loss', 'train_mae', 'train_loss')
    """
    key, lower = metric.key, metric.lower_is_better
    parts = ("test", "train_eval", *(("train",) if metric.each or key == "loss" else ()))
    rows = dict.fromkeys(f"{part}_{name}" for part in ("test", "train_eval", "train") for name in (key, "loss"))
    if "train" not in parts:
        del rows[f"train_{key}"]
    gap = (f"test_{key}", f"train_eval_{key}") if lower else (f"train_eval_{key}", f"test_{key}")
    heading = say("gap, test - train") if lower else say("gap, train - test")
    charted = ((metric.short, key), (say("loss"), "loss")) if key != "loss" else ((say("loss"), "loss"),)
    columns = [
        Column(say("train {figure}", figure=metric.short), f"train_eval_{key}"),
        Column(heading, "gap", signed=True, narrow=True),
    ]
    if key != "loss":
        columns.append(Column(say("test loss"), "test_loss"))
    return Figures(
        compared=f"test_{key}",
        title=metric.title,
        lower_is_better=lower,
        loss="test_loss",
        rows=tuple(rows),
        printed=_printed(metric, "train" in parts),
        gaps={"gap": gap},
        gap_words={"gap": say("The train-test gap")},
        columns=tuple(columns),
        charts=tuple(
            Chart(
                title,
                say("solid: test, dotted: train with dropout off"),
                (Line(f"test_{name}", say("test")), Line(f"train_eval_{name}", say("train"), dotted=True)),
            )
            for title, name in charted
        ),
        notes=(say("The train figure is taken with dropout off, like the test figure; the gap is between these two."),),
    )


def _printed(metric: Metric, trained: bool) -> tuple[tuple[str, str], ...]:
    found = [(say("loss"), "train_loss"), (say("validation loss"), "validation_loss")]
    if trained and metric.key != "loss":
        found.insert(1, (say("train {figure}", figure=metric.short), f"train_{metric.key}"))
    return (*found, (metric.title, f"test_{metric.key}"))
