"""Pooling, recurrent states, embeddings and scores that drop: beside their equations, step by step."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
import dropkit.torch as dt
from dropkit import Key
from dropkit.axes.share import Prefix
from dropkit.errors import DropkitError, DropkitRuntimeError


class Last(nn.Module):
    """The outputs of a recurrent network alone."""

    def __init__(self, held: nn.Module) -> None:
        super().__init__()
        self.net = held

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)[0]


def kept(shape: tuple[int, ...], p: float, site: str, step: int) -> torch.Tensor:
    return torch.tensor(dropkit.keep(shape, p, Key(4, site, step)).copy())


def called(site: str, number: int) -> str:
    return f"{site}#{number}" if number else site


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_states_without_zoneout_are_torchs(kind: str, both: bool) -> None:
    """In all shapes that torch takes, with its parameters, and from states that are given."""
    rates = {"p": 0.0, "p_c": 0.0} if kind == "LSTM" else {"p": 0.0}
    for first, bias, layers in ((False, True, 2), (True, False, 1)):
        theirs = getattr(nn, kind)(4, 3, layers, bias=bias, batch_first=first, bidirectional=both).double()
        ours = getattr(dt, f"Zoneout{kind}")(
            4, 3, layers, bias=bias, batch_first=first, bidirectional=both, dtype=torch.float64, **rates
        )
        ours.load_state_dict(theirs.state_dict())
        x, before = torch.randn(5, 2, 4).double(), torch.randn(layers * (1 + both), 5 if first else 2, 3).double()
        state = (before, -before) if kind == "LSTM" else before
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours(x, state), theirs(x, state))
        torch.testing.assert_close(ours(x[0]), theirs(x[0]))
        alone = (before[:, 0], -before[:, 0]) if kind == "LSTM" else before[:, 0]
        torch.testing.assert_close(ours(x[0], alone), theirs(x[0], alone))


def test_zoneout_inside_a_network_is_zoneout_by_hand() -> None:
    """Each step has masks of its own for h and for c; h is of the new c before that zones out."""
    model = dt.bind(Last(dt.ZoneoutLSTM(4, 3, p=0.25, p_c=0.5, dtype=torch.float64)), 4)
    cell, x = nn.LSTMCell(4, 3).double(), torch.randn(6, 2, 4).double()
    cell.load_state_dict({name.replace("_l0", ""): weight for name, weight in model.net.named_parameters()})
    h = c = torch.zeros(2, 3).double()
    outputs = []
    for number, each in enumerate(x):
        new_h, new_c = cell(each, (h, c))
        h = torch.where(kept((2, 3), 0.25, called("net.zoneout_h_l0", number), 7), new_h, h)
        c = torch.where(kept((2, 3), 0.5, called("net.zoneout_c_l0", number), 7), new_c, c)
        outputs.append(h)
    with dt.at(step=7):
        torch.testing.assert_close(model(x), torch.stack(outputs))
    h = c = torch.zeros(2, 3).double()
    for each, found in zip(x, model.eval()(x), strict=True):
        new_h, new_c = cell(each, (h, c))
        h, c = 0.75 * new_h + 0.25 * h, 0.5 * new_c + 0.5 * c
        torch.testing.assert_close(found, h)


def test_a_gru_zones_out_by_hand_and_a_state_at_rate_one_is_frozen() -> None:
    model = dt.bind(Last(dt.ZoneoutGRU(4, 3, p=0.5)), 4)
    cell, x, h = nn.GRUCell(4, 3), torch.randn(5, 2, 4), torch.zeros(2, 3)
    cell.load_state_dict({name.replace("_l0", ""): weight for name, weight in model.net.named_parameters()})
    with dt.at(step=1):
        y = model(x)
    for number, each in enumerate(x):
        h = torch.where(kept((2, 3), 0.5, called("net.zoneout_h_l0", number), 1), cell(each, h), h)
        torch.testing.assert_close(y[number], h)
    frozen, start = dt.ZoneoutLSTM(4, 3, p=1.0, p_c=1.0), (torch.randn(1, 2, 3), torch.randn(1, 2, 3))
    for mode in (True, False):
        y, (h, c) = frozen.train(mode)(x, start)
        assert torch.equal(h, start[0]) and torch.equal(c, start[1]) and torch.equal(y, start[0].expand(5, 2, 3))


def test_everything_knows_a_network_that_zones_out() -> None:
    model, x = Last(dt.ZoneoutLSTM(4, 3)), torch.randn(5, 2, 4)
    found = {site.name: site.p for site in dt.sites(model, x)}
    assert found == {"net.zoneout_h_l0": 0.05, "net.zoneout_c_l0": 0.5}
    dt.set_rate(model, "*_c_*", 0.25)
    assert model.net.zoneout_c_l0.p == 0.25
    assert dt.check(dt.bind(model, 1), x).ok
    again = copy.deepcopy(model)
    assert torch.equal(model(x), again(x))
    told = str(dropkit.explain(model, x))
    assert "net.zoneout_c_l0 is called 5 times in a forward, each with a mask of its own" in told


def test_a_unit_is_taken_as_often_as_it_is_large() -> None:
    """Chi-square of 4,000 windows at a fixed key, 1e-6; a window of zeros gives 0, a negative unit is never taken."""
    from scipy import stats

    a = torch.tensor([[1.0, 2.0], [3.0, -4.0]]).expand(4000, 1, 2, 2)
    with dt.at(seed=1, site="pool", step=0):
        y = dt.StochasticPool2d(2)(a).flatten()
    counts = [int((y == value).sum()) for value in (1, 2, 3)]
    assert sum(counts) == 4000
    assert stats.chisquare(counts, [4000 / 6, 4000 / 3, 4000 / 2]).pvalue > 1e-6
    pool = dt.StochasticPool2d(3, 2, 1)
    for mode in (True, False):
        assert pool.train(mode)(-torch.ones(1, 1, 5, 5)).eq(0).all()
        assert pool(torch.ones(1, 5, 5)).eq(1).all() and pool(torch.ones(2, 3, 6, 7)).shape == (2, 3, 3, 4)


@pytest.mark.parametrize("low", [-1.0, 0.5])
def test_max_pool_dropout_is_evaluated_by_its_expectation(low: float) -> None:
    """Over all 16 masks of a window; padding and overlaps as in max pooling, which it is at p = 0."""
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) + low
    expected = torch.zeros(2, 1, 2, 2)
    for bits in np.ndindex(2, 2, 2, 2):
        mask = torch.tensor(bits).reshape(2, 2).repeat(2, 2)
        expected += 0.75 ** sum(bits) * 0.25 ** (4 - sum(bits)) * F.max_pool2d(x * mask, 2)
    torch.testing.assert_close(dt.MaxPoolDropout2d(2, 0.25).eval()(x), expected)
    for how in ({"stride": 1}, {"stride": 2, "padding": 1}, {"padding": (1, 0)}):
        pool = dt.MaxPoolDropout2d(2, 0.0, **how)
        theirs = F.max_pool2d(x, 2, how.get("stride"), how.get("padding", 0))
        for mode in (True, False):
            torch.testing.assert_close(pool.train(mode)(x), theirs)
    with dt.at(seed=1, site="pool", step=0):
        y = dt.MaxPoolDropout2d(2, 0.5, 1)(x)
    mask = torch.tensor(dropkit.keep((2, 1, 4, 4), 0.5, Key(1, "pool", 0)).copy())
    assert torch.equal(y, F.max_pool2d(torch.where(mask, x, 0.0), 2, 1))


def test_embedding_noise_has_the_published_size_and_stands_behind_embeddings() -> None:
    x = torch.zeros(3, 20, 50)
    with dt.at(seed=1, site="noise", step=0):
        y = dt.EmbeddingNoise(10.0)(x)
    size = 10 / (20 * 50) ** 0.5
    u = torch.tensor(dropkit.uniform((3, 20, 50), Key(1, "noise", 0)))
    torch.testing.assert_close(y, size * (2 * u - 1))
    assert dt.EmbeddingNoise(10.0).eval()(x) is x and dt.EmbeddingNoise(0.0)(x) is x

    class Model(nn.Module):  # as those of transformers
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places, self.head = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 9)

        def get_input_embeddings(self) -> nn.Module:
            return self.words

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.words(ids) + self.places.weight[: ids.shape[1]])

    model, ids = Model(), torch.tensor([[1, 2, 3]])
    keys = list(model.state_dict())
    receipt = dt.insert(model, model.get_input_embeddings(), dt.EmbeddingNoise(5.0))
    assert [site.name for site in dt.sites(model, ids)] == ["words.dropkit_drop"]
    assert list(model.state_dict()) == keys and not torch.equal(model(ids), model(ids))
    assert "(EmbeddingNoise, p 0.25) adds noise to " in str(dropkit.explain(model, ids))
    receipt.restore()
    assert torch.equal(model(ids), model(ids))
    with pytest.raises(DropkitError, match="matches nothing"):
        dt.insert(model, nn.Embedding(9, 4), dt.EmbeddingNoise(5.0))


def test_a_query_whose_keys_would_all_go_keeps_its_scores() -> None:
    """P35: rows sum to 1, at any rate and under a causal mask too; which keys go says `keep`."""
    scores = torch.randn(2, 3, 4, 5)
    with dt.at(seed=1, site="keys", step=0):
        y = dt.DropKey(0.5)(scores)
    mask = torch.tensor(dropkit.keep((2, 3, 4, 5), 0.5, Key(1, "keys", 0), share=(2,)).copy()).expand(2, 3, 4, 5)
    some = mask.any(-1, keepdim=True)
    assert torch.equal(y, torch.where(mask | ~some, scores, -torch.inf))
    causal = scores.masked_fill(torch.ones(4, 5).triu(1).bool(), -torch.inf)
    for p in (0.5, 1.0):
        for given, inplace in ((scores, False), (causal, False), (causal.clone(), True)):
            weights = dt.DropKey(p, inplace)(given).softmax(-1)
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4))
    grad = scores.clone().requires_grad_()
    dt.DropKey(0.5)(grad).softmax(-1)[..., 0].sum().backward()
    assert grad.grad.isfinite().all()
    assert dt.DropKey(0.5, share=())(scores).isneginf().any()


def test_the_first_units_stay_and_the_mean_rate_is_the_rate() -> None:
    """Counts of each unit over 20,000 samples within 5 standard errors of r^j; nothing is rescaled."""
    with dt.at(seed=1, site="nested", step=0):
        y = dt.NestedDropout(0.5)(torch.full((20_000, 8), 3.0))
    assert set(y.unique().tolist()) == {0.0, 3.0} and bool((y[:, 1:] <= y[:, :-1]).all())
    stays = (y > 0).double().mean(0)
    r = stays[1]
    assert abs(float(stays.mean()) - 0.5) < 0.02
    for j in range(8):
        assert abs(stays[j] - r**j) < 5 * (0.25 / 20_000) ** 0.5 * (j + 1)
    law = [0, 0, 0, 1, 0, 0, 0, 1]  # four units or all eight, each half of the time: p = 1/4
    with dt.at(seed=1, site="nested", step=0):
        units = (dt.NestedDropout(0.25, law=law)(torch.ones(4000, 8)) > 0).sum(1)
    assert set(units.tolist()) == {4, 8} and abs(float((units == 4).double().mean()) - 0.5) < 0.04
    channels = dt.NestedDropout(0.5, over=1, axes=(2, 3))(torch.ones(4, 6, 3, 3))
    assert torch.equal(channels, channels[..., :1, :1].expand_as(channels))


def test_words_are_replaced_each_place_by_itself_but_for_those_that_are_spared() -> None:
    ids = torch.randint(2, 9, (40, 20), generator=torch.Generator().manual_seed(0))
    ids[:, 15:] = 0
    with dt.at(seed=1, site="words", step=0):
        y = dt.WordDropout(0.25, unknown=1, spare=(0,))(ids)
    mask = torch.tensor(dropkit.keep((40, 20), 0.25, Key(1, "words", 0)).copy())
    assert torch.equal(y, torch.where(mask | (ids == 0), ids, 1)) and y.dtype == torch.int64
    model = nn.Sequential(dt.WordDropout(0.25, unknown=1), nn.Embedding(9, 4), nn.Linear(4, 2))
    (site,) = dt.sites(model, ids)
    assert (site.name, site.p, site.mask_shape) == ("0", 0.25, (40, 20))
    assert "replaces words by the one that stands for unknown words" in str(dropkit.explain(model, ids))
    assert dt.check(dt.bind(model, 1), ids).ok


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: dt.ZoneoutLSTM(4, 3, p=1.5), "1.5"),
        (lambda: dt.ZoneoutLSTM(4, 3)(torch.ones(2, 3)), "takes T x N x 4 or T x 4, got (2, 3)"),
        (lambda: dt.ZoneoutLSTM(4, 3)(torch.ones(2, 2, 4), torch.ones(1, 2, 3)), "starts from 2 of shape (1, 2, 3)"),
        (
            lambda: dt.ZoneoutGRU(4, 3)(nn.utils.rnn.pack_sequence([torch.ones(2, 4)])),
            "takes a padded tensor, got a PackedSequence",
        ),
        (lambda: dt.StochasticPool2d(0), "kernel_size must be at least 1, got 0"),
        (lambda: dt.StochasticPool2d("2"), "kernel_size must be a whole number or two of them, got '2'"),
        (lambda: dt.StochasticPool2d(2, padding=2), "padding must be at most half of kernel_size, got 2 and 2"),
        (lambda: dt.StochasticPool2d(2)(torch.ones(4, 4)), "takes N x C x H x W or C x H x W"),
        (lambda: setattr(dt.StochasticPool2d(2), "p", 0.1), "so p cannot be set to 0.1"),
        (lambda: dt.MaxPoolDropout2d(2, -0.1), "-0.1"),
        (lambda: dt.EmbeddingNoise(-1.0), "alpha must be a finite number of at least 0, got -1.0"),
        (lambda: dt.EmbeddingNoise(1.0)(torch.ones(3)), "takes batch x length x width, got (3,)"),
        (lambda: dt.WordDropout(0.5, unknown=-1), "unknown must be a whole number of at least 0, got -1"),
        (lambda: dt.WordDropout(0.5, unknown=1, spare=[0.5]), "spare must be a whole number of at least 0, got 0.5"),
        (lambda: dt.WordDropout(0.5, unknown=1)(torch.ones(3)), "takes numbers of words, which are whole, got"),
        (lambda: dt.GaussianNoise(0.0), "scale must be a finite number above 0, got 0.0"),
        (lambda: dt.NestedDropout(0.5, law="normal"), "law must be 'geometric', 'uniform' or weights of prefixes"),
        (lambda: dt.NestedDropout(0.5, law=[0, 0, 1]), "weights of prefixes must be finite"),
        (lambda: dt.NestedDropout(0.5, law=7), "law must be 'geometric', 'uniform' or weights of prefixes, got 7"),
        (lambda: dt.NestedDropout(0.5, law=[1, 1])(torch.ones(2, 3)), "has 2 weights of prefixes, but its axis has 3"),
        (lambda: Prefix((0, 1)), "over must name one axis"),
        (
            lambda: dt.NestedDropout(0.5, over=1, axes=(1,))(torch.ones(2, 3)),
            "tells apart entries that axes (1,) share",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(DropkitError) as error:
        make()
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_torchscript_is_refused_with_the_way_out() -> None:
    with pytest.raises(DropkitRuntimeError, match=r"TorchScript knows .* not StochasticPool2d"):
        torch.jit.script(dt.StochasticPool2d(2))


def test_explain_says_what_they_do() -> None:
    """What puts no mask on its input is not told to zero a part of it."""

    class Two(nn.Module):
        def __init__(self, join: nn.Module) -> None:
            super().__init__()
            self.a, self.b, self.join = nn.Linear(4, 4), nn.Linear(4, 4), join

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.join(self.a(x), self.b(x))

    for join, words in (
        (dt.ShakeShake(), "mixes branches by random numbers, and their gradients by others: one draw per sample."),
        (dt.FractalJoin(0.3), "gives the mean of the branches that are kept, one at least."),
    ):
        told = str(dropkit.explain(Two(join), torch.randn(3, 4)))
        assert words in told and "zeroes a part" not in told and "sub-networks" not in told
    maps = nn.Sequential(nn.Conv2d(1, 2, 3), dt.StochasticPool2d(2))
    explained = dropkit.explain(maps, torch.randn(2, 1, 8, 8))
    assert "takes one unit of each window of the output of 0 (Conv2d) at random" in str(explained)
    assert not [one for one in dropkit.doctor(maps, torch.randn(2, 1, 8, 8)).findings if one.code == "DK115"]
