"""A training loop of one's own: any framework, any loop; dropkit brings strategies, seeds and statistics.

Run in this folder: dropkit compare own_loop:train_and_score --strategies none,fixed:0.2,fixed:0.5 --seeds 5
"""

import torch
from torch import nn

from dropkit.lab import load_data

DATA = load_data("digits")
TRAIN, TEST = (
    (torch.from_numpy(x), torch.from_numpy(y)) for x, y in ((DATA.train_x, DATA.train_y), (DATA.test_x, DATA.test_y))
)


def train_and_score(strategy, seed):
    """Train once; which test samples are told right."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(strategy.p()), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(TRAIN[0]), TRAIN[1]).backward()
        optimizer.step()
    return {"accuracy": model.eval()(TEST[0]).argmax(1) == TEST[1]}
