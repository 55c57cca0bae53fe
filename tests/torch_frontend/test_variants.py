"""torch's classes of published dropouts: each is its entry of the grid, and all that knows a dropout knows it."""

import copy
import pickle

import pytest
import torch
from scipy import stats
from torch import nn
from torch.fx import symbolic_trace

import dropkit
import dropkit.torch as dt
from dropkit import grid
from dropkit.axes.share import Axes, Block
from dropkit.errors import DropkitError
from dropkit.torch import layers, variants

SHAPES = {"DropBlock1d": (4, 3, 12), "DropBlock3d": (2, 3, 4, 5, 6), "LockedDropout": (5, 4, 6)}
MADE = {
    name: getattr(dt, name)(*{"DropBlock": (0.25, 3), "GaussianN": (1.0, 0.25)}.get(name[:9], (0.25,)))
    for name, kind in vars(variants).items()
    if isinstance(kind, type) and issubclass(kind, layers.Dropout) and kind.__module__ == variants.__name__
    if not name.startswith("_")
}


def drawn(drop: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with dt.at(seed=3, site="a", step=1):
        return drop(x, x * 2) if isinstance(drop, dt.Zoneout) else drop(x)


@pytest.mark.parametrize("name", MADE)
def test_a_class_is_a_dropout_of_its_noise_and_share(name: str) -> None:
    drop, x = MADE[name], torch.randn(SHAPES.get(name, (4, 3, 8, 8)), generator=torch.Generator().manual_seed(0))
    plain = dt.Dropout(0.25, share=drop.share, noise=drop.noise)
    y = drawn(drop, x)
    with dt.at(seed=3, site="a", step=1):
        other = (x * 2,) if isinstance(drop, dt.Zoneout) else ()
        assert torch.equal(y, plain(x, *other))
    for same in (copy.deepcopy(drop), pickle.loads(pickle.dumps(drop))):
        assert torch.equal(drawn(same, x), y)
        assert repr(same) == repr(drop)
    assert drop.state_dict() == {}
    if not isinstance(drop, dt.Zoneout | dt.RawDropout):
        assert copy.deepcopy(drop).eval()(x) is x


@pytest.mark.parametrize("name", [name for name in MADE if name != "Zoneout"])
def test_bind_sites_set_rate_and_schedules_know_it(name: str) -> None:
    x = torch.randn(SHAPES.get(name, (4, 3, 8, 8)))
    model = nn.Sequential(nn.Identity(), copy.deepcopy(MADE[name]))
    (site,) = dt.sites(model, x)
    assert (site.noise, site.p) == (MADE[name].noise, 0.25)
    dt.bind(model, 1)
    dt.set_rate(model, "1", 0.5)
    assert model[1].p == 0.5
    schedule = dt.Schedule(model, dropkit.axes.rate.Linear(0.5, 0.0, 10))
    schedule.step()
    assert model[1].p == 0.45
    assert dt.check(model, x).ok


def test_an_entry_of_the_grid_is_what_its_class_does() -> None:
    for name, variant in grid.items():
        if variant.torch in MADE and name != "dropblock_clipped":
            drop = MADE[variant.torch]
            assert drop.noise == variant.noise
    assert dt.DropBlock2d(0.1, 7).share == grid["dropblock"].share == Block(7)
    assert dt.DropBlock2d(0.1, 7, clipped=True).share == grid["dropblock_clipped"].share
    assert Axes(dt.LockedDropout(0.1, batch_first=True).share) == grid["locked"].share
    assert Axes(dt.DropHead(0.1).share) == grid["drop_head"].share


def test_blocks_have_torchvisions_signature_and_drop_what_is_asked() -> None:
    """The mean over 400 maps of 14 x 14 within 5 standard errors, each map one observation; even sizes too."""
    for size in (7, 4):
        for p in (0.1, 0.3, 0.5):
            drop = dt.DropBlock2d(p, size, False)
            with dt.at(seed=1, site="blocks", step=0):
                rates = (drop(torch.ones(400, 1, 14, 14)) == 0).double().mean((1, 2, 3))
            assert abs(rates.mean() - p) < 5 * rates.std() / 20
            assert (drop.block_size, drop.drop_prob) == (size, p)
    for bad in (torch.ones(3, 14, 14), torch.ones(14)):
        with pytest.raises(DropkitError, match=r"input should be 4 dimensional\. Got "):
            dt.DropBlock2d(0.1, 3)(bad)
    with pytest.raises(DropkitError, match="size must be an int of at least 1"):
        dt.DropBlock2d(0.1, 0)
    with pytest.raises(DropkitError, match="needs a second tensor"):
        dt.Zoneout(0.5)(torch.ones(3))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_blocks_do_what_torchvisions_own_tests_ask_of_its_class(dim: int) -> None:
    """A block as large as the map drops all of a channel or nothing, as often as asked; fx sees one leaf.

    Two-sided binomial at 1e-6. Their rate for smaller blocks is another; ours is the one that is asked for.
    """
    kind, extents = getattr(dt, f"DropBlock{dim}d"), (11,) * dim
    for p in (0.2, 0.8):
        for inplace in (False, True):
            with dt.at(seed=1, site="blocks", step=0):
                y = kind(p, 11, inplace=inplace)(torch.ones(40, 5, *extents)).flatten(2)
            gone = (y == 0).all(2)
            assert torch.equal(gone, (y == 0).any(2))
            assert stats.binomtest(int(gone.sum()), gone.numel(), p).pvalue > 1e-6
            assert torch.equal(y[~gone].unique(), torch.tensor([65536 / round((1 - p) * 65536)]))
    graph = symbolic_trace(nn.Sequential(kind(0.2, 3)))
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
    x = torch.ones(2, 3, *extents)
    assert kind(0.0, 3)(x) is x and kind(0.5, 3).eval()(x) is x and kind(1.0, 3)(x).eq(0).all()


def test_a_sample_is_not_scaled_by_what_others_kept() -> None:
    """Where both published classes divide by the count of the whole batch: one scale, whichever samples are there."""
    drop = dt.DropBlock2d(0.3, 3)
    with dt.at(seed=1, site="blocks", step=0):
        whole = drop(torch.ones(8, 2, 9, 9))
    with dt.at(seed=1, site="blocks", step=0, rows=[5]):
        assert torch.equal(drop(torch.ones(1, 2, 9, 9)), whole[5:6])
