"""dropkit for NumPy: dropout as a function, and layers with explicit forward and backward, for networks by hand."""

from .layers import Dense as Dense
from .layers import Dropout as Dropout
from .layers import Sequential as Sequential
from .layers import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .learned import ConcreteDropout as ConcreteDropout
from .ops import alpha_dropout as alpha_dropout
from .ops import alpha_dropout_backward as alpha_dropout_backward
from .ops import dropout as dropout
from .ops import dropout_backward as dropout_backward
