"""What is told before a model of the user's is trained: what it is trained for, by what, and where it drops."""

from ...language import LIST, counted, joined, say
from ..data.sets import Data
from ..recipes.objective import BINARY
from .examined import Examined
from .settings import TaskSettings


def told_of(name: str, data: Data, settings: TaskSettings, examined: Examined) -> tuple[str, ...]:
    """Sentences: the data and the options, those that were chosen by default among them; the sites; what no rate
    reaches.
    """
    found = [_data(name, data, settings), *data.notes, _options(settings, examined)]
    if examined.places:
        sites = (say("{site} {p:g}", site=site, p=place.p) for site, place in examined.places.items())
        found.append(say("Sites, and their rates as the model is: {sites}.", sites=joined(sites, LIST)))
    if examined.entering:
        found.append(say("Samples enter {how}, because the model takes them so.", how=ENTERING[examined.entering]))
    if examined.drawn:
        found.append(
            say(
                "Numbers that modules hand over, so that {framework} draws their masks: {sites}; their rates move, "
                "their kind stays.",
                framework=settings.framework,
                sites=joined(examined.drawn, LIST),
            )
        )
    if examined.left:
        found.append(
            say(
                "Written into the code, so that no rate reaches it: {calls}; it is off under none, and as written "
                "otherwise.",
                calls=joined(examined.left, LIST),
            )
        )
    return tuple(found)


def _data(name: str, data: Data, settings: TaskSettings) -> str:
    given = {"name": name, "data": data.name, **_samples(data)}
    if settings.kind in (BINARY, "classification"):
        words = say("classification, {classes} classes", classes=max(2, data.classes))
    elif settings.kind == "next-token":
        words = say("next-token, {classes} tokens", classes=data.classes)
    else:
        words = counted(data.classes, "{kind}, {n} output", "{kind}, {n} outputs", kind=settings.kind)
    return say("{name} on {data}: {kind}; {train}, {test}.", kind=words, **given)


def _samples(data: Data) -> dict[str, str]:
    return {
        "train": counted(len(data.train_x), "{n} training sample", "{n} training samples"),
        "test": counted(len(data.test_x), "{n} test sample", "{n} test samples"),
    }


def _options(settings: TaskSettings, examined: Examined) -> str:
    return say(
        "Loss {loss}, optimizer {optimizer}, learning rate {rate:g} ({schedule}), batches of {batch}, {epochs}; "
        "compared by {metric}.",
        loss=settings.loss,
        optimizer=settings.optimizer,
        rate=settings.learning_rate,
        schedule=settings.schedule,
        batch=settings.batch_size,
        epochs=counted(settings.epochs, "{n} epoch", "{n} epochs"),
        metric=examined.objective.measured.title,
    )


ENTERING = {
    "with an axis for channels": say("with an axis for channels"),
    "with channels last": say("with channels last"),
    "as numbers": say("as numbers"),
    "flattened": say("flattened"),
}
"""How samples enter, for sentences."""
