"""Published figures of learned dropout rates, reproduced with dropkit; each beside what was printed.

    python benchmarks/learned.py concrete-regression           # T3a: six sizes of a linear data set, minutes
    python benchmarks/learned.py concrete-mnist --data-dir D   # T3b: a small CNN, tens of minutes on one core
    python benchmarks/learned.py sparse-vd --data-dir D        # T4: 784-300-10, minutes; then the smaller network

Masks and weights follow from the seed: a run repeats itself.
"""

import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from dropkit.lab.data.sets import load_data
from dropkit.torch import at
from dropkit.torch.learned import (
    ConcreteDropout,
    SparseVariationalLinear,
    SpatialConcreteDropout,
    rates,
    regularizer,
    sparsify,
)

# N: epochs, then the printed mean rates of the authors' Keras notebook (Gal, Hron, Kendall 2017).
REGRESSION = {
    10: (2000, (0.077, 0.404, 0.404, 0.403, 0.404)),
    25: (1000, (0.069, 0.404, 0.403, 0.403, 0.404)),
    50: (500, (0.071, 0.326, 0.325, 0.325, 0.326)),
    100: (200, (0.079, 0.236, 0.236, 0.236, 0.236)),
    1000: (20, (0.075, 0.231, 0.225, 0.224, 0.233)),
    10000: (2, (0.079, 0.137, 0.127, 0.112, 0.169)),
}


class Heteroscedastic(nn.Module):
    """1 - 1024 - 1024 - 1024 with a mean and a log-variance head, concrete dropout before each of the five layers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(1, 1024), (1024, 1024), (1024, 1024), (1024, 1), (1024, 1)]
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.drops = nn.ModuleList(ConcreteDropout(0.1, layer=layer, length_scale=1e-4) for layer in self.layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for number in range(3):
            x = functional.relu(self.part(number, x))
        return self.part(3, x), self.part(4, x)

    def part(self, number: int, x: Tensor) -> Tensor:
        with at(site=number):
            return self.layers[number](self.drops[number](x))


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """One epoch's row numbers in batches."""
    yield from torch.randperm(n, generator=generator).split(size)


def concrete_regression(repeats: int) -> None:
    """Gal, Hron, Kendall 2017, one-dimensional demo: the rate falls as data grow."""
    print("N        p of [input, hidden 1, hidden 2, mean head, log-variance head]   RMSE   seconds")
    for n, (epochs, printed) in REGRESSION.items():
        start = time.perf_counter()
        runs = [_regression(n, epochs, seed) for seed in range(repeats)]
        p = torch.stack([run[0] for run in runs]).mean(0)
        rmse = sum(run[1] for run in runs) / repeats
        print(f"{n:<8d} {_row(p.tolist())}   {rmse:.2f}   {time.perf_counter() - start:.0f}", flush=True)
        print(f"printed  {_row(printed)}", flush=True)


def _row(values: tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _regression(n: int, epochs: int, seed: int) -> tuple[Tensor, float]:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n + 1000, 1, generator=generator)
    y = 2 * x + 8 + torch.randn(n + 1000, 1, generator=generator)
    model = Heteroscedastic()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    step = 0
    for _ in range(epochs):
        for rows in batches(n, 20, generator):
            with at(seed=seed, site=0, step=step):
                mean, log_variance = model(x[rows])
            loss = ((y[rows] - mean) ** 2 * torch.exp(-log_variance) + log_variance).mean()
            loss = loss + regularizer(model, n=n, nll_scale=2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    means = []
    with torch.no_grad():
        for drop in model.drops:
            drop.when = "always"
        model.eval()
        for sample in range(20):
            with at(seed=seed, site=0, step=step + sample):
                means.append(model(x[n:])[0])
    rmse = (torch.stack(means).mean(0) - y[n:]).pow(2).mean().sqrt().item()
    return torch.stack(list(rates(model).values())), rmse


class Digits(nn.Module):
    """conv 32 - conv 64 - pool - dense 128 - dense 10, concrete dropout before each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.Linear(9216, 128), nn.Linear(128, 10)]
        )
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.drops = nn.ModuleList(
            kind(0.1, layer=layer, length_scale=0.1)
            for kind, layer in zip([SpatialConcreteDropout] * 2 + [ConcreteDropout] * 2, self.layers, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.part(0, x))
        x = functional.max_pool2d(functional.relu(self.part(1, x)), 2).flatten(1)
        x = functional.relu(self.part(2, x))
        return self.part(3, x)

    def part(self, number: int, x: Tensor) -> Tensor:
        with at(site=number):
            return self.layers[number](self.drops[number](x))


def concrete_mnist(data_dir: str | None, epochs: int) -> None:
    """The authors' MNIST notebook: printed after 20 epochs p = .0121 .0386 .4776 .0550, test accuracy .9892."""
    train_x, train_y, test_x, test_y = mnist(data_dir, 0.0, 1.0)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Digits()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0, rho=0.95, eps=1e-7)
    step = 0
    for epoch in range(epochs):
        model.train()
        start = time.perf_counter()
        for rows in batches(len(train_x), 128, generator):
            with at(seed=0, site=0, step=step):
                loss = functional.cross_entropy(model(train_x[rows]), train_y[rows])
            # The notebook's 1e-2 / N and 2 / N.
            loss = loss + regularizer(model, n=len(train_x), nll_scale=2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        p = [value.item() for value in rates(model).values()]
        print(
            f"epoch {epoch + 1}: p = {' '.join(f'{v:.4f}' for v in p)}, test accuracy "
            f"{accuracy(model, test_x, test_y):.4f}, {time.perf_counter() - start:.0f} s",
            flush=True,
        )


def sparse_vd(data_dir: str | None, epochs: int, seed: int) -> None:
    """Molchanov et al. 2017 on 784-300-10; the author's short notebook prints 98.4 %, ratio 35.6, and 98.3 %, 30.1."""
    train_x, train_y, test_x, test_y = (t.flatten(1) if t.dim() > 2 else t for t in mnist(data_dir, 0.1307, 0.3081))
    n = len(train_x)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    layers = [SparseVariationalLinear(784, 300), SparseVariationalLinear(300, 10)]
    for layer in layers:
        nn.init.normal_(layer.weight, 0, 0.02)
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    # The notebook's parameter is ln sigma, half of ours: under Adam the same steps are twice as long here.
    groups = [
        {"params": [p for name, p in model.named_parameters() if "log_sigma2" not in name], "lr": 1e-3},
        {"params": [layer.log_sigma2 for layer in layers], "lr": 2e-3},
    ]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [50, 60, 70, 80], 0.2)
    step = 0
    for epoch in range(epochs):
        model.train()
        start = time.perf_counter()
        for rows in batches(n, 100, generator):
            hidden = train_x[rows]
            for number, part in enumerate(model):
                with at(seed=seed, site=number, step=step):
                    hidden = part(hidden)
            loss = functional.cross_entropy(hidden, train_y[rows])
            loss = n * (loss + regularizer(model, n=n, weight=min(1.0, 0.02 + 0.02 * epoch)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        schedule.step()
        if epoch % 5 == 4 or epoch < 2:
            print(
                f"epoch {epoch + 1}: {_state(model, test_x, test_y)}, {time.perf_counter() - start:.1f} s", flush=True
            )
    _smaller(model, test_x, test_y)


def _state(model: nn.Sequential, x: Tensor, y: Tensor) -> str:
    kept = [layer.kept() for layer in model if isinstance(layer, SparseVariationalLinear)]
    gone = " ".join(f"{1 - k.float().mean().item():.3f}" for k in kept)
    ratio = sum(k.numel() for k in kept) / sum(int(k.sum()) for k in kept)
    return f"test accuracy {accuracy(model, x, y):.4f}, sparsity {gone}, ratio {ratio:.1f}"


def _smaller(model: nn.Sequential, x: Tensor, y: Tensor) -> None:
    small = sparsify(model.eval())
    with torch.no_grad():
        difference = (model(x) - small(x)).abs().max().item()
    print(small)
    for name, network in (("trained", model), ("sparsified", small)):
        weights = sum(p.numel() for key, p in network.named_parameters() if "log_sigma2" not in key)
        print(f"{name}: {weights} weights and biases, test accuracy {accuracy(network, x, y):.4f}")
    print(f"largest difference of the outputs on the test set: {difference:.2g}", flush=True)


def mnist(data_dir: str | None, mean: float, std: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """MNIST as N x 1 x 28 x 28, standardised."""
    data = load_data("mnist", data_dir)
    images = [(torch.from_numpy(part).unsqueeze(1) - mean) / std for part in (data.train_x, data.test_x)]
    return images[0], torch.from_numpy(data.train_y), images[1], torch.from_numpy(data.test_y)


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Of the deterministic network."""
    model.eval()
    guesses = torch.cat([model(part).argmax(-1) for part in x.split(1000)])
    return (guesses == y).float().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["concrete-regression", "concrete-mnist", "sparse-vd"])
    parser.add_argument("--data-dir", help="folder with mnist/ in it; otherwise DROPKIT_DATA, or a download")
    parser.add_argument("--epochs", type=int, help="20 for concrete-mnist, 100 for sparse-vd")
    parser.add_argument("--repeats", type=int, default=3, help="of concrete-regression")
    parser.add_argument("--seed", type=int, default=0, help="of sparse-vd")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "concrete-regression":
        concrete_regression(given.repeats)
    elif given.what == "concrete-mnist":
        concrete_mnist(given.data_dir, given.epochs or 20)
    else:
        sparse_vd(given.data_dir, given.epochs or 100, given.seed)
