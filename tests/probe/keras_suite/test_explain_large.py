"""Large models: the question that the transfer tutorial leaves open, and that no site is missed or made up."""

from dataclasses import replace

import keras
import pytest

from dropkit.errors import DataError
from dropkit.lab.recipes.transfer import FULL, whole_model
from dropkit.probe.explanation import Explanation
from dropkit.probe.keras import explain_keras

LEAST = 75  # pixels, that InceptionV3 takes; the answer does not depend on the size


@pytest.fixture(scope="module")
def transfer() -> Explanation:
    keras.utils.set_random_seed(0)
    return explain_keras(whole_model(replace(FULL, image_size=LEAST)))


def test_which_layers_the_dropout_of_the_transfer_tutorial_affects(transfer: Explanation) -> None:
    (site,) = transfer.sites
    assert (site.name, site.kind, site.p, site.mask_shape) == ("dropout", "Dropout", 0.2, (4, 1024))
    assert site.zeroes == ("hidden2",)  # Dense 1024
    assert site.changes == ("", "output")  # the whole is changed, since its last layer is
    assert site.gradients == ("hidden1", "hidden2", "output")
    top = [layer for layer in transfer.layers if layer.parent == ""]
    assert [layer.name for layer in top] == ["inception_v3", "flatten", "hidden1", "hidden2", "dropout", "output"]
    assert [layer.gradient for layer in top] == ["none", "none", "changed", "changed", "none", "changed"]


def test_its_trunk_is_frozen_and_untouched(transfer: Explanation) -> None:
    trunk = [layer for layer in transfer.layers if layer.name.startswith("inception_v3")]
    assert len(trunk) == 1 + 228 and trunk[0].frozen and trunk[0].parameters > 8_900_000
    assert not any(layer.touched or layer.random or layer.trainable for layer in trunk)
    assert {layer.gradient for layer in trunk} == {"none", "frozen"}
    norms = [layer for layer in trunk if layer.kind == "BatchNormalization"]
    assert len(norms) == 70 and not any(layer.training for layer in norms)
    assert all(layer.input_variance_ratio == 1.0 for layer in norms)
    assert transfer.layer("flatten").inputs == ("inception_v3/mixed7",)


def test_the_whole_takes_weights_of_its_frozen_part(tmp_path: object) -> None:
    with pytest.raises(DataError, match="does not hold the weights of InceptionV3"):
        whole_model(replace(FULL, image_size=LEAST, hidden=(4, 4)), weights=tmp_path / "none.h5")  # type: ignore[operator]


def test_inception_has_no_dropout_at_all() -> None:
    model = keras.applications.InceptionV3(weights=None, input_shape=(LEAST, LEAST, 3), classes=10)
    found = explain_keras(model)
    assert found.sites == () and not any(layer.touched for layer in found.layers)
    ran = [layer.name for layer in found.layers[1:]]
    inputs = 1  # of Keras' layers one is the place where the input comes in
    assert len(ran) == len(model.layers) - inputs == 312 and all(layer.calls == 1 for layer in found.layers)
    assert found.layer("mixed10").inputs and found.layer("predictions").inputs == ("avg_pool",)
    assert (found.forwards, found.backwards) == (4, 1)
