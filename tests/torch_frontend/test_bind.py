"""Keyed models: names, clock, resume, and the coordinates that `at` sets."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from dropkit import DropkitError, Key, keep
from dropkit.torch import Dropout, at, bind, dropout, unbind


def net() -> nn.Sequential:
    return nn.Sequential(Dropout(0.5), nn.Sequential(Dropout(0.3)))


X = torch.ones(6, 40)


def expected(seed: int, step: int, sites: tuple[str, str] = ("0", "1.0")) -> torch.Tensor:
    first = keep(X.shape, 0.5, Key(seed, sites[0], step)) * 2.0
    second = keep(X.shape, 0.3, Key(seed, sites[1], step)) * (65536 / 45875)
    return torch.from_numpy((first * second).astype("float32"))


def test_masks_follow_seed_path_and_step() -> None:
    model = bind(net(), seed=7)
    for step in range(3):
        torch.testing.assert_close(model(X), expected(7, step), rtol=1e-6, atol=0)
    assert int(model.dropkit_step) == 3


def test_evaluation_does_not_tick_and_monte_carlo_does() -> None:
    model = bind(net(), seed=7)
    model.eval()
    assert model(X) is X
    assert int(model.dropkit_step) == 0
    model[0].train()  # the usual way to Monte Carlo dropout: model in eval, dropouts in train
    assert not torch.equal(model(X), model(X))
    assert int(model.dropkit_step) == 2


def test_resumed_run_draws_what_it_would_have_drawn() -> None:
    model = bind(net(), seed=3)
    model(X), model(X)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert {name: int(value) for name, value in state.items()} == {"dropkit_seed": 3, "dropkit_step": 2}
    assert all(value.dtype == torch.int64 and value.dim() == 0 for value in state.values())
    wanted = [model(X) for _ in range(3)]
    resumed = bind(net(), seed=99)
    resumed(X)
    resumed.load_state_dict(state)
    assert all(torch.equal(resumed(X), y) for y in wanted)


def test_seeds_of_64_bits() -> None:
    model = bind(net(), seed=2**64 - 1)
    torch.testing.assert_close(model(X), expected(2**64 - 1, 0), rtol=1e-6, atol=0)


def test_writing_the_buffers_moves_the_clock() -> None:
    model = bind(net(), seed=1)
    model(X)
    model.dropkit_step.fill_(40)
    torch.testing.assert_close(model(X), expected(1, 40), rtol=1e-6, atol=0)
    model.dropkit_seed = torch.tensor(5)
    torch.testing.assert_close(model(X), expected(5, 41), rtol=1e-6, atol=0)


def test_generator_plays_no_part() -> None:
    model = bind(net())
    state = torch.get_rng_state()
    model(X)
    assert torch.equal(state, torch.get_rng_state())


def test_copies_go_their_own_way() -> None:
    model = bind(net(), seed=1)
    model(X)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]
    ahead = [model(X) for _ in range(2)]
    for twin in twins:
        assert int(twin.dropkit_step) == 1
        assert all(torch.equal(twin(X), y) for y in ahead)
        assert twin[0].site.clock.model is twin


def test_one_module_called_twice_is_two_sites() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = Dropout(0.5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.drop(x), self.drop(x)

    model = bind(Twice(), seed=1)
    for step in range(2):
        one, other = model(X)
        assert ((one != 0).numpy() == keep(X.shape, 0.5, Key(1, "drop", step))).all()
        assert ((other != 0).numpy() == keep(X.shape, 0.5, Key(1, "drop#1", step))).all()


def test_at_sets_what_it_names_and_leaves_the_rest() -> None:
    model = bind(net(), seed=7)
    model(X)
    with at(step=20):
        torch.testing.assert_close(model(X), expected(7, 20), rtol=1e-6, atol=0)
        with at(seed=8):
            torch.testing.assert_close(model(X), expected(8, 20), rtol=1e-6, atol=0)
        torch.testing.assert_close(model(X), expected(7, 20), rtol=1e-6, atol=0)
    assert int(model.dropkit_step) == 1  # a step set by hand leaves the clock alone
    with at(seed=8):
        torch.testing.assert_close(model(X), expected(8, 1), rtol=1e-6, atol=0)
    with at(site="other"):
        torch.testing.assert_close(model(X), expected(7, 2, ("other", "other")), rtol=1e-6, atol=0)


def test_rows_make_a_sample_independent_of_its_batch() -> None:
    model = bind(net(), seed=7)
    whole = torch.randn(50, 40)
    with at(step=0):
        full = model(whole)
        for batch in (torch.arange(8), torch.tensor([49, 3, 3, 20])):
            with at(rows=batch):
                assert torch.equal(model(whole[batch]), full[batch])


def test_offset_and_global_shape_take_a_slice() -> None:
    model = bind(net(), seed=7)
    whole = torch.randn(8, 40)
    with at(step=0):
        full = model(whole)
        with at(offset=(2, 10), global_shape=(8, 40)):
            assert torch.equal(model(whole[2:6, 10:33]), full[2:6, 10:33])


def test_arguments_win_over_at() -> None:
    with at(seed=1, site="a", rows=[3, 4], offset=(0, 0), global_shape=(9, 40)):
        y = dropout(X[:2], 0.5, training=True, key=Key(2, "b"), rows=[0, 1])
    assert ((y != 0).numpy() == keep((2, 40), 0.5, Key(2, "b"))).all()


def test_at_restores_after_an_exception_and_decorates() -> None:
    with pytest.raises(KeyError), at(seed=1, site="a"):
        raise KeyError
    state = torch.get_rng_state()
    Dropout(0.5)(X)
    assert not torch.equal(state, torch.get_rng_state())  # ambient again

    @at(seed=1, site="a")
    def call() -> torch.Tensor:
        return Dropout(0.5)(X)

    assert torch.equal(call(), call())


def mask_of(site: str, p: float, seed: int, step: int) -> torch.Tensor:
    return torch.from_numpy(keep(X.shape, p, Key(seed, site, step)).copy())


def test_a_call_of_a_part_is_a_step_of_its_own() -> None:
    model = bind(net(), seed=7)
    for step in range(3):
        assert torch.equal(model[1](X) != 0, mask_of("1.0", 0.3, 7, step))
    assert torch.equal(model[0](X) != 0, mask_of("0", 0.5, 7, 3))
    assert torch.equal(model[1](model[0](X)) != 0, mask_of("0", 0.5, 7, 4) & mask_of("1.0", 0.3, 7, 5))
    torch.testing.assert_close(model(X), expected(7, 6), rtol=1e-6, atol=0)  # its parts are calls inside this one
    assert int(model.dropkit_step) == 7
    with at(step=4):
        assert torch.equal(model[0](X) != 0, mask_of("0", 0.5, 7, 4))
    assert int(model.dropkit_step) == 7


class Module(nn.Module):
    """As Lightning's modules: a step that calls parts, and perhaps a forward too."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.heads = net(), nn.ModuleList([nn.Sequential(Dropout(0.5))])

    def training_step(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class WithForward(Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, x: torch.Tensor) -> torch.Tensor:
        return self(x)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Module()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner.net(x)

    def step(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner.net(x)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("make", [Module, WithForward, Plain])
def test_a_step_that_calls_a_part_counts_once(make: type[nn.Module], compiled: bool) -> None:
    model = bind(make(), seed=7)
    step = getattr(model, "training_step", None) or model.step
    if compiled and make is not Plain:
        step = torch.compile(step, backend="eager")
    prefix = "inner.net" if make is Plain else "net"
    for number in range(3):
        wanted = expected(7, number, (f"{prefix}.0", f"{prefix}.1.0"))
        torch.testing.assert_close(step(X), wanted, rtol=1e-6, atol=0)
        assert int(model.dropkit_step) == number + 1
    twin = copy.deepcopy(model)
    for each in (model, twin):  # the copy goes on by itself
        torch.testing.assert_close(
            (each.training_step if make is not Plain else each.step)(X),
            expected(7, 3, (f"{prefix}.0", f"{prefix}.1.0")),
            rtol=1e-6,
            atol=0,
        )
    unbind(model)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_a_part_that_is_compiled_by_itself() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.compile(net(), backend="eager", fullgraph=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    model = bind(Holder(), seed=7)
    for number in range(3):
        torch.testing.assert_close(model.net(X), expected(7, number, ("net.0", "net.1.0")), rtol=1e-6, atol=0)
    torch.testing.assert_close(model(X), expected(7, 3, ("net.0", "net.1.0")), rtol=1e-6, atol=0)
    assert int(model.dropkit_step) == 4


def test_a_forward_inside_a_forward_of_the_same_model_counts_once() -> None:
    """As a wrapper whose call is turned into a training step, which calls the model again."""
    model = bind(WithForward(), seed=7)
    own = model.forward

    def redirected(x: torch.Tensor) -> torch.Tensor:
        model.forward = own  # type: ignore[method-assign]
        try:
            return model.training_step(x)
        finally:
            model.forward = redirected  # type: ignore[method-assign]

    model.forward = redirected  # type: ignore[method-assign]
    for number in range(3):
        torch.testing.assert_close(model(X), expected(7, number, ("net.0", "net.1.0")), rtol=1e-6, atol=0)
    assert int(model.dropkit_step) == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_forward_that_was_broken_off_has_ended(error: type[BaseException]) -> None:
    class Breaks(nn.Module):
        now = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.now:
                raise error
            return x

    model = bind(nn.Sequential(Dropout(0.5), nn.Sequential(Dropout(0.3)), Breaks()), seed=7)
    with pytest.raises(error):
        model(X)
    Breaks.now = False
    for number in (1, 2):
        torch.testing.assert_close(model(X), expected(7, number), rtol=1e-6, atol=0)


def test_unbind() -> None:
    model = bind(net(), seed=7)
    assert unbind(model) is model
    assert model.state_dict() == {}
    assert not model._forward_pre_hooks and not model._forward_hooks
    torch.manual_seed(0)
    one = model(X)
    torch.manual_seed(0)
    assert torch.equal(one, model(X))
    with pytest.raises(DropkitError, match="not bound"):
        unbind(model)
    bind(model, seed=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bind(nn.Linear(2, 2)), "no dropkit dropout to bind in Linear: it has none"),
        (lambda: bind(nn.Sequential(nn.Dropout(0.5))), r"it has torch's own: 0 \(Dropout\); use dropkit.torch.Dropout"),
        (lambda: bind(bind(net())), "already bound: 0, 1.0; dropkit.torch.unbind the model"),
        (lambda: bind(nn.Sequential(bind(net()))), "already bound: 0.0, 0.1.0"),
        (lambda: bind(net(), seed=-1), r"seed must lie in \[0, 2\*\*64\), got -1"),
        (lambda: bind("model"), "bind needs a torch.nn.Module, got str"),  # type: ignore[type-var]
        (lambda: at(step=-1).__enter__(), r"step must lie in"),
        (lambda: at(rows=[0.5]).__enter__(), "rows must hold whole numbers, got dtype torch.float32"),
        (lambda: at(rows=[[1]]).__enter__(), "rows must be one-dimensional"),
        (lambda: at(rows=[-1]).__enter__(), "rows must not be negative, got -1"),
    ],
)
def test_refusals(make: object, message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("given", [{"seed": 1}, {"site": "a"}, {"step": 3}, {"site": "a", "step": 3}])
def test_half_a_key_around_an_unbound_dropout_is_refused(given: dict) -> None:
    with at(**given), pytest.raises(DropkitError, match="give both seed and site, or name the model's sites once"):
        Dropout(0.5)(X)


def test_torchs_own_dropouts_are_named_in_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"bind leaves torch's own dropouts unbound: 1 \(Dropout2d\)"):
        bind(nn.Sequential(Dropout(0.5), nn.Dropout2d(0.5)))


def test_two_forwards_before_a_backward() -> None:
    model = bind(nn.Sequential(nn.Linear(40, 40), Dropout(0.5)), seed=1)
    a, b = torch.randn(6, 40, requires_grad=True), torch.randn(6, 40, requires_grad=True)
    one, two = model(a), model(b)
    (grad_b,) = torch.autograd.grad(two.sum(), b)
    (grad_a,) = torch.autograd.grad(one.sum(), a)
    for y, grad in ((one, grad_a), (two, grad_b)):
        mask = (y != 0).float() * 2
        torch.testing.assert_close(grad, mask @ model[0].weight)


def test_bound_on_a_model_in_inference_mode() -> None:
    with torch.inference_mode():
        model = bind(net(), seed=7)
        model(X)
    assert int(model.dropkit_step) == 1
    torch.testing.assert_close(model(X), expected(7, 1), rtol=1e-6, atol=0)
