"""`predict` of torch models: what each pass is, what it depends on, and that nothing is left behind."""

import contextlib
import copy
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import dropkit.torch as ours  # noqa: E402
from dropkit.errors import DropkitError, DropkitValueError  # noqa: E402
from dropkit.uncertainty import Prediction, bald, batch_bald, conformal, log_likelihood, nll, predict  # noqa: E402

from .models import MODELS  # noqa: E402

SAMPLES = 20
each_model = pytest.mark.parametrize("name", MODELS)


def made(name: str, count: int = 11) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    return make().train(), torch.randn(count, *shape)


def state(model: nn.Module) -> tuple[Any, ...]:
    """All that a prediction must leave as it was."""
    parts = [(type(part), part.training, sorted(part.__dict__)) for part in model.modules()]
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    learning = [weight.requires_grad for weight in model.parameters()]
    return repr(model), parts, hooks, weights, learning, torch.get_rng_state()


def same_state(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    weights = a[3].keys() == b[3].keys() and all(torch.equal(a[3][key], b[3][key]) for key in a[3])
    return a[:3] == b[:3] and weights and a[4] == b[4] and torch.equal(a[5], b[5])


def looped(model: nn.Module, x: torch.Tensor, samples: int, rows: Any = None) -> torch.Tensor:
    """The passes by public means: one after the other, all inputs at once, nothing kept."""
    model = copy.deepcopy(model).eval()
    rows = torch.arange(len(x)) if rows is None else torch.as_tensor(rows)
    with warnings.catch_warnings(), torch.random.fork_rng([]), torch.no_grad():
        warnings.simplefilter("ignore")
        with contextlib.suppress(DropkitValueError):  # all of them are ours
            ours.swap(model, x)
        model.eval()
        ours.bind(model, 0)
        with ours.enabled(model):
            found = []
            for step in range(samples):
                with ours.at(step=step, rows=rows):
                    found.append(model(x))
    return torch.stack(found)


@each_model
def test_a_row_is_the_same_in_any_company(name: str) -> None:
    model, x = made(name)
    whole = predict(model, x, SAMPLES, keep=True).samples
    order = torch.randperm(len(x))
    shuffled = predict(model, x[order], SAMPLES, keep=True, rows=order)
    alone = predict(model, x[3:4], SAMPLES, keep=True, rows=[3])
    assert torch.equal(shuffled.samples, whole[:, order])
    assert torch.equal(alone.samples[:, 0], whole[:, 3])
    assert whole.var(0).max() > 0


@each_model
def test_what_runs_once_changes_nothing(name: str) -> None:
    model, x = made(name)
    once, plain = (predict(model, x, SAMPLES, keep=True, prefix=prefix) for prefix in (True, False))
    assert torch.equal(once.samples, plain.samples)
    assert plain.once == () and once.sites == plain.sites


@each_model
def test_passes_are_steps_and_inputs_are_rows(name: str) -> None:
    if name in ("lstm, time first", "encoder, time first", "dropped positions", "flattened", "concrete", "weights"):
        pytest.skip("rows of these tensors cannot be told by at(rows=)")
    model, x = made(name)
    found = predict(model, x, SAMPLES, keep=True).samples
    torch.testing.assert_close(found, looped(model, x, SAMPLES).double(), rtol=1e-4, atol=1e-5)


@each_model
def test_nothing_is_left_behind(name: str) -> None:
    model, x = made(name)
    before = state(model)
    predict(model, x, 5)
    assert same_state(before, state(model))


@each_model
def test_nothing_is_left_behind_by_an_error(name: str) -> None:
    model, x = made(name, 20)
    before = state(model)

    def failing(done: int) -> None:
        raise KeyError(done)

    with pytest.raises(KeyError):
        predict(model, x, 5, progress=failing)
    assert same_state(before, state(model))


def test_a_pass_may_be_one_function_for_all_inputs() -> None:
    model, x = made("functional", 1)
    both = predict(model, x.expand(9, -1), SAMPLES, share="pass", keep=True).samples
    assert torch.equal(both[:, :1].expand_as(both), both)
    own = predict(model, x.expand(9, -1), SAMPLES, keep=True).samples
    assert not torch.equal(own[:, 0], own[:, 1])


def test_only_named_sites_are_on() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    x = torch.randn(3, 6)
    found = predict(model, x, SAMPLES, sites="3", keep=True)
    assert found.sites == ("3",) and found.once == ("0", "2")
    first = predict(model, x, SAMPLES, keep=True)
    assert first.sites == ("1", "3") and first.once == ("0",)
    model[1].p = 0.0
    assert torch.equal(found.samples, predict(model, x, SAMPLES, keep=True).samples)


def test_a_bound_model_draws_by_the_given_seed() -> None:
    model, x = made("alpha")
    ours.swap(model)
    free = predict(model, x, SAMPLES, keep=True, seed=3).samples
    ours.bind(model, 1)
    model(x)
    before = state(model)
    assert torch.equal(predict(model, x, SAMPLES, keep=True, seed=3).samples, free)
    assert same_state(before, state(model))


def test_loaders_mappings_and_tuples() -> None:
    model, x = made("functional", 21)
    whole = predict(model, x, 5, keep=True).samples
    data = torch.utils.data.TensorDataset(x, torch.zeros(21))
    for size in (1, 4, 21):
        loader = torch.utils.data.DataLoader(data, batch_size=size)
        assert torch.equal(predict(model, loader, 5, keep=True).samples, whole)
    assert torch.equal(predict(model, {"x": x}, 5, keep=True).samples, whole)
    assert torch.equal(predict(model, (x,), 5, keep=True).samples, whole)
    assert torch.equal(predict(model, x.numpy(), 5, keep=True).samples, whole)
    batches = [{"x": x[:8], "labels": torch.zeros(8)}, {"x": x[8:], "labels": torch.zeros(13)}]
    assert torch.equal(predict(model, batches_of(batches), 5, keep=True).samples, whole)


def batches_of(given: list[Any]) -> Any:
    yield from given


def test_measures_of_classes_by_hand() -> None:
    model, x = made("functional")
    found = predict(model, x, SAMPLES, outputs="logits", keep=True, quantiles=(0.1, 0.9))
    p = found.samples.numpy()
    np.testing.assert_allclose(p, torch.from_numpy(predict(model, x, SAMPLES, keep=True).samples.numpy()).softmax(-1))
    mean = p.mean(0)
    total, expected = -(mean * np.log(mean)).sum(-1), -(p * np.log(p)).sum(-1).mean(0)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.variance, p.var(0), rtol=1e-9)
    np.testing.assert_allclose(found.entropy, total, rtol=1e-12)
    np.testing.assert_allclose(found.expected_entropy, expected, rtol=1e-12)
    np.testing.assert_allclose(found.mutual_information, total - expected, atol=1e-12)
    votes = np.stack([(p.argmax(-1) == c).mean(0) for c in range(3)])
    np.testing.assert_allclose(found.variation_ratio, 1 - votes.max(0))
    np.testing.assert_allclose(found.quantiles, np.quantile(p, (0.1, 0.9), axis=0))
    assert found.labels.tolist() == mean.argmax(-1).tolist()
    assert found.axes["quantiles"] == ("level", "input", "output 0")


def test_without_noise_nothing_differs_at_all() -> None:
    model = nn.Sequential(nn.Linear(6, 8), ours.Dropout(1e-9), nn.Dropout(0.5), nn.Linear(8, 3))
    nn.init.zeros_(model[3].weight)  # whatever is dropped, the output is the bias
    found = predict(model, torch.randn(5, 6), SAMPLES, outputs="logits")
    assert found.mutual_information.abs().max() == 0 == found.variance.max() and found.variation_ratio.max() == 0


def test_means_converge_as_one_over_the_root() -> None:
    """The standard error is right: |mean of 400 - mean of others| stays within 4.5 of it, for 33 outputs (p < 3e-4)."""
    model, x = made("functional")
    few, many = predict(model, x, 400, seed=1), predict(model, x, 6400, seed=2)
    error = (many.variance / 400 + many.variance / 6400).sqrt()
    assert ((few.mean - many.mean).abs() < 4.5 * error).all()
    assert ((few.mean - many.mean) / error).square().mean() < 2.2


def test_images_of_classes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 3, 1))
    found = predict(model, torch.randn(3, 1, 5, 6), 8, outputs="logits", axis=1, keep=True)
    assert found.mean.shape == (3, 3, 5, 6) and found.entropy.shape == (3, 5, 6)
    assert found.samples.shape == (8, 3, 3, 5, 6)
    torch.testing.assert_close(found.mean.sum(1), torch.ones(3, 5, 6, dtype=torch.float64))


def test_gaussian_heads() -> None:
    model, x = made("gaussian")
    found = predict(model, x, SAMPLES, outputs="gaussian")
    raw = predict(model, x, SAMPLES, keep=True).samples
    torch.testing.assert_close(found.mean, raw[..., :1].mean(0))
    torch.testing.assert_close(found.aleatoric, raw[..., 1:].exp().mean(0))
    torch.testing.assert_close(found.epistemic, raw[..., :1].var(0, correction=0))
    torch.testing.assert_close(found.variance, found.epistemic + found.aleatoric)


def test_log_likelihood_by_hand() -> None:
    model, x = made("gaussian", 3)
    found, y, tau = predict(model, x, 7, keep=True), torch.randn(3, 2).double(), 0.7
    normal = torch.distributions.Normal(found.samples, tau**-0.5)
    expected = normal.log_prob(y).sum(-1).logsumexp(0) - np.log(7)
    assert log_likelihood(found, y, tau) == pytest.approx(expected.mean().item(), rel=1e-10)


def test_judges_take_a_prediction() -> None:
    model, x = made("functional")
    y = torch.arange(11) % 3
    found = predict(model, x, 7, outputs="logits", keep=True, share="pass")
    assert nll(found, y) == pytest.approx(-found.mean[torch.arange(11), y].log().mean().item())
    np.testing.assert_allclose(bald(found), found.mutual_information, atol=1e-12)
    assert len(batch_bald(found, 2).chosen) == 2
    with pytest.raises(DropkitError, match="share"):
        batch_bald(predict(model, x, 7, outputs="logits", keep=True), 2)
    assert conformal(found, y, 0.4).predict(found).shape == (11, 3)


def test_judges_find_the_classes_of_images() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 3, 1))
    found = predict(model, torch.randn(3, 1, 5, 6), 8, outputs="logits", axis=1)
    y = torch.randint(3, (3, 5, 6))
    expected = -found.mean.gather(1, y[:, None]).log().mean()
    assert nll(found, y) == pytest.approx(expected.item())


def test_passes_end_by_the_standard_error_of_each_input() -> None:
    model, x = made("functional")
    found = predict(model, x, 400, stop=0.03, keep=True)
    whole = predict(model, x, 400, keep=True).samples
    assert 10 <= found.count.min() < found.count.max()
    for i, count in enumerate(found.count.tolist()):
        assert torch.equal(found.samples[:count, i], whole[:count, i])
        assert found.samples[count:, i].isnan().all()
        torch.testing.assert_close(found.mean[i], whole[:count, i].mean(0))
    alone = predict(model, x[4:5], 400, stop=0.03, rows=[4])
    assert alone.count[0] == found.count[4] and torch.equal(alone.mean[0], found.mean[4])


def test_memory_bounds_the_passes_side_by_side() -> None:
    seen: list[int] = []

    class Watching(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), Watching(8, 1000))
    few = predict(model, torch.randn(8, 6), 32, memory=4 * 8 * 1100 * 4).mean
    assert max(seen) == 32  # four passes of eight inputs
    seen.clear()
    assert torch.allclose(predict(model, torch.randn(8, 6), 32).mean.mean(), few.mean(), atol=1)
    assert max(seen) == 128


def test_compiled_and_wrapped_models() -> None:
    model, x = made("alpha")
    plain = predict(model, x, 5).mean
    assert torch.equal(predict(torch.compile(model, backend="eager"), x, 5).mean, plain)
    model.compile(backend="eager")
    assert torch.equal(predict(model, x, 5).mean, plain)
    assert model._compiled_call_impl is not None


def test_what_draws_out_of_reach_is_told() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    model = nn.Sequential(nn.Linear(6, 8), Noisy(), nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="will not repeat"):
        predict(model, torch.randn(3, 6), 5)


BAD: dict[str, tuple[Any, str]] = {
    "no dropout": (lambda x: predict(nn.Linear(6, 2), x), "no dropout became active"),
    "a rate of 0": (lambda x: predict(nn.Sequential(nn.Dropout(0.0)), x), "no dropout"),
    "unknown site": (lambda x: predict(made("functional")[0], x, sites="nowhere"), "nowhere"),
    "no site": (lambda x: predict(made("functional")[0], x, sites=[]), "turns nothing on"),
    "samples": (lambda x: predict(made("functional")[0], x, 0), "samples must be at least 1, got 0"),
    "half a sample": (lambda x: predict(made("functional")[0], x, 2.5), "samples must be an integer"),
    "seed": (lambda x: predict(made("functional")[0], x, seed=-1), "seed must be at least 0, got -1"),
    "share": (lambda x: predict(made("functional")[0], x, share="batch"), "batch"),
    "outputs": (lambda x: predict(made("functional")[0], x, outputs="softmax"), "softmax"),
    "stop": (lambda x: predict(made("functional")[0], x, stop=0), "stop is a standard error above 0"),
    "levels": (lambda x: predict(made("functional")[0], x, quantiles=(5, 95)), "levels in"),
    "rows": (lambda x: predict(made("functional")[0], x, rows=[0, 1]), "2 numbers for 11 inputs"),
    "negative rows": (lambda x: predict(made("functional")[0], x, rows=range(-1, 10)), "rows count from 0, got -1"),
    "no inputs": (lambda x: predict(made("functional")[0], x[:0]), "no inputs"),
    "no array": (lambda x: predict(made("functional")[0], 3), "x must be a tensor"),
    "no model": (lambda x: predict(len, x), "needs a model"),
    "logits as probabilities": (lambda x: predict(made("functional")[0], x, outputs="probabilities"), "no probability"),
    "odd gaussian": (lambda x: predict(made("functional")[0], x, outputs="gaussian"), "as many logarithms"),
    "NaN": (lambda x: predict(made("functional")[0], x * torch.nan), "NaN or infinity"),
    "entropy of values": (lambda x: predict(made("functional")[0], x).entropy, 'say outputs="logits"'),
    "samples not kept": (lambda x: predict(made("functional")[0], x).samples, "keep=True"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_a_line(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(DropkitError, match=words.replace("(", r"\(")) as found:
        call(torch.ones(11, 6))
    assert "\n" not in str(found.value)


def test_a_prediction_is_a_value() -> None:
    model, x = made("functional")
    found = predict(model, x, 5)
    assert isinstance(found, Prediction) and len(found) == 11 and found.count.tolist() == [5] * 11
    assert "mean" not in repr(found)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = found.nonsense


def test_models_in_double_precision_keep_it() -> None:
    model, x = made("alpha")
    found = predict(model.double(), x.double(), SAMPLES, keep=True).samples
    assert torch.equal(found.float().double(), found) is False
    torch.testing.assert_close(found, looped(model, x.double(), SAMPLES), rtol=1e-12, atol=1e-12)
