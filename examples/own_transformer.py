"""A small transformer that predicts the next token, to be tried with dropout on token arrays: X and y, one step on.

cd examples
dropkit compare own_transformer:Model --data tokens.npz --kind next-token --strategies none,as-is,token:0.1
"""

import torch
from torch import Tensor, nn


class Model(nn.Module):
    def __init__(self, vocabulary: int = 16, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.1, batch_first=True)
        self.output = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).triu(1)
        return self.output(self.block(self.embedding(tokens), src_mask=mask))
