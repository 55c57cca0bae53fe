"""Dropout of branches and layers: what is dropped is not computed where a module wraps it."""

from .layer_drop import LayerDrop as LayerDrop
from .layer_drop import every_other as every_other
from .mixing import FractalJoin as FractalJoin
from .mixing import Swapout as Swapout
from .path import DropPath as DropPath
from .path import StochasticDepth as StochasticDepth
from .path import drop_path as drop_path
from .path import stochastic_depth as stochastic_depth
from .residual import ResidualDrop as ResidualDrop
from .shake import ShakeDrop as ShakeDrop
from .shake import ShakeShake as ShakeShake
