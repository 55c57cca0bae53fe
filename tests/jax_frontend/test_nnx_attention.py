"""Attention and recurrent networks of flax: keyed masks, taken over by `swap`, the same under every transformation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import dropkit.jax as dj
from dropkit import Key, keep
from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.jax.linen import MultiHeadDotProductAttention, stream
from dropkit.jax.linen import dot_product_attention as linen_attention
from dropkit.jax.nnx import RNN, MultiHeadAttention, dot_product_attention

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8)), jnp.float32)


@nnx.jit
def run(model: Any, x: Any, **how: Any) -> Any:
    return model(x, **how)


def flax_own(**how: Any) -> Any:
    given = {"dropout_rate": 0.5, "broadcast_dropout": False, "decode": False, "rngs": nnx.Rngs(0)} | how
    return nnx.MultiHeadAttention(4, 8, **given)


def by_hand(model: Any, x: Any, kept: Any, seen: Any = True, p: float = 0.5) -> Any:
    """What an attention gives with a known mask; a query that sees nothing sees all alike."""
    q, k, v = (part(x) for part in (model.query, model.key, model.value))
    k, v = (jnp.repeat(each, q.shape[-2] // each.shape[-2], -2) for each in (k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(jnp.float32).min), -1) * kept / (1 - p)
    return model.out(jnp.einsum("bhqk,bkhd->bqhd", weights, v))


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("heads", [4, 2])
def test_a_finished_attention_is_taken_over_and_comes_back(shared: bool, heads: int) -> None:
    model = flax_own(num_kv_heads=heads, broadcast_dropout=shared)
    seen = np.tril(np.ones((6, 6), bool))
    seen[2] = False
    model.eval()
    plain, graph = model(X, mask=jnp.asarray(seen)[None, None]), nnx.split(model)[0]
    receipt = dj.swap(model)
    told = ", one mask for all samples and heads" if shared else ""
    assert str(receipt) == f"the model itself: flax MultiHeadAttention(0.5) -> dropkit Dropout(0.5) in it{told}"
    np.testing.assert_array_equal(model(X, mask=jnp.asarray(seen)[None, None]), plain)
    assert list(dj.sites(dj.bind(model, seed=3))) == ["dropout"]
    model.train()
    kept = keep((2, 4, 6, 6), 0.5, Key(3, "dropout", 0), share=(0, 1) if shared else ())
    close(run(model, X, mask=jnp.asarray(seen)[None, None]), by_hand(model, X, kept, seen))
    with dj.at(model, step=0):
        close(run(model, X), by_hand(model, X, kept))
    model.eval()
    receipt.restore()
    np.testing.assert_array_equal(model(X, mask=jnp.asarray(seen)[None, None]), plain)
    assert nnx.split(model)[0] == graph and model.dropout_rate == 0.5


def test_two_forwards_at_one_step_are_equal_and_recomputed_ones_too() -> None:
    model = dj.bind(dj.swap(flax := flax_own()) and flax, seed=1)
    model.train()
    first = run(model, X)
    with dj.at(model, step=0):
        np.testing.assert_array_equal(run(model, X), first)
    with dj.at(model, step=0):
        again = nnx.jit(nnx.remat(lambda model, x: model(x)))(model, X)
    np.testing.assert_array_equal(again, first)
    assert (run(model, X) != first).any()


def test_layers_of_a_scanned_stack_and_members_of_an_ensemble_differ() -> None:
    @nnx.vmap
    def make(key: Any) -> Any:
        return flax_own(rngs=nnx.Rngs(key))

    class Stack(nnx.Module):
        def __init__(self) -> None:
            self.layers = make(jax.random.split(jax.random.key(0), 3))

        def __call__(self, x: Any) -> Any:
            return nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.layers)

    model: Any = Stack()
    dj.swap(model)
    dj.bind(model, seed=1).train()
    graph, state = nnx.split(model.layers)
    x = X
    for number in range(3):
        kept = keep((2, 4, 6, 6), 0.5, Key(1, f"layers.dropout.{number}", 0))
        x = by_hand(nnx.merge(graph, jax.tree.map(lambda leaf, n=number: leaf[n], state)), x, kept)
    members = nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))  # leaves the streams a step further on
    np.testing.assert_allclose(run(model, X), x, rtol=1e-4, atol=1e-5)
    a, b, _ = members(model.layers, X)
    assert (a != b).any()


def test_the_rate_moves_as_data() -> None:
    model = dj.bind(dj.swap(flax := flax_own()) and flax, seed=1)
    model.train()
    dj.set_rate(model, "*", 0.25)
    traced: list[int] = []

    @nnx.jit
    def step(model: Any) -> Any:
        traced.append(1)
        return model(X)

    for number, rate in enumerate((0.25, 0.75, 0.0)):
        dj.set_rate(model, "dropout", rate)
        close(step(model), by_hand(model, X, keep((2, 4, 6, 6), rate, Key(1, "dropout", number)), p=rate))
    assert traced == [1]
    np.testing.assert_allclose(model.dropout_rate, 0.0)


def test_a_class_for_new_models_and_a_function_for_flax_own() -> None:
    ours = MultiHeadAttention(4, 8, dropout_rate=0.5, decode=False, rngs=nnx.Rngs(0), keep_rngs=False)
    close(ours(X, deterministic=False, rngs=Key(1, "a")), by_hand(ours, X, keep((2, 4, 6, 6), 0.5, Key(1, "a"))))
    assert MultiHeadAttention(4, 8, decode=False, rngs=nnx.Rngs(0))(X).shape == X.shape  # of rate 0, nobody says it
    with pytest.raises(DropkitValueError, match="no `rngs`"):
        ours(X, deterministic=False)
    flax = flax_own(attention_fn=dot_product_attention, keep_rngs=False)
    found = flax(X, deterministic=False, rngs=nnx.Rngs(dropout=7))
    drawn = nnx.Rngs(dropout=7).dropout()
    words = jax.random.key_data(drawn)
    close(found, by_hand(flax, X, keep((2, 4, 6, 6), 0.5, Key(int(words[0]) << 32 | int(words[1])))))
    for rate, text in ((1.5, "1.5"), (float("nan"), "nan")):
        with pytest.raises(DropkitValueError, match=text):
            MultiHeadAttention(4, 8, dropout_rate=rate, rngs=nnx.Rngs(0))
    with pytest.raises(DropkitTypeError, match="takes no attention_fn"):
        MultiHeadAttention(4, 8, attention_fn=linen_attention, rngs=nnx.Rngs(0))
    x = jnp.ones((1, 6, 2, 4))
    with pytest.raises(DropkitValueError, match=r"mask of shape \(6, 5\)"):
        dot_product_attention(
            *[jnp.ones((1, 6, 2, 4))] * 3, mask=jnp.ones((6, 5)), dropout_rate=0.5, dropout_rng=Key(0)
        )  # type: ignore[misc, arg-type]
    with pytest.raises(DropkitValueError, match="got no key"):
        dot_product_attention(x, x, x, dropout_rate=0.5)


def test_decoding_and_any_axes_before_the_length() -> None:
    model = dj.bind(dj.swap(flax := flax_own(decode=True)) and flax, seed=1)
    model.train()
    model.init_cache((2, 6, 8))
    for _ in range(2):
        assert model(X[:, :1]).shape == (2, 1, 8)
    assert int(model.cache_index[...]) == 2 and int(model.dropout.rngs.count[...]) == 2
    model.decode = False
    with dj.at(model, step=0):
        whole = model(X)
    with dj.at(model, step=0):
        parted = model(X.reshape(2, 1, 6, 8))
    np.testing.assert_allclose(parted[:, 0], whole, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_taken_over_is_named_with_the_reason() -> None:
    class Own(nnx.MultiHeadAttention):
        def __call__(self, *args: Any, **how: Any) -> Any:
            return super().__call__(*args, **how)

    class Named(nnx.MultiHeadAttention):
        """It has no call of its own."""

    def mine(*args: Any, **how: Any) -> Any:
        return nnx.dot_product_attention(*args, **how)

    how: dict[str, Any] = {"dropout_rate": 0.5, "decode": False, "rngs": nnx.Rngs(0)}
    model: Any = nnx.Sequential(Own(2, 8, **how), Named(2, 8, **how), flax_own(attention_fn=mine))
    with pytest.warns(UserWarning, match=r"cannot replace.*: layers.0 \(Own\), layers.2 \(MultiHeadAttention\)"):
        receipt = dj.swap(model)
    assert receipt.lines[1:] == (
        "layers.0 (Own): left alone, has a call of its own",
        "layers.2 (MultiHeadAttention): left alone, has an attention_fn of its own, mine",
    )
    assert isinstance(model.layers[1], Named)
    with pytest.warns(UserWarning, match="dropkit.jax.swap takes over what it can"):
        assert list(dj.sites(dj.bind(model))) == ["layers.1.dropout"]
    receipt.restore()
    assert type(model.layers[1]) is Named
    bad: Any = nnx.Sequential(flax_own(dropout_rate=1.5), nnx.Dropout(0.5))
    with pytest.raises(DropkitValueError, match=r"1\.5"):
        dj.swap(bad)
    assert type(bad.layers[1]) is nnx.Dropout


@pytest.mark.parametrize("kind", [nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell, nnx.SimpleCell])
def test_recurrent_masks_are_drawn_once_a_sequence(kind: Any) -> None:
    cell = kind(8, 5, rngs=nnx.Rngs(0))
    rnn = dj.bind(RNN(cell, dropout_rate=0.5, recurrent_dropout_rate=0.25), seed=3)
    found = run(rnn, X)
    inputs = X * keep((2, 6, 8), 0.5, Key(3, "dropout", 0), share=(1,)) * 2
    kept = keep((2, 5), 0.25, Key(3, "recurrent_dropout", 0)) / 0.75
    names = ("hi", "hf", "hg", "ho") if kind is nnx.LSTMCell else ("dense_h",)
    for name in names:
        own = getattr(cell, name)
        object.__setattr__(cell, name, lambda h, own=own: own(h * kept))
    carry, outs = cell.initialize_carry((2, 8), nnx.Rngs(0)), []
    for time in range(6):
        carry, out = cell(carry, inputs[:, time])
        outs.append(out)
    close(found, jnp.stack(outs, 1))


@pytest.mark.slow
def test_a_network_of_cells_repeats_and_evaluates_as_flax() -> None:
    def cells() -> list[Any]:
        return [nnx.GRUCell(8, 5, rngs=nnx.Rngs(seed)) for seed in (0, 1)]

    ours: Any = nnx.Bidirectional(*(RNN(cell, dropout_rate=0.5, recurrent_dropout_rate=0.5) for cell in cells()))
    first = run(dj.bind(ours, seed=1), X)
    assert list(dj.sites(ours)) == [f"{way}_rnn.{site}" for way in ("backward", "forward") for site in
                                    ("dropout", "recurrent_dropout")]  # fmt: skip
    with dj.at(ours, step=0):
        np.testing.assert_array_equal(run(ours, X), first)
    assert (run(ours, X) != first).any()
    ours.eval()
    np.testing.assert_array_equal(run(ours, X), run(nnx.Bidirectional(*map(nnx.RNN, cells())), X))
    grads = nnx.grad(lambda model: (model(X) ** 2).sum())(ours)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_cell_that_nobody_knows_is_asked_about() -> None:
    class Cell(nnx.RNNCellBase):
        hidden: Any = staticmethod(lambda h: h)

    cell: Any = Cell()
    with pytest.raises(DropkitValueError, match="which modules of Cell see the hidden state is not known"):
        RNN(cell, recurrent_dropout_rate=0.5)
    with pytest.raises(DropkitValueError, match="Cell has no module 'dense'"):
        RNN(cell, recurrent_dropout_rate=0.5, recurrent=("dense",))
    with pytest.raises(DropkitTypeError, match="sequence of names"):
        RNN(cell, recurrent="hidden")
    with pytest.raises(DropkitValueError, match=r"1\.5"):
        RNN(nnx.GRUCell(2, 2, rngs=nnx.Rngs(0)), dropout_rate=1.5)


def test_linen() -> None:
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return MultiHeadDotProductAttention(4, dropout_rate=0.5, name="attend", deterministic=False)(x)

    weights = Net().init({"params": jax.random.key(0), "dropkit": stream(1, 0)}, X)
    forward = jax.jit(lambda step: Net().apply(weights, X, rngs={"dropkit": stream(1, step)}))
    model = flax_own()
    for name, part in weights["params"]["attend"].items():
        getattr(model, name).kernel.set_value(part["kernel"])
        getattr(model, name).bias.set_value(part["bias"])
    close(forward(jnp.asarray(3)), by_hand(model, X, keep((2, 4, 6, 6), 0.5, Key(1, "attend.dropout", 3))))
    theirs = linen.MultiHeadDotProductAttention(4, dropout_rate=0.5, attention_fn=linen_attention)
    params = {"params": weights["params"]["attend"]}
    dropped = theirs.apply(params, X, deterministic=False, rngs={"dropout": jax.random.key(0)})
    assert (dropped != theirs.apply(params, X, deterministic=True)).any()
    with pytest.raises(DropkitValueError, match=r"1\.5"):
        MultiHeadDotProductAttention(4, dropout_rate=1.5)
