"""Dropout rates that are learned: each a module whose rate is a parameter, whose noise is a function of coordinates."""

from .antithetic import antithetic_backward as antithetic_backward
from .base import Learned as Learned
from .bernoulli import LearnableBernoulli as LearnableBernoulli
from .concrete import ConcreteDropout as ConcreteDropout
from .concrete import SpatialConcreteDropout as SpatialConcreteDropout
from .groups import groups as groups
from .hard_concrete import HardConcrete as HardConcrete
from .hypergradient import hypergradient_backward as hypergradient_backward
from .rates import Diagnosis as Diagnosis
from .rates import Watch as Watch
from .rates import diagnose as diagnose
from .rates import rate_parameters as rate_parameters
from .rates import rates as rates
from .regularizer import regularizer as regularizer
from .regularizer import sites as sites
from .sparse import SparseVariationalConv2d as SparseVariationalConv2d
from .sparse import SparseVariationalLinear as SparseVariationalLinear
from .sparsify import sparsify as sparsify
from .standout import Standout as Standout
from .variational import VariationalGaussianDropout as VariationalGaussianDropout
from .variational import VariationalLinear as VariationalLinear
