"""Dropout for Equinox: its class and signature, and models whose dropouts are keyed by seed, path and step.

Equinox calls a model on one sample, under `jax.vmap(model, axis_name="batch")`, and a model is a value that does not
change. So `bind` gives back a model whose dropouts know seed and path, `with_step` one whose dropouts know the step
too, and a sample's place in the batch comes from the axis' name, as for `eqx.nn.BatchNorm`. No key is handed through.
"""

from .attention import MultiheadAttention as MultiheadAttention
from .binding import bind as bind
from .binding import passes as passes
from .binding import with_step as with_step
from .layers import AlphaDropout as AlphaDropout
from .layers import Dropout as Dropout
from .layers import Site as Site
from .recurrent import GRUCell as GRUCell
from .recurrent import LSTMCell as LSTMCell
from .surgery import restore as restore
from .surgery import swap as swap
from .tree import sites as sites
