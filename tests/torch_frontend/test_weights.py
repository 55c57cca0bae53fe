"""Weights that drop: by which bits, with which gradients, and that the parameters themselves are left alone."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import dropkit
import dropkit.torch as dt
from dropkit import Key
from dropkit.axes.noise import Gaussian, Mixout, Raw, Shakeout, Zoneout
from dropkit.axes.rate import Linear
from dropkit.axes.share import Exactly
from dropkit.errors import DropkitError

KEY = Key(seed=3, site="weights", step=2)
RNNS = {
    "lstm": lambda: nn.LSTM(4, 5, num_layers=2, bidirectional=True),
    "projected": lambda: nn.LSTM(4, 5, proj_size=3),
    "gru": lambda: nn.GRU(4, 5, batch_first=True),
    "rnn": lambda: nn.RNN(4, 5, bias=False),
    "cell": lambda: nn.LSTMCell(4, 5),
}


def here(**more: Any) -> Any:
    return dt.at(seed=KEY.seed, site=KEY.site, step=KEY.step, **more)


def masked(shape: Any, p: float, number: int = 0, share: Any = ()) -> torch.Tensor:
    site = KEY.site if not number else f"{KEY.site}#{number}"
    kept = dropkit.keep(tuple(shape), p, Key(KEY.seed, site, KEY.step), share=share)
    return torch.tensor(kept.copy()).float() / (1 - p)


def bound(module: nn.Module) -> nn.Module:
    """The model whose only dropout is at the site of the key, in training at its step."""
    model = nn.Module()
    model.weights = module
    model.forward = module.forward
    return dt.bind(model, KEY.seed).weights


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", RNNS)
def test_recurrent_weights_drop_by_the_masks_of_keep_once_a_sequence(name: str) -> None:
    torch.manual_seed(0)
    inner = RNNS[name]()
    hidden = [key for key, _ in inner.named_parameters() if "weight_hh" in key]
    layer, plain = bound(dt.WeightDrop(inner, "weight_hh*", 0.5)), copy.deepcopy(inner)
    assert layer.names == tuple(hidden)
    with torch.no_grad():
        for number, key in enumerate(hidden):
            weight = plain.get_parameter(key)
            weight *= masked(weight.shape, 0.5, number)
    x = torch.randn(4) if name == "cell" else torch.randn(6, 2, 4)
    with dt.at(step=KEY.step):
        found = layer(x)[0]
    assert torch.equal(found, plain(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], inner(x)[0])


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", RNNS)
def test_parameters_keep_names_values_and_gradients_and_a_layer_can_be_copied(name: str) -> None:
    inner = RNNS[name]()
    layer, x = dt.WeightDrop(inner, "weight_hh*", 0.5), torch.randn(6, 4) if name == "cell" else torch.randn(6, 2, 4)
    before = copy.deepcopy(inner.state_dict())
    layer(x)[0].sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in inner.state_dict().items())
    assert all(isinstance(p, nn.Parameter) and p.grad is not None for p in inner.parameters())
    assert list(layer.state_dict()) == [f"module.{key}" for key in before]
    for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with here():
            y = layer(x)[0]
        with here():
            assert torch.equal(same(x)[0], y)
    fresh = dt.WeightDrop(RNNS[name](), "weight_hh*", 0.5)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.eval()(x)[0], inner(x)[0])


def test_any_module_drops_any_of_its_weights_and_sees_a_tied_one_whole_elsewhere() -> None:
    for inner, x in ((nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 5)), (nn.Bilinear(3, 4, 2), torch.randn(2, 3))):
        for share in ((), (1,), (-1, 0), Exactly((0,))):
            layer = dt.WeightDrop(inner, "weight", 0.5, share=share)
            others = (torch.randn(2, 4),) if isinstance(inner, nn.Bilinear) else ()
            with here():
                y = layer(x, *others)
            with here():
                weight = dt.dropout(inner.weight, 0.5, training=True, share=share)
            plain = copy.deepcopy(inner)
            plain.weight = nn.Parameter(weight.detach())
            assert torch.equal(y, plain(x, *others))
    embedding, decoder = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
    decoder.weight = embedding.weight
    model = nn.Sequential(dt.WeightDrop(embedding, "weight", 1.0), decoder)
    assert not model(torch.tensor([1])).any() and torch.equal(decoder(torch.eye(4)), embedding.weight.t())
    block = dt.WeightDrop(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), ["1.weight", "0.bias"], 0.5)
    assert block.names == ("0.bias", "1.weight")


@pytest.mark.parametrize("noise", [None, Raw(), Gaussian(), Mixout(), Shakeout(0.3)], ids=str)
def test_gradients_are_those_of_the_masked_weight(noise: Any) -> None:
    torch.manual_seed(1)
    layer = dt.WeightDrop(nn.Linear(3, 2).double(), ["weight", "bias"][:1], 0.4, noise=noise)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def loss(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        with here():
            return torch.func.functional_call(layer, {"module.weight": weight}, (x,))

    assert torch.autograd.gradcheck(loss, (x, layer.module.weight.detach().clone().requires_grad_()))


def test_mixout_goes_back_and_shakeout_to_the_other_sign() -> None:
    torch.manual_seed(2)
    layer = dt.WeightDrop(nn.Linear(6, 4), "weight", 0.5, noise=Mixout())
    began = layer.module.weight.detach().clone()
    with torch.no_grad():
        layer.module.weight += torch.randn(4, 6)
    kept, w = masked((4, 6), 0.5) > 0, layer.module.weight
    with here():
        y = layer(torch.eye(6)) - layer.module.bias
    torch.testing.assert_close(y.t(), torch.where(kept, 2 * w - began, began))
    again = dt.WeightDrop(nn.Linear(6, 4), "weight", 0.5, noise=Mixout())
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.began_0, began)
    layer.begin()
    assert torch.equal(layer.began_0, w)
    shaken = dt.WeightDrop(layer.module, "weight", 0.5, noise=Shakeout(0.3))
    kept = masked((4, 6), 0.5, share=(0,)) > 0
    with here():
        y = shaken(torch.eye(6)) - layer.module.bias
    torch.testing.assert_close(y.t(), torch.where(kept, 2 * (w + 0.15 * w.sign()), -0.3 * w.sign()))
    assert shaken.mask_shape(y) == (1, 6)


def test_a_law_of_ones_own_has_its_other() -> None:
    layer = dt.WeightDrop(
        nn.Linear(4, 4, bias=False), "weight", 1.0, noise=Zoneout(), other=lambda w: w.detach().round()
    )
    assert torch.equal(layer(torch.eye(4)).t(), layer.module.weight.round())


@pytest.mark.parametrize("mode", ["batch", "row"])
@pytest.mark.parametrize("noise", [None, Raw()], ids=str)
def test_drop_connect_is_a_linear_layer_of_masked_weights(mode: str, noise: Any) -> None:
    torch.manual_seed(0)
    layer = dt.DropConnect(5, 3, p=0.25, mode=mode, noise=noise).double()
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    shape = (4, 3, 5) if mode == "row" else (3, 5)
    m = masked(shape, 0.25).double() * (0.75 if noise else 1)
    with here():
        y = layer(x)
    exact = torch.einsum("nti,noi->nto", x, (layer.weight * (m > 0) * m.max()).expand(4, 3, 5)) + layer.bias
    torch.testing.assert_close(y, exact)
    plain = nn.Linear(5, 3).double()
    plain.load_state_dict(layer.state_dict())
    if noise:
        with torch.no_grad():
            plain.weight *= 0.75
    torch.testing.assert_close(layer.eval()(x), plain(x))
    assert layer.mask_shape(x) == shape


def test_a_sample_of_drop_connect_has_the_mask_of_its_row_whatever_the_batch() -> None:
    layer, x = dt.DropConnect(5, 3, p=0.5, mode="row"), torch.randn(6, 5)
    with here():
        whole = layer(x)
    with here(rows=[4, 1]):
        assert torch.equal(layer(x[[4, 1]]), whole[[4, 1]])
    batch = dt.DropConnect(5, 3, p=0.5)
    with here():
        whole = batch(x)
    with here(split={0: (1, 2)}):  # a weight is whole on every process
        assert torch.equal(batch(x[3:]), whole[3:])


def test_moments_of_drop_connect_are_those_of_its_draws() -> None:
    """Mean and variance of 4000 draws: mean within 5 standard errors, variance by a chi-squared interval of 1e-6."""
    torch.manual_seed(0)
    for noise in (None, Raw()):
        layer, x = dt.DropConnect(40, 2, p=0.5, mode="row", noise=noise), torch.randn(1, 40)
        with here(), torch.no_grad():
            y = layer(x.expand(4000, -1)).double()
        mean, variance = (value[0].double() for value in layer.moments(x))
        assert (abs(y.mean(0) - mean) < 5 * (variance / 4000).sqrt()).all()
        low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], 3999) / 3999
        assert ((y.var(0) > low * 0.95 * variance) & (y.var(0) < high * 1.05 * variance)).all()
    with pytest.raises(DropkitError, match="moments are those of masks that scale"):
        dt.DropConnect(4, 2, noise=Gaussian()).moments(torch.ones(1, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_words_drop_wherever_they_stand_and_the_table_is_left_alone(dtype: torch.dtype) -> None:
    table = nn.Embedding(50, 4, padding_idx=0, dtype=dtype)
    layer, x = dt.EmbeddingDropout(table, 0.3), torch.randint(50, (7, 9), generator=torch.Generator().manual_seed(0))
    with here():
        y = layer(x)
    with here():
        exact = dt.dropout(table.weight, 0.3, training=True, share=(1,))
    assert torch.equal(y, exact[x])
    kept = dropkit.keep((50, 1), 0.3, KEY)[:, 0]
    assert np.array_equal((exact[1:] != 0).any(1).numpy(), kept[1:])
    y.float().sum().backward()
    assert not table.weight.grad[torch.from_numpy(~kept)].any()
    assert torch.equal(layer.eval()(x), table(x)) and list(layer.state_dict()) == ["embedding.weight"]
    with torch.no_grad():
        table.weight[5] = float("nan")
    assert not dt.EmbeddingDropout(table, 1.0)(torch.tensor([5])).any()


def test_sparse_gradients_and_norms_of_an_embedding_stay_its_own() -> None:
    layer = dt.EmbeddingDropout(nn.Embedding(9, 4, sparse=True), 0.5)
    layer(torch.tensor([1, 2])).sum().backward()
    assert layer.embedding.weight.grad.is_sparse
    renormed = dt.EmbeddingDropout(nn.Embedding(9, 4, max_norm=0.1), 0.0)
    assert renormed(torch.arange(9)).norm(dim=1).max() <= 0.1001


MADE = {
    "WeightDrop": lambda: dt.WeightDrop(nn.Linear(4, 4), "weight", 0.25),
    "lstm": lambda: dt.WeightDrop(nn.LSTM(4, 4), "weight_hh_l0", 0.25),
    "DropConnect": lambda: dt.DropConnect(4, 4, p=0.25),
    "row": lambda: dt.DropConnect(4, 4, p=0.25, mode="row"),
}


@pytest.mark.parametrize("name", MADE)
def test_all_that_knows_a_dropout_knows_it(name: str) -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), MADE[name]()), torch.randn(3, 4)
    (site,) = [site for site in dt.sites(model, x) if site.p]
    assert (site.name, site.p, site.train, site.eval, site.noise) == ("1", 0.25, True, False, None)
    dt.bind(model, 1)
    dt.set_rate(model, "1", 0.5)
    schedule = dt.Schedule(model, Linear(0.5, 0.0, 10))
    schedule.step()
    assert model[1].p == 0.45
    assert dt.check(model, x).ok
    found = dropkit.explain(model, x)
    assert (found.sites[0].target, found.sites[0].zeroes) == ("weights", ())
    assert "zeroes a part of the weights of 1: each of " in str(found)
    with dt.disabled(model):
        assert not any(site.train for site in dt.sites(model, x))
    with dt.strip(model):
        assert model[1].p == 0
    assert model[1].p == 0.45


def test_an_embedding_is_known_as_its_words() -> None:
    model, x = nn.Sequential(dt.EmbeddingDropout(nn.Embedding(9, 4), 0.25), nn.Linear(4, 4)), torch.tensor([[1, 2]])
    (site,) = dt.sites(model, x)
    assert (site.name, site.mask_shape, site.eval) == ("0", (9, 1), False)
    assert "the weights of 0: each of 9, for all along the other axes." in str(dropkit.explain(dt.bind(model, 1), x))
    assert dt.check(model, x).ok


def test_compiled_weights_drop_alike_and_a_new_rate_compiles_nothing() -> None:
    model = dt.bind(nn.Sequential(MADE["WeightDrop"](), MADE["DropConnect"](), MADE["row"]()), 1)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 4)
    for p in (0.25, 0.5):
        model[0].p = p
        with torch._dynamo.config.patch(error_on_recompile=p == 0.5), dt.at(step=3):
            y = compiled(x)
        with dt.at(step=3):
            torch.testing.assert_close(y, model(x))


def test_recomputed_forwards_repeat_their_masks() -> None:
    layer, x = MADE["lstm"](), torch.randn(3, 2, 4, requires_grad=True)
    torch.manual_seed(1)
    (direct,) = torch.autograd.grad(layer(x)[0].sum(), x)
    torch.manual_seed(1)
    y = torch.utils.checkpoint.checkpoint(lambda x: layer(x)[0], x, use_reentrant=False, preserve_rng_state=False)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], direct)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: dt.WeightDrop(nn.Linear(2, 2), "wieght", 0.5),
            "'wieght' is no parameter of this Linear, which has weight",
        ),
        (lambda: dt.WeightDrop(nn.LSTM(2, 2), "weight_hh_l7*"), "'weight_hh_l7\\*' is no parameter of this LSTM"),
        (lambda: dt.WeightDrop(nn.Linear(2, 2), []), "names must be names of parameters, one at least, got \\[\\]"),
        (lambda: dt.WeightDrop("lstm"), "module must be a torch.nn.Module, got 'lstm'"),
        (lambda: dt.WeightDrop(nn.Linear(2, 2), p=1.5), "between 0 and 1, but got 1.5"),
        (
            lambda: dt.WeightDrop(nn.Linear(2, 2), share=(2,)),
            "share=\\(2,\\) names axis 2, but 'weight' has shape \\(2, 2\\)",
        ),
        (lambda: dt.WeightDrop(nn.Linear(2, 2), noise=Zoneout()), "needs a second tensor: give other="),
        (lambda: dt.WeightDrop(nn.LazyLinear(2)), "of a lazy LazyLinear is not there yet"),
        (lambda: dt.WeightDrop(nn.Linear(2, 2)).begin(), "begin\\(\\) is for noise=Mixout"),
        (lambda: dt.DropConnect(2, 2, mode="rows"), "mode has to be either 'batch' or 'row', but got 'rows'"),
        (lambda: dt.DropConnect(2, 2, noise=Mixout()), "WeightDrop\\(nn.Linear"),
        (lambda: dt.DropConnect(2, 2, mode="row")(torch.ones(2)), "needs a batch as axis 0"),
        (lambda: dt.EmbeddingDropout(nn.EmbeddingBag(2, 2)), "got EmbeddingBag: rows of another"),
        (lambda: torch.jit.script(dt.DropConnect(2, 2)), "TorchScript knows"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_what_cannot_be_is_refused_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(DropkitError, match=says) as error:
        make()
    assert "\n" not in str(error.value)
