"""The former name of `dropkit.jax.nnx`, kept until 1.0."""

from .nnx import AlphaDropout as AlphaDropout
from .nnx import Dropout as Dropout
from .nnx import KeyedStream as KeyedStream
from .nnx import Rate as Rate
from .nnx import Rates as Rates
from .nnx import SpatialDropout1D as SpatialDropout1D
from .nnx import SpatialDropout2D as SpatialDropout2D
from .nnx import SpatialDropout3D as SpatialDropout3D
