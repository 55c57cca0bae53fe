"""Dense networks for a table, to be tried with dropout: a price is a regression, yes or no a classification.

cd examples
dropkit compare own_mlp:price --data houses.csv --target price
dropkit compare own_mlp:dear --data houses.csv --target dear --strategies none,as-is,fixed:0.1,gaussian:0.2
"""

from torch import nn


def network(outputs: int) -> nn.Module:
    return nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, outputs))


def price() -> nn.Module:
    return network(1)


def dear() -> nn.Module:
    return network(2)
