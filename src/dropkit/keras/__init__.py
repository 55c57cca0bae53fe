"""dropkit for Keras: its dropout, noise, attention and recurrent layers with keyed masks, moving rates, bound models.

Runs on Keras' torch, JAX, TensorFlow and NumPy backends; the masks are the same bits on each.
"""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:  # pragma: no cover
    raise ModuleNotFoundError('dropkit.keras needs Keras: pip install "dropkit[keras]"', name="keras") from error

from . import engine as _engine

_engine.check_backend()

from .attention import AdditiveAttention as AdditiveAttention  # noqa: E402
from .attention import Attention as Attention  # noqa: E402
from .attention import GroupQueryAttention as GroupQueryAttention  # noqa: E402
from .attention import MultiHeadAttention as MultiHeadAttention  # noqa: E402
from .binding import bind as bind  # noqa: E402
from .binding import sites as sites  # noqa: E402
from .blocks import at as at  # noqa: E402
from .concrete import ConcreteDropout as ConcreteDropout  # noqa: E402
from .contexts import disabled as disabled  # noqa: E402
from .contexts import enabled as enabled  # noqa: E402
from .gaussian import GaussianDropout as GaussianDropout  # noqa: E402
from .gaussian import GaussianNoise as GaussianNoise  # noqa: E402
from .insertion import insert as insert  # noqa: E402
from .layers import AlphaDropout as AlphaDropout  # noqa: E402
from .layers import Dropout as Dropout  # noqa: E402
from .layers import SpatialDropout1D as SpatialDropout1D  # noqa: E402
from .layers import SpatialDropout2D as SpatialDropout2D  # noqa: E402
from .layers import SpatialDropout3D as SpatialDropout3D  # noqa: E402
from .ops import dropout as dropout  # noqa: E402
from .passes import passes as passes  # noqa: E402
from .published import DropBlock1D as DropBlock1D  # noqa: E402
from .published import DropBlock2D as DropBlock2D  # noqa: E402
from .published import DropBlock3D as DropBlock3D  # noqa: E402
from .published import DropPath as DropPath  # noqa: E402
from .published import StochasticDepth as StochasticDepth  # noqa: E402
from .published import Zoneout as Zoneout  # noqa: E402
from .receipt import Receipt as Receipt  # noqa: E402
from .recurrent import GRU as GRU  # noqa: E402
from .recurrent import LSTM as LSTM  # noqa: E402
from .recurrent import ConvLSTM1D as ConvLSTM1D  # noqa: E402
from .recurrent import ConvLSTM2D as ConvLSTM2D  # noqa: E402
from .recurrent import ConvLSTM3D as ConvLSTM3D  # noqa: E402
from .recurrent import GRUCell as GRUCell  # noqa: E402
from .recurrent import LSTMCell as LSTMCell  # noqa: E402
from .recurrent import SimpleRNN as SimpleRNN  # noqa: E402
from .recurrent import SimpleRNNCell as SimpleRNNCell  # noqa: E402
from .schedule import RateSchedule as RateSchedule  # noqa: E402
from .setting import set_rate as set_rate  # noqa: E402
from .surgery import swap as swap  # noqa: E402
from .surgery import unswap as unswap  # noqa: E402
