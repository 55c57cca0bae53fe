"""Tokens that go: exactly how many, which ones, and that what is gone is not computed."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dropkit
import dropkit.torch as dt
from dropkit import Key
from dropkit.axes.rate import Linear
from dropkit.errors import DropkitError

KEY = Key(seed=9, site="tokens", step=1)


def here(**more: Any) -> Any:
    return dt.at(seed=KEY.seed, site=KEY.site, step=KEY.step, **more)


def numbers(samples: int, tokens: int, prefix: int = 0) -> torch.Tensor:
    """Tokens that say who they are: 100 sample + token."""
    return (100.0 * torch.arange(samples)[:, None] + torch.arange(prefix + tokens))[..., None].expand(-1, -1, 3).clone()


def smallest(samples: int, tokens: int, count: int) -> np.ndarray:
    return np.argsort(dropkit.uniform((samples, tokens), KEY), axis=1, kind="stable")[:, :count]


# --- what timm's own class does, by its signature


@pytest.mark.parametrize("p", [0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("tokens", [1, 5, 16, 20, 49, 196])
def test_the_count_is_timms_one_token_at_least(p: float, tokens: int) -> None:
    assert dt.PatchDropout(p)(torch.ones(2, 1 + tokens, 4)).shape == (2, 1 + max(1, int(tokens * (1.0 - p))), 4)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("ordered", [False, True])
def test_the_prefix_stays_in_front_and_the_indices_say_what_stayed(prefix: int, ordered: bool) -> None:
    x = numbers(3, 16, prefix)
    with here():
        y, indices = dt.PatchDropout(0.5, prefix, ordered, True)(x)
    assert y.shape == (3, prefix + 8, 3) and indices.shape == (3, 8) and indices.dtype == torch.int64
    assert torch.equal(y[:, :prefix], x[:, :prefix])
    assert torch.equal(y[:, prefix:], x[:, prefix:].gather(1, indices[..., None].expand(-1, -1, 3)))
    wanted = smallest(3, 16, 8)
    assert np.array_equal(indices.numpy(), np.sort(wanted, 1) if ordered else wanted)
    assert (
        all(len(set(row)) == 8 for row in indices.tolist()) and len({tuple(sorted(r)) for r in indices.tolist()}) == 3
    )


def test_all_tokens_stay_in_evaluation_and_at_the_rate_0() -> None:
    x = torch.randn(2, 9, 4)
    for drop in (dt.PatchDropout(0.5).eval(), dt.PatchDropout(0.0), dt.PatchDropout(0.5, when="never")):
        assert drop(x) is x
        drop.return_indices = True
        y, indices = drop(x)
        assert y is x and indices is None
    assert dt.PatchDropout(0.5, when="always").eval()(x).shape == (2, 5, 4)
    assert dt.PatchDropout(prob=0.75).p == 0.75 == dt.PatchDropout(0.75).prob
    assert dt.PatchDropout(1.0)(x).shape == (2, 2, 4)


def test_nothing_is_rescaled_and_gradients_go_to_what_stayed() -> None:
    x = numbers(2, 10).requires_grad_()
    with here():
        y, indices = dt.PatchDropout(0.3, 0, return_indices=True)(x)
    assert set(y.detach().flatten().tolist()) <= set(x.detach().flatten().tolist())
    y.sum().backward()
    stayed = torch.zeros(2, 10).scatter(1, indices, 1.0)
    assert torch.equal(x.grad, stayed[..., None].expand(-1, -1, 3))


def test_any_dtype_and_any_number_of_axes_will_do() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool):
        assert dt.PatchDropout(0.5, 0)(torch.ones(2, 6, 2, 3, dtype=dtype)).dtype == dtype
    assert dt.PatchDropout(0.5, 0)(torch.ones(2, 6)).shape == (2, 3)


def test_every_set_of_tokens_is_as_likely() -> None:
    """Of 5 tokens 2 stay: each of the 10 sets 400 times of 4000 samples, to within 5 standard errors."""
    with here():
        _, indices = dt.PatchDropout(0.6, 0, True, True)(torch.zeros(4000, 5, 1))
    found = torch.unique(indices, dim=0, return_counts=True)[1]
    assert len(found) == 10 and ((found - 400).abs() < 5 * np.sqrt(4000 * 0.09)).all()


# --- what dropkit's masks promise


@pytest.mark.parametrize("make", [lambda: dt.PatchDropout(0.5, 1), lambda: dt.TokenDrop(nn.Identity(), 0.5, 1)])
def test_a_sample_keeps_its_tokens_in_any_batch(make: Any) -> None:
    x, drop = numbers(8, 12, 1), make()
    if isinstance(drop, dt.TokenDrop):
        drop.layer = Negated()
    with here():
        whole = drop(x)
    for rows in ([5, 0, 3], [7], []):
        with here(rows=torch.tensor(rows, dtype=torch.long)):
            assert torch.equal(drop(x[rows]), whole[rows])
    for first in (0, 4):  # as the two halves of a batch on two processes
        with here(split={0: (first // 4, 2)}):
            assert torch.equal(drop(x[first : first + 4]), whole[first : first + 4])
        with here(offset=(first, 0, 0), global_shape=(8, 13, 3)):
            assert torch.equal(drop(x[first : first + 4]), whole[first : first + 4])
    with here(offset=(0, 0, 0), global_shape=(8, 26, 3)), pytest.raises(DropkitError, match="whole sequences"):
        drop(x)


class Negated(nn.Module):
    """A layer that knows what it got."""

    seen: Any = ()

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, shift: float = 0.0) -> torch.Tensor:
        self.seen = x if mask is None else (x, mask)
        return shift - x


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_layer_runs_on_the_tokens_that_are_kept_and_the_others_pass_it_by(prefix: int) -> None:
    x, layer = numbers(3, 10, prefix) + 1, Negated()
    drop = dt.TokenDrop(layer, 0.6, prefix, by_token="mask")
    mask = torch.arange(3 * (10 + prefix)).reshape(3, -1)
    with here():
        y = drop(x, shift=0.5, mask=mask)
    kept = np.sort(smallest(3, 10, 4), 1) + prefix
    kept = torch.from_numpy(np.concatenate([np.tile(np.arange(prefix), (3, 1)), kept], 1))
    assert layer.seen[0].shape == (3, 4 + prefix, 3)
    assert torch.equal(layer.seen[0], x.gather(1, kept[..., None].expand(-1, -1, 3)))
    assert torch.equal(layer.seen[1], mask.gather(1, kept))
    stays = torch.zeros(3, 10 + prefix, dtype=torch.bool).scatter(1, kept, True)[..., None]
    assert torch.equal(y, torch.where(stays, 0.5 - x, x))
    assert torch.equal(drop.eval()(x, mask=mask), -x)
    drop.train().p = 0.0
    assert torch.equal(drop(x), -x) and layer.seen.shape == x.shape


def vit(depth: int = 2) -> nn.Module:
    layers = [nn.Sequential(nn.Linear(8, 8), dt.Dropout(0.1), nn.Tanh()) for _ in range(depth)]
    return nn.Sequential(dt.PatchDropout(0.5), *[dt.TokenDrop(layer, 0.25, 1) for layer in layers], nn.Linear(8, 2))


def test_a_bound_model_repeats_resumes_and_moves_its_rates() -> None:
    torch.manual_seed(0)
    model, x = dt.bind(vit(), 3), torch.randn(4, 17, 8)
    assert [site.kind for site in dt.sites(model)][:2] == ["PatchDropout", "TokenDrop"]
    first, state = model(x), copy.deepcopy(model.state_dict())
    later = [model(x) for _ in range(2)]
    assert first.shape == (4, 9, 2) and not torch.equal(first, later[0])
    model.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert all(map(torch.equal, later, [model(x) for _ in range(2)]))
    schedule = dt.Schedule(model, {"0": Linear(0.5, 0.0, 10)})
    schedule.step(to=5)
    assert model(x).shape[1] == 1 + 12
    dt.set_rate(model, "0", 0.75)
    assert model(x).shape[1] == 1 + 4
    assert repr(model[0]) == "PatchDropout(p=0.75, num_prefix_tokens=1)"


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_recomputed_forward_keeps_the_tokens_of_the_first(reentrant: bool) -> None:
    torch.manual_seed(0)
    model, x = dt.bind(vit(1), 4), torch.randn(2, 9, 8, requires_grad=True)

    def gradient(checkpointed: bool) -> torch.Tensor:
        x.grad = None
        with dt.at(step=0):
            y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
        model[0].p = 0.9  # before backward runs
        y.sum().backward()
        model[0].p = 0.5
        return x.grad.clone()

    assert torch.equal(gradient(True), gradient(False))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: dt.PatchDropout(1.5), "has to be between 0 and 1, but got 1.5"),
        (lambda: dt.PatchDropout(num_prefix_tokens=-1), "num_prefix_tokens must be at least 0, got -1"),
        (lambda: dt.PatchDropout(num_prefix_tokens=1.5), "num_prefix_tokens must be a whole number of tokens, got 1.5"),
        (lambda: dt.PatchDropout()(torch.ones(4)), "with tokens behind 1 of a prefix, got shape (4,)"),
        (lambda: dt.PatchDropout()(torch.ones(2, 1, 3)), "PatchDropout takes samples x tokens x ..., with tokens beh"),
        (lambda: dt.PatchDropout(0.0)(torch.ones(2, 1, 3)), "PatchDropout takes samples x tokens"),
        (lambda: dt.TokenDrop(abs), "layer must be a torch.nn.Module, got <built-in function abs>"),
        (lambda: dt.TokenDrop(nn.Identity(), by_token=3), "by_token must hold names of keyword arguments"),
        (lambda: dt.TokenDrop(nn.Linear(3, 2), 0.5)(torch.ones(2, 4, 3)), "shape"),
        (lambda: dt.TokenDrop(Negated(), by_token="mask")(torch.ones(2, 4, 3), mask=torch.ones(3)), "by_token names"),
    ],
)
def test_bad_input_is_one_line(made: Any, said: str) -> None:
    with pytest.raises(DropkitError) as error:
        made()
    assert said in str(error.value) and "\n" not in str(error.value)


# --- squares of images


def cut(shape: tuple[int, ...], length: int, holes: int, p: float) -> np.ndarray:
    """Which pixels go, one by one."""
    u = dropkit.uniform((shape[0], 1 + 2 * holes), KEY)
    gone = np.zeros(shape, bool)
    for n in range(shape[0]):
        for hole in range(holes if u[n, 0] >= 1 - p else 0):
            centre = [int(u[n, 1 + 2 * hole + axis] * shape[2 + axis]) for axis in (0, 1)]
            for i, j in np.ndindex(length, length):
                row, column = centre[0] - length // 2 + i, centre[1] - length // 2 + j
                if 0 <= row < shape[2] and 0 <= column < shape[3]:
                    gone[n, :, row, column] = True
    return gone


@pytest.mark.parametrize(("length", "holes", "p"), [(4, 1, 1.0), (3, 2, 0.5), (1, 3, 0.25), (20, 1, 0.5)])
def test_squares_are_cut_where_the_keyed_numbers_say_and_clipped_at_the_border(
    length: int, holes: int, p: float
) -> None:
    x = torch.randn(16, 3, 7, 9, dtype=torch.float64, requires_grad=True)
    drop, gone = dt.Cutout(length, holes, p), torch.from_numpy(cut((16, 3, 7, 9), length, holes, p))
    with here():
        y = drop(x)
    assert torch.equal(y, torch.where(gone, 0.0, x)) and gone.any()
    y.sum().backward()
    assert torch.equal(x.grad, (~gone).double())
    with here(rows=torch.tensor([11, 2])):
        assert torch.equal(drop(x[[11, 2]]), y[[11, 2]])
    with here(offset=(8, 1, 0, 0), global_shape=(16, 3, 7, 9)):
        assert torch.equal(drop(x[8:, 1:2]), y[8:, 1:2])
    with here(offset=(0, 0, 0, 0), global_shape=(16, 3, 14, 9)), pytest.raises(DropkitError, match="whole images"):
        drop(x)
    assert drop.eval()(x) is x


def test_an_image_is_cut_with_probability_p_and_a_pixel_in_the_middle_with_that_of_its_square() -> None:
    """4000 images: both to within 5 standard errors; and at p = 0 none is."""
    x = torch.ones(4000, 1, 12, 12)
    with here():
        y = dt.Cutout(3, p=0.4)(x)
    for found, q in (((y == 0).flatten(1).any(1), 0.4), (y[:, 0, 6, 6] == 0, 0.4 * 9 / 144)):
        assert abs(found.float().mean().item() - q) < 5 * np.sqrt(q * (1 - q) / 4000)
    assert dt.Cutout(3, p=0.0)(x) is x
    model = dt.bind(nn.Sequential(dt.Cutout(3, p=1.0), nn.Conv2d(1, 1, 3)), 0)
    dt.set_rate(model, "0", 0.2)
    assert dt.sites(model)[0].kind == "Cutout" and repr(model[0]) == "Cutout(p=0.2, length=3, n_holes=1)"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: dt.Cutout(0), "length must be at least 1, got 0"),
        (lambda: dt.Cutout(2.5), "length must be a whole number, got 2.5"),
        (lambda: dt.Cutout(2, 0), "n_holes must be at least 1, got 0"),
        (lambda: dt.Cutout(2)(torch.ones(3, 4, 4)), "Cutout takes images, N x C x H x W, got shape (3, 4, 4)"),
    ],
)
def test_a_cutout_that_cannot_be_is_one_line(made: Any, said: str) -> None:
    with pytest.raises(DropkitError) as error:
        made()
    assert str(error.value) == said


def test_explain_tells_the_exact_count_and_the_doctor_of_no_scale() -> None:
    from dropkit.probe import explain

    layers = [nn.Linear(8, 8), dt.PatchDropout(0.7), dt.TokenDrop(nn.Linear(8, 8), 0.25, 1), nn.Linear(8, 2)]
    told = str(explain(nn.Sequential(*layers), torch.randn(4, 17, 8)))
    assert "1 (PatchDropout, p 0.7) decides what runs: exactly 4 of 16 tokens, per sample." in told
    assert "2 (TokenDrop, p 0.25) decides what runs: exactly 3 of 4 tokens, per sample." in told
    assert "scaled by" not in told
    told = str(explain(nn.Sequential(dt.Cutout(3), nn.Conv2d(1, 1, 3)), torch.randn(4, 1, 8, 8)))
    assert "squares of some images, for all channels" in told and "sub-networks" not in told


def test_tokens_can_be_dropped_behind_a_layer() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    receipt = dt.insert(model, "0", dt.PatchDropout(0.5))
    assert model(torch.ones(2, 9, 8)).shape == (2, 5, 2)
    receipt.restore()
    assert model(torch.ones(2, 9, 8)).shape == (2, 9, 2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(8, 8), dt.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(torch.tanh(self.linear(x)))


class Counting:
    """A backend that counts its graphs."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor", "ignore:`torch.jit.script.*deprecated")
def test_one_compilation_serves_all_masks_and_rates() -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    model = dt.bind(nn.Sequential(dt.PatchDropout(0.5), dt.TokenDrop(Block()), Block()), 5)
    backend, counts = Counting(), []
    twin, compiled, x = copy.deepcopy(model), torch.compile(model, backend=backend), torch.randn(3, 33, 8)
    for p in (0.5, 0.5, 0.1, 0.0, 0.8, 0.6):
        for net in (model, twin):
            net[0].p, net[1].p = p, p / 2
        torch.testing.assert_close(compiled(x), twin(x))
        counts.append(backend.graphs)
    assert counts == counts[:1] * 6
    cutout, images, backend = dt.bind(nn.Sequential(dt.Cutout(3)), 6), torch.randn(5, 2, 8, 8), Counting()
    twin, compiled = copy.deepcopy(cutout), torch.compile(cutout, backend=backend, fullgraph=True)
    for p in (0.5, 0.9, 0.0, 1.0):
        cutout[0].p = twin[0].p = p
        assert torch.equal(compiled(images), twin(images))
    torch.compiler.reset()
