"""Parts of a bound model: released, bound by themselves, replaced, merged; and copies with masks of their own."""

import copy
import pickle

import pytest
import torch
from torch import nn

from dropkit import DropkitError, Key, keep
from dropkit.torch import Dropout, at, bind, reseed, unbind
from dropkit.torch.drawing.coordinates import Sharded
from dropkit.torch.drawing.ranks import Piece

X = torch.ones(6, 40)


class Wrap(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def net() -> nn.Sequential:
    return nn.Sequential(Dropout(0.5), nn.Sequential(Dropout(0.5)))


def is_mask(y: torch.Tensor, *keys: Key) -> bool:
    masks = [keep(X.shape, 0.5, key) for key in keys]
    wanted = masks[0]
    for mask in masks[1:]:
        wanted = wanted & mask
    return bool(((y != 0).numpy() == wanted).all())


def ambient(model: nn.Module) -> bool:
    torch.manual_seed(0)
    one = model(X)
    torch.manual_seed(0)
    two = model(X)
    return torch.equal(one, two) and not torch.equal(one, model(X))


def test_a_part_is_released_and_bound_by_itself() -> None:
    """B8: with the wrapper alone bound, each of the three used to be a dead end."""
    inner = net()
    outer = bind(Wrap(inner), seed=0)
    with pytest.raises(
        DropkitError, match=r"already bound: 0, 1.0 of this Sequential, with the Wrap around it; .*unbind\("
    ):
        bind(inner, seed=1)
    assert unbind(inner) is inner
    assert list(outer.state_dict()) == []  # nothing is left in it
    assert not outer._forward_pre_hooks and not outer._forward_hooks and not list(outer.buffers())
    assert ambient(inner)
    bind(inner, seed=1)
    assert is_mask(outer(X), Key(1, "0", 0), Key(1, "1.0", 0))
    assert is_mask(inner(X), Key(1, "0", 1), Key(1, "1.0", 1))


def test_the_rest_stays_bound() -> None:
    model = bind(net(), seed=1)
    model(X)
    unbind(model[1])
    assert ambient(model[1])
    seen: list[torch.Tensor] = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    model(X)
    assert is_mask(seen[0], Key(1, "0", 1))
    assert int(model.dropkit_step) == 2
    bind(model[1], seed=5)
    assert list(model.state_dict()) == ["dropkit_seed", "dropkit_step", "1.dropkit_seed", "1.dropkit_step"]
    assert is_mask(model(X), Key(1, "0", 2), Key(5, "0", 0))
    again = bind(unbind(model), seed=3)  # with the bound part in it
    assert list(again.state_dict()) == ["dropkit_seed", "dropkit_step"]


def test_released_it_does_not_count_for_the_whole() -> None:
    model = bind(net(), seed=1)
    unbind(model[1])
    model[0].eval()
    model(X)
    assert int(model.dropkit_step) == 0


@pytest.mark.parametrize("keep_the_whole", [True, False])
def test_merged_and_unloaded(keep_the_whole: bool) -> None:
    """As PEFT does it: the layers with dropout go, and what was wrapped is used without the wrapper."""

    class Adapter(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base, self.drop, self.low = base, Dropout(0.5), nn.Linear(40, 40)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + self.low(self.drop(x))

    inner = nn.Sequential(nn.Linear(40, 40), Dropout(0.5))
    inner[0] = Adapter(inner[0])  # type: ignore[arg-type]
    whole = bind(Wrap(inner), seed=1)
    whole(X)
    inner[0] = inner[0].base  # type: ignore[assignment]
    if keep_the_whole:
        unbind(inner)
    else:
        del whole
    bind(inner, seed=2)
    assert is_mask(inner(X), Key(2, "1", 0))


def test_a_part_whose_model_is_gone_says_so_and_is_bound_anew() -> None:
    inner = net()
    bind(Wrap(inner), seed=1)
    with pytest.raises(
        DropkitError, match=r"'inner.0' was bound with a Wrap that is gone, .*: dropkit.torch.bind the model"
    ):
        inner(X)
    unbind(inner)
    assert ambient(inner)
    bind(Wrap(inner), seed=1)
    bind(inner, seed=4)
    assert is_mask(inner(X), Key(4, "0", 0), Key(4, "1.0", 0))


def test_a_part_that_was_taken_out_is_free() -> None:
    model = bind(net(), seed=1)
    old, model[1] = model[1], nn.Identity()
    bind(old, seed=2)
    assert is_mask(old(X), Key(2, "0", 0))
    assert is_mask(model(X), Key(1, "0", 0))
    unbind(model)
    assert is_mask(old(X), Key(2, "0", 1))


@pytest.mark.parametrize("through", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_a_copied_part_is_bound_where_it_is_now(through: object) -> None:
    model = bind(net(), seed=1)
    part = through(model[1])  # type: ignore[operator]
    with pytest.raises(DropkitError, match="of which this is a copied part"):
        part(X)
    bind(part, seed=9)
    assert is_mask(part(X), Key(9, "0", 0))
    assert is_mask(model(X), Key(1, "0", 0), Key(1, "1.0", 0))


def test_what_is_new_is_taken_in_by_the_seed_of_the_model() -> None:
    """A head that was replaced in the middle of a run."""
    model = bind(net(), seed=1)
    model(X)
    model[1] = nn.Sequential(nn.Identity(), Dropout(0.5))
    with pytest.raises(
        DropkitError, match=r"new in a Sequential that is bound with seed 1: 1.1; bind\(model, seed=1\) takes"
    ):
        bind(model)
    assert model[1][1].site is None
    assert bind(model, seed=1) is model
    assert is_mask(model(X), Key(1, "0", 1), Key(1, "1.1", 1))
    assert int(model.dropkit_step) == 2
    with pytest.raises(
        DropkitError, match=r"already bound: 0, 1.1; .*unbind the model first, or dropkit.torch.reseed\(model, 1\)"
    ):
        bind(model, seed=1)


def test_a_part_bound_before_is_named() -> None:
    model = nn.Sequential(bind(net(), seed=1), Dropout(0.5))
    with pytest.raises(
        DropkitError,
        match=r"already bound: 0.0, 0.1.0 of this Sequential, with the Sequential '0' in it; .*unbind that",
    ):
        bind(model)
    assert is_mask(bind(unbind(model), seed=2)(X), *[Key(2, site, 0) for site in ("0.0", "0.1.0", "1")])


def test_what_is_split_over_ranks_survives() -> None:
    piece = Piece(-1, 1, 2, frozenset([0, 1]))
    model = net()
    model[0].site = Sharded((piece,))
    outer = bind(Wrap(model), seed=1)
    unbind(outer.inner)
    assert model[0].site == Sharded((piece,)) and model[1][0].site is None
    assert bind(model, seed=1)[0].site.pieces == (piece,)


def test_a_copy_with_masks_of_its_own() -> None:
    model = bind(net(), seed=1)
    model(X)
    same, other = copy.deepcopy(model), reseed(copy.deepcopy(model), 2**64 - 1)
    assert torch.equal(same(X), model(X))
    assert is_mask(other(X), Key(2**64 - 1, "0", 1), Key(2**64 - 1, "1.0", 1))
    assert int(model.dropkit_seed) == 1
    reseed(nn.Sequential(model), 3)
    assert is_mask(model(X), Key(3, "0", 2), Key(3, "1.0", 2))


def test_reseed_refuses() -> None:
    model = bind(net(), seed=1)
    for make, message in [
        (lambda: reseed(net(), 2), r"this Sequential is not bound; bind\(model, seed=2\) gives it a seed"),
        (lambda: reseed(model[1], 2), r"this Sequential is a part of a bound model, .*: reseed that"),
        (
            lambda: reseed(nn.ModuleList([model, bind(net())]), 2),
            "several parts are bound by themselves, 0, 1: reseed each",
        ),
        (lambda: reseed(model, -1), r"seed must lie in \[0, 2\*\*64\), got -1"),
        (lambda: reseed("model", 1), "reseed needs a torch.nn.Module, got str"),
        (lambda: unbind("model"), "unbind needs a torch.nn.Module, got str"),
    ]:
        with pytest.raises(DropkitError, match=message):
            make()
    with at(step=0):
        assert is_mask(model(X), Key(1, "0", 0), Key(1, "1.0", 0))
