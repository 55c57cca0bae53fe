"""Layers of flax.nnx whose dropout coordinates can key, by flax' signatures: dropout, attention, recurrent networks."""

from .attention import MultiHeadAttention as MultiHeadAttention
from .attention import dot_product_attention as dot_product_attention
from .layers import AlphaDropout as AlphaDropout
from .layers import DropBlock2D as DropBlock2D
from .layers import Dropout as Dropout
from .layers import DropPath as DropPath
from .layers import GaussianDropout as GaussianDropout
from .layers import KeyedStream as KeyedStream
from .layers import Rate as Rate
from .layers import Rates as Rates
from .layers import SpatialDropout1D as SpatialDropout1D
from .layers import SpatialDropout2D as SpatialDropout2D
from .layers import SpatialDropout3D as SpatialDropout3D
from .layers import Zoneout as Zoneout
from .recurrent import RNN as RNN
