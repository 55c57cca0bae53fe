"""A Keras model for arrays, to be tried with dropout; on whatever backend KERAS_BACKEND names.

cd examples
dropkit compare own_keras:model --data arrays.npz --strategies none,as-is,fixed:0.1,gaussian:0.2
dropkit compare own_keras:model --data arrays.npz --insert hidden=0.2
"""

import keras
from keras import layers


def model() -> keras.Model:
    inputs = keras.Input((8,))
    hidden = layers.Dense(32, activation="relu", name="hidden")(inputs)
    hidden = layers.Dropout(0.2, name="drop")(hidden)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="output")(hidden))
