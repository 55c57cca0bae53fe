"""dropkit for PyTorch: a drop-in `Dropout`, a `dropout` function without traps, and models whose masks are keyed."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:  # pragma: no cover
    raise ModuleNotFoundError('dropkit.torch needs PyTorch: pip install "dropkit[torch]"', name="torch") from error

from . import depth as depth
from . import functional as functional
from . import graphs as graphs
from . import learned as learned
from . import tokens as tokens
from . import weights as weights
from .attention.call import attention as attention
from .attention.flex import flex_attention as flex_attention
from .attention.mask import attention_mask_block as attention_mask_block
from .attention.merge import merge_attention as merge_attention
from .binding import bind as bind
from .bound.state import plain_state_dict as plain_state_dict
from .changing.contexts import disabled as disabled
from .changing.contexts import enabled as enabled
from .changing.passes import passes as passes
from .changing.receipt import Receipt as Receipt
from .changing.rewind import replay as replay
from .changing.surgery import insert as insert
from .changing.surgery import set_rate as set_rate
from .changing.surgery import strip as strip
from .changing.surgery import swap as swap
from .depth import DropPath as DropPath
from .depth import FractalJoin as FractalJoin
from .depth import LayerDrop as LayerDrop
from .depth import ResidualDrop as ResidualDrop
from .depth import ShakeDrop as ShakeDrop
from .depth import ShakeShake as ShakeShake
from .depth import StochasticDepth as StochasticDepth
from .depth import Swapout as Swapout
from .drawing.coordinates import at as at
from .embedded import EmbeddingNoise as EmbeddingNoise
from .embedded import WordDropout as WordDropout
from .finding.inventory import Site as Site
from .finding.inventory import sites as sites
from .finding.inventory import table as table
from .finding.selftest import Report as Report
from .finding.selftest import check as check
from .fused import bias_act_dropout as bias_act_dropout
from .fused import dropout_add as dropout_add
from .fused import dropout_add_norm as dropout_add_norm
from .graphs import DropEdge as DropEdge
from .graphs import DropMessage as DropMessage
from .graphs import DropNode as DropNode
from .heads import MultiSampleDropout as MultiSampleDropout
from .heads import fraternal_loss as fraternal_loss
from .heads import r_drop_loss as r_drop_loss
from .layers import AlphaDropout as AlphaDropout
from .layers import Dropout as Dropout
from .layers import Dropout1d as Dropout1d
from .layers import Dropout2d as Dropout2d
from .layers import Dropout3d as Dropout3d
from .layers import FeatureAlphaDropout as FeatureAlphaDropout
from .learned import rates as rates
from .learned import regularizer as regularizer
from .learned import sparsify as sparsify
from .moving.callbacks import huggingface_callback as huggingface_callback
from .moving.callbacks import lightning_callback as lightning_callback
from .moving.rate_log import RateLog as RateLog
from .moving.schedule import Schedule as Schedule
from .ops import dropout as dropout
from .pipelines import pipelined as pipelined
from .pooling import MaxPoolDropout2d as MaxPoolDropout2d
from .pooling import StochasticPool2d as StochasticPool2d
from .recurrent import ZoneoutGRU as ZoneoutGRU
from .recurrent import ZoneoutLSTM as ZoneoutLSTM
from .release import reseed as reseed
from .release import unbind as unbind
from .tokens import Cutout as Cutout
from .tokens import PatchDropout as PatchDropout
from .tokens import TokenDrop as TokenDrop
from .variants import DropBlock1d as DropBlock1d
from .variants import DropBlock2d as DropBlock2d
from .variants import DropBlock3d as DropBlock3d
from .variants import DropHead as DropHead
from .variants import DropKey as DropKey
from .variants import GaussianDropout as GaussianDropout
from .variants import GaussianNoise as GaussianNoise
from .variants import LockedDropout as LockedDropout
from .variants import LogNormalDropout as LogNormalDropout
from .variants import NestedDropout as NestedDropout
from .variants import RawDropout as RawDropout
from .variants import UniformDropout as UniformDropout
from .variants import Zoneout as Zoneout
from .weights import DropConnect as DropConnect
from .weights import EmbeddingDropout as EmbeddingDropout
from .weights import WeightDrop as WeightDrop


def __getattr__(name: str) -> object:
    # torch.distributed.tensor takes a second to load, and few need it
    if name == "ShardedDropout":
        from .sharding import ShardedDropout

        return ShardedDropout
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
