"""What every layer here shares: a state of its own, a site, and how both are saved."""

from typing import Any

import keras
import numpy as np
from keras import ops

from ..counter import Key
from . import engine, words
from .state import Draws

_SAVED = "draws"  # the name of a keyed layer's state in weights files


class Keyed:
    """A layer whose noise is a function of (seed, site, step). Comes before Keras' class among the bases.

    `layer.site` is the name under which `dropkit.keep` knows its masks: the one given, or set by `bind`; else the
    layer's name where a seed was given, and 0 where the seed was drawn.
    """

    seed_generator: Draws

    def _begin(self, seed: int | None, site: int | str | None, level: int = 0) -> None:
        """Make the state; comes after Keras' `Layer.__init__`."""
        layer: Any = self
        if site is not None:
            Key(site=site)  # checks it
        self._keyed = site is not None
        default = 0 if seed is None else layer.name
        self.seed_generator = Draws(seed, default if site is None else site, level)
        layer.supports_masking = True

    @property
    def site(self) -> int | str:
        """The site of the masks."""
        return self.seed_generator.site

    @property
    def seed(self) -> int | None:
        """The seed as it was given, None if it was drawn."""
        return self.seed_generator.seed

    def rekey(self, seed: int, site: str, step: int) -> None:
        """Another seed and site, and the number of the next step: what `bind` does to each layer."""
        self.seed_generator.rekey(seed, site, step)
        self._keyed = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The input with noise in training; else the input itself."""
        return engine.run(self._noised, inputs) if training else inputs

    def _noised(self, inputs: Any) -> Any:
        raise NotImplementedError

    def _draw(self) -> engine.Draw:
        return engine.recorded(self.seed_generator.draw)

    def _floating(self, inputs: Any) -> Any:
        """The input as a floating tensor: integers have no scaled values, so they become the layer's compute type."""
        x = inputs if ops.is_tensor(inputs) else ops.convert_to_tensor(inputs)  # which NumPy's backend would narrow
        if not keras.backend.is_float_dtype(x.dtype):
            x = ops.cast(x, self.compute_dtype)  # type: ignore[attr-defined]
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Keras' own, the seed, and the site where it was given or bound."""
        config = {**keras.layers.Layer.get_config(self), "seed": self.seed}
        if self._keyed:
            config["site"] = self.site
        return config

    def save_own_variables(self, store: Any) -> None:
        """A keyed layer's state is saved with the weights, so that a resumed run goes on with the next mask."""
        super().save_own_variables(store)  # type: ignore[misc]
        if self._keyed:
            store[_SAVED] = ops.convert_to_numpy(self.seed_generator.state.value).astype(np.int64)

    def load_own_variables(self, store: Any) -> None:
        """The state, where this layer is keyed and the file has one."""
        names = list(store.keys())
        super().load_own_variables({name: store[name] for name in names if name != _SAVED})  # type: ignore[misc]
        if self._keyed and _SAVED in names:
            self.seed_generator.state.assign(np.asarray(store[_SAVED]).astype(words.DTYPE))
