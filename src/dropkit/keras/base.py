"""What every layer here shares: a state of its own, a site, and how both are saved."""

from typing import Any

import keras
from keras import ops

from ..axes.when import When
from ..counter import Key
from ..errors import DropkitRuntimeError, DropkitTypeError
from . import blocks, engine
from .draw import Draw
from .state import SAVED, Draws


class Keyed:
    """A layer whose noise is a function of (seed, site, step). Comes before Keras' class among the bases.

    `layer.site` is the name under which `dropkit.keep` knows its masks: the one given, or set by `bind`; else the
    layer's name where a seed was given, and 0 where the seed was drawn.
    """

    seed_generator: Draws

    def _begin(self, seed: int | None, site: int | str | None, level: int = 0, active: str = "train") -> None:
        """Make the state; comes after Keras' `Layer.__init__`."""
        layer: Any = self
        if site is not None:
            Key(site=site)  # checks it
        layer.__dict__["_when"] = When.of(active)
        layer.__dict__["_named"] = site is not None  # by who made it, and not by `bind`
        default = 0 if seed is None else layer.name
        self.seed_generator = Draws(seed, default if site is None else site, level)
        self.seed_generator.keyed = site is not None
        layer.supports_masking = True

    @property
    def site(self) -> int | str:
        """The site of the masks."""
        return self.seed_generator.site

    @property
    def seed(self) -> int | None:
        """The seed as it was given, None if it was drawn."""
        return self.seed_generator.seed

    @property
    def when(self) -> str:
        """In which passes it is on: "train", "always" or "never"; fixed when the layer is made, since programs that
        were compiled would not follow."""
        chosen: When = self.__dict__["_when"]
        return chosen.value

    @when.setter
    def when(self, value: str) -> None:
        raise DropkitRuntimeError(
            f"when is fixed when a layer is made, got {value!r} for {self.name!r}: make it with when={value!r}, or use "  # type: ignore[attr-defined]
            "dropkit.keras.enabled or disabled for a while"
        )

    @property
    def named(self) -> bool:
        """Whether the site was given to the constructor: `bind` leaves it then."""
        given: bool = self.__dict__["_named"]
        return given

    def rekey(self, seed: int, site: int | str, step: int) -> None:
        """Another seed and site, and the number of the next step: what `bind` does to each layer."""
        self.seed_generator.rekey(seed, site, step)
        self.seed_generator.keyed = True

    def active(self, training: Any) -> Any:
        """Whether it draws in a pass with this `training`."""
        chosen: When = self.__dict__["_when"]
        if blocks.said() is not blocks.NOTHING and chosen is not When.NEVER:
            switched = blocks.switched(self)
            if switched is not None:
                return switched
        return chosen.active(training)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The input with noise where it is on; else the input itself."""
        return engine.run(self, self._noised, inputs) if self.active(training) else inputs

    def mask_shape(self, x: Any) -> tuple[Any, ...]:
        """Shape of the noise for an input, 1 where a draw is shared; sizes that a compiler traces stay traced."""
        return tuple(ops.shape(x))

    def _noised(self, inputs: Any) -> Any:
        raise NotImplementedError

    def _draw(self) -> Draw:
        return engine.recorded(self.seed_generator.draw)

    def _floating(self, inputs: Any) -> Any:
        """The input as a floating tensor: integers have no scaled values, so they become the layer's compute type."""
        x = inputs if ops.is_tensor(inputs) else ops.convert_to_tensor(inputs)  # which NumPy's backend would narrow
        if not keras.backend.is_float_dtype(x.dtype):
            kind, name = self.compute_dtype, self.name  # type: ignore[attr-defined]
            if not keras.backend.is_float_dtype(kind):
                raise DropkitTypeError(
                    f"dropout computes in a floating type, got dtype={kind!r} for {name!r}: make "
                    "it with dtype='float32'"
                )
            x = ops.cast(x, kind)
        return x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Keras' own, the seed, the site where it was given or bound, and `when` where it is not "train"."""
        config = {**keras.layers.Layer.get_config(self), "seed": self.seed}
        if self.seed_generator.keyed:
            config["site"] = self.site
            if not self.named:
                config["bound"] = True
        if self.when != "train":
            config["when"] = self.when
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """A layer from what `get_config` gave; a site that `bind` gave is one that the next `bind` may change."""
        config = dict(config)
        bound = config.pop("bound", False)
        layer = super().from_config(config)  # type: ignore[misc]
        if bound:
            layer.__dict__["_named"] = False
        return layer

    def load_own_variables(self, store: Any) -> None:
        """The weights; and the state where an older dropkit saved it among them."""
        names = list(store.keys())
        super().load_own_variables({name: store[name] for name in names if name != SAVED})  # type: ignore[misc]
        if SAVED in names:
            self.seed_generator.load_own_variables(store)
