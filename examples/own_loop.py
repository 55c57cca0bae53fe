"""A training loop of one's own: any framework, any loop; dropkit brings strategies, seeds and statistics.

Run in this folder: dropkit compare own_loop:train_and_score --strategies none,fixed:0.2,fixed:0.5 --seeds 5
or search the rate, chosen by the validation loss: dropkit tune own_loop:train_and_score --trials 20 --seeds 3
"""

import torch
from torch import nn

from dropkit.lab import load_data

DATA = load_data("digits")
X, Y, TEST_X, TEST_Y = map(torch.from_numpy, (DATA.train_x, DATA.train_y, DATA.test_x, DATA.test_y))


def train_and_score(strategy, seed):
    """Train once; which test samples are told right, and the loss on samples held out."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(strategy.p()), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[100:]), Y[100:]).backward()
        optimizer.step()
    with torch.no_grad():
        held_out = nn.functional.cross_entropy(model.eval()(X[:100]), Y[:100])
        return {"accuracy": model(TEST_X).argmax(1) == TEST_Y, "validation_loss": held_out}
