"""The Keras model that is trained: the user's, told that it trains, with the lab's loss and figures."""

from typing import Any

from ..recipes.objective import CLASSES, TOKENS, Objective
from .keras_losses import Loss, trained_figure


def whole(model: Any, objective: Objective, loss: Loss, probabilities: bool, l2: float) -> Any:
    """A model around a model, for `fit`.

    Args:
        model: built; on JAX `fit` would tell a model of a class of its own that it trains, and not the layers in it.
        objective, loss: what it is trained for.
        probabilities: whether it ends in a softmax or a sigmoid.
        l2: times the sum of squared weights, biases left out, is added to the loss.
    """
    import keras
    from keras import ops

    figure, kind = trained_figure(objective, probabilities), objective.kind

    class Whole(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="whole")
            self.inner = model
            self.own_loss = keras.metrics.Mean(name="own_loss")
            if figure is not None:
                self.own_figure = keras.metrics.Mean(name=f"own_{objective.measured.key}")

        def call(self, x: Any, training: Any = None) -> Any:
            return outputs_of(self.inner(x, training=training), kind)

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: Any = True
        ) -> Any:
            found = loss.batch(y_pred, y)
            self.own_loss.update_state(ops.stop_gradient(found), sample_weight=ops.shape(y)[0])
            for more in self.losses:  # of the user's own regularizers
                found = found + ops.cast(more, found.dtype)
            if l2:
                weights = [weight for weight in self.inner.trainable_variables if len(weight.shape) > 1]
                found = found + l2 * sum(ops.sum(ops.square(weight)) for weight in weights)
            return found

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            if figure is not None:
                self.own_figure.update_state(figure(y_pred, y))
            return self.get_metrics_result()

        def get_metrics_result(self) -> dict[str, Any]:
            """The lab's figures; Keras' own loss, with what regularizes, is read by nobody, at a cost for each step."""
            own = [self.own_loss] if figure is None else [self.own_loss, self.own_figure]
            return {metric.name: metric.result() for metric in own}

    return Whole()


def outputs_of(found: Any, kind: str) -> Any:
    """The tensor of a model's outputs: the logits of a dict, the first of several; without an axis of one number."""
    from keras import ops

    if isinstance(found, dict):
        found = found.get("logits", next(iter(found.values())))
    if isinstance(found, list | tuple):
        found = found[0]
    alone = kind not in (CLASSES, TOKENS) and len(found.shape) == 2 and found.shape[1] == 1
    return ops.squeeze(found, -1) if alone else found
