"""The engine over `keras.Model.fit` by models of a user's: every kind of targets, whatever the model ends in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers  # noqa: E402

from dropkit import Key, cli, keep  # noqa: E402
from dropkit.errors import DropkitError, DropkitValueError  # noqa: E402
from dropkit.lab import Data, compare, train  # noqa: E402
from dropkit.lab.engines import keras_task  # noqa: E402
from dropkit.lab.engines.calibration import calibration_error  # noqa: E402
from dropkit.lab.order import epoch_order  # noqa: E402
from tests.lab.frames import arrays, ends, follows_the_gap, killed_and_resumed, resumed  # noqa: E402
from tests.lab.runs import numbers  # noqa: E402
from tests.test_examples import EXAMPLES  # noqa: E402


def dense(outputs: int, ends_in: str | None) -> Any:
    hidden = layers.Dense(8, activation="relu", name="hidden")
    drop, last = layers.Dropout(0.5, name="drop"), layers.Dense(outputs, activation=ends_in, name="output")
    return keras.Sequential([keras.Input((8,)), hidden, drop, last])


def softmax() -> Any:
    return dense(3, "softmax")


def logits() -> Any:
    return dense(3, None)


def sigmoid() -> Any:
    return dense(1, "sigmoid")


def labels() -> Any:
    return dense(3, "sigmoid")


def number() -> Any:
    return dense(1, None)


def tokens() -> Any:
    drop = layers.Dropout(0.1, name="drop")
    return keras.Sequential(
        [layers.Embedding(5, 8), drop, layers.LSTM(8, return_sequences=True, dropout=0.1), layers.Dense(5)]
    )


class Own(keras.Model):
    """Not built yet, and its `call` does not say that it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm = layers.Dense(8, name="hidden"), layers.BatchNormalization()
        self.drop, self.output_layer = layers.Dropout(0.5, name="drop"), layers.Dense(3, name="output")

    def call(self, x: Any) -> Any:
        return self.output_layer(self.drop(self.norm(self.hidden(x))))


def both_losses(outputs: Any, targets: Any) -> Any:
    return keras.ops.mean(keras.ops.square(outputs - targets)) + keras.ops.mean(keras.ops.abs(outputs - targets))


@pytest.mark.parametrize(
    ("make", "kind", "asked", "figure"),
    [
        (sigmoid, "binary", {"metric": "auroc", "optimizer": "nadam"}, "test_auroc"),
        (labels, "multi-label", {"metric": "exact-match"}, "test_exact_match"),
        (number, "regression", {"loss": "huber", "schedule": "cosine", "metric": "mae"}, "test_mae"),
        (number, "regression", {"loss": "keras.losses:LogCosh", "metric": "loss"}, "test_loss"),
        (number, "regression", {"loss": "tests.lab.keras_suite.test_own_model:both_losses"}, "test_mse"),
        (tokens, "next-token", {"optimizer": "keras.optimizers:Lion"}, "test_loss"),
    ],
)
def test_every_kind_of_targets(make: Any, kind: str, asked: dict[str, Any], figure: str, tmp_path: Path) -> None:
    run = train(make, data=arrays(kind), epochs=1, device="cpu", out=tmp_path, **asked)
    row, scores = run.rows[0], run.scores()
    assert all(np.isfinite(value) for value in row.values())
    assert row["train_loss"] > 0
    if figure == "test_auroc":
        assert scores is None
    else:
        assert scores is not None and scores.mean() == pytest.approx(row[figure], rel=1e-5)


@pytest.mark.parametrize("make", [softmax, logits, Own])
def test_the_first_step_is_that_of_known_weights_order_and_masks(make: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(5)  # as the lab seeds it before the model is made
    model, data = make(), arrays("classification")
    order = epoch_order(32, 5, 1)
    x, y = data.train_x[order], data.train_y[order]
    if make is Own:
        hidden = model.norm(model.hidden(x), training=True)
    else:
        hidden = model.get_layer("hidden")(x)
    hidden = keras.ops.convert_to_numpy(hidden) * keep((32, 8), 0.5, Key(5, "drop", 0)) * 2
    last = model.output_layer if make is Own else model.get_layer("output")
    found = keras.ops.convert_to_numpy(last(hidden)).astype(float)
    loss = -(np.log(found) if make is softmax else found - np.log(np.exp(found).sum(-1, keepdims=True)))
    run = train(make, data=data, seed=5, epochs=1, batch_size=32, device="cpu", out=tmp_path)
    assert run.rows[0]["train_loss"] == pytest.approx(loss[np.arange(32), y].mean(), rel=1e-4)


@pytest.mark.parametrize("make", [softmax, Own])
def test_a_model_that_is_cut_off_ends_bit_for_bit_the_same(make: Any, tmp_path: Path) -> None:
    resumed(make, "step", tmp_path, schedule="cosine")


def test_gap_moves_the_rate_by_the_rows_before_and_is_resumed(tmp_path: Path) -> None:
    run = resumed(softmax, "gap", tmp_path, validation=0.25, sites=["drop=0.3"])
    follows_the_gap(run, "drop")


@pytest.mark.parametrize(("strategy", "moved"), [("as-is", [0, 0, 4]), ("step:3", [0, 0, 3, 4, 6])])
def test_rates_are_moved_where_an_epoch_begins_and_where_they_change(
    strategy: str, moved: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    class Watched(keras_task.Moves):
        def set(self, step: int) -> None:
            steps.append(step)
            super().set(step)

    monkeypatch.setattr(keras_task, "Moves", Watched)
    asked: Any = {"data": arrays("classification"), "epochs": 2, "batch_size": 8, "device": "cpu"}
    train(softmax, strategy=strategy, out=tmp_path, **asked)
    assert steps == moved


@pytest.mark.parametrize("shape", [(8,), (2, 4)])
def test_a_run_is_the_same_whether_samples_are_copied_or_read_batch_by_batch(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arrays("classification")
    train_x, test_x = (x.reshape(-1, *shape) for x in (given.train_x, given.test_x))  # (2, 4) enters flattened
    data = Data.of((train_x, given.train_y), (test_x, given.test_y), "classification")
    asked: Any = {"data": data, "epochs": 2, "batch_size": 12, "device": "cpu"}
    copied = train(softmax, out=tmp_path / "copied", **asked)
    monkeypatch.setattr(keras_task, "COPIED", 0)
    assert numbers(train(softmax, out=tmp_path / "read", **asked)) == numbers(copied)
    assert ends(tmp_path / "read") == ends(tmp_path / "copied")


def calibrated(model: Any, x: Any, y: Any) -> float:
    found = keras.ops.convert_to_numpy(model(x))
    return calibration_error(found.max(1), found.argmax(1) == y)


def test_a_classifier_has_a_calibration_error_whatever_it_ends_in(tmp_path: Path) -> None:
    keras.utils.set_random_seed(5)
    model, data = softmax(), arrays("classification")
    asked: Any = {"data": data, "seed": 5, "epochs": 1, "learning_rate": 1e-12, "device": "cpu"}
    rows = [train(make, out=tmp_path / make.__name__, **asked).rows[0] for make in (softmax, logits)]
    known = calibrated(model, data.test_x, data.test_y)
    assert [row["test_ece"] for row in rows] == pytest.approx([known, known], rel=1e-4)


def test_strategies_insertion_and_kinds(tmp_path: Path) -> None:
    asked: Any = {"data": arrays("classification"), "epochs": 1, "seeds": 1, "device": "cpu"}
    names = ["none", "as-is", "gaussian:0.1@drop", "weight-decay"]
    found = compare(softmax, strategies=names, insert=["hidden=exact:0.25"], out=tmp_path, **asked)
    rates = {line: runs[0].rows[-1] for line, runs in found.runs.items()}
    inserted = "rate_hidden/dropkit_drop"
    assert (rates["none"][inserted], rates["as-is"][inserted], rates["as-is"]["rate_drop"]) == (0, 0.25, 0.5)
    assert (rates["gaussian:0.1@drop"][inserted], rates["gaussian:0.1@drop"]["rate_drop"]) == (0, 0.1)
    assert len({row["train_loss"] for row in rates.values()}) >= 3


def test_numbers_inside_layers_are_sites_whose_rates_move(tmp_path: Path) -> None:
    asked: Any = {"data": arrays("next-token"), "epochs": 2, "device": "cpu", "out": tmp_path}
    run = train(tokens, strategy="step:8", **asked, batch_size=8)
    assert [row["rate_lstm/lstm_cell/dropout"] for row in run.rows] == pytest.approx([0.5, 0.5])
    assert [row["rate_drop"] for row in run.rows] == pytest.approx([0.5, 0.5])


def test_wrong_models_are_named_before_anything_is_written(tmp_path: Path) -> None:
    def undropped() -> Any:
        return keras.Sequential([keras.Input((8,)), layers.Dense(3, name="only")])

    asked: Any = {"data": arrays("classification"), "device": "cpu", "out": tmp_path / "out"}
    for make, more, text in (
        (undropped, {}, "drops nowhere: put dropouts in with --insert PATTERN=RATE, such as --insert only=0.2"),
        (number, {}, r"gives \(4, 1\) of float32 for 4 samples, and classification needs"),
        (softmax, {"insert": ["conv*=0.1"]}, r"--insert 'conv\*=0.1' matches no module in .*it has hidden \(Dense\)"),
        (softmax, {"insert": ["hidden=block:0.1"]}, "block drops blocks of a map"),
        (softmax, {"sites": ["conv*=0.1"]}, r"--sites 'conv\*=0.1' matches no site"),
    ):
        with pytest.raises(DropkitValueError, match=text):
            train(make, **asked, **more)
    with pytest.raises(DropkitValueError, match=r"'concrete' learns .* torch alone, and .* with Keras: take gap"):
        train(softmax, **asked, strategy="concrete")
    for words, text in (
        ({"loss": "tests.lab.wrong:fails"}, "failed with KeyError"),
        ({"loss": "tests.lab.wrong:text"}, "gave a str: it must give a tensor of numbers"),
        ({"loss": "tests.lab.wrong:other_samples"}, r"of shape \(3,\) for 4 samples|failed with"),
        ({"loss": "keras.losses:MeanSquaredError"}, "loss keras.losses:MeanSquaredError failed with"),
        ({"optimizer": "keras.optimizers:Nope"}, "keras.optimizers has no 'Nope'"),
        ({"optimizer": "tests.lab.wrong:instance"}, "is no class of Keras' optimizers"),
        ({"schedule": "tests.lab.wrong:falls_below"}, "give a number of at least 0"),
    ):
        with pytest.raises(DropkitError, match=text):
            train(softmax, **asked, **words)
    assert not (tmp_path / "out").exists()


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    return int(left.value.code or 0)


@pytest.mark.slow
def test_the_example_is_trained_compared_tuned_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    killed_and_resumed(("keras",), "own_keras:model", tmp_path, run)
