"""insert: a dropout behind a module, in a model that keeps its paths and its state_dict."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import dropkit.torch as dt
from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.torch.changing.surgery import insert

from .architectures import Bert, Owner, encoder, snapshot, zeros


@pytest.mark.parametrize("after", ["0", "*", nn.Linear, (nn.Linear, nn.Conv2d), lambda path, module: path == "0"])
def test_insert(after: Any) -> None:
    model: Any = nn.Sequential(nn.Linear(8, 64)).eval()
    keys = list(model.state_dict())
    x = torch.randn(8, 8)
    expected = model(x)
    insert(model, after, dt.Dropout(0.5))
    assert torch.equal(model(x), expected)
    model.train()
    assert 0.3 < zeros(model(x)) < 0.7
    assert list(model.state_dict()) == keys
    assert [path for path, m in model.named_modules() if isinstance(m, nn.Dropout)] == ["0.dropkit_drop"]
    dt.bind(model, seed=1)
    with dt.at(step=0):
        assert torch.equal(model(x), model(x))


def test_each_place_gets_a_dropout_of_its_own() -> None:
    drop = dt.Dropout(0.5)
    model = Bert()
    receipt = insert(model, "*.mlp", drop)
    added = [m for m in model.modules() if isinstance(m, dt.Dropout)]
    assert len(added) == 2
    assert len({id(m) for m in [*added, drop]}) == 3
    assert receipt.lines[0] == "blocks.0.mlp.3: dropkit Dropout(p=0.5, inplace=False) behind Linear"
    made: list[nn.Module] = []
    insert(model, "*.attention", lambda: made.append(nn.Dropout(0.1)) or made[-1])
    assert len(made) == 2


def test_insert_behind_every_linear_of_an_attention() -> None:
    model = encoder()
    receipt = insert(model, nn.Linear, dt.Dropout(0.5))
    assert receipt.lines[-1] == "layers.1.self_attn.out_proj: left alone, nn.MultiheadAttention never calls it"
    assert len([m for m in model.modules() if isinstance(m, dt.Dropout)]) == 4
    model.eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def test_insert_behind_a_sequential_is_behind_its_last_module() -> None:
    model: Any = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 64))
    insert(model, lambda path, module: isinstance(module, nn.Sequential), dt.Dropout(0.5))
    assert (len(model), len(model[0])) == (2, 2)
    paths = [path for path, m in model.named_modules() if isinstance(m, nn.Dropout)]
    assert paths == ["0.1.dropkit_drop", "1.dropkit_drop"]


def test_insert_behind_what_returns_tuples() -> None:
    x = torch.randn(3, 4, 8)
    lstm = nn.LSTM(8, 64, batch_first=True)
    expected, (h, _) = lstm(x)
    insert(lstm, nn.LSTM, dt.Dropout(0.5))
    y, state = lstm(x)
    assert isinstance(state, tuple)
    assert torch.equal(state[0], h)
    kept = y != 0
    assert 0.3 < zeros(y) < 0.7
    torch.testing.assert_close(y[kept], 2 * expected[kept])
    packed, _ = lstm(pack_sequence([x[0], x[1, :2]]))
    assert type(packed) is PackedSequence
    assert 0.3 < zeros(packed.data) < 0.7


def test_insert_behind_what_returns_neither_fails_when_it_runs() -> None:
    class Output(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x}

    model = nn.Sequential(Output())
    insert(model, "0", dt.Dropout(0.5))
    with pytest.raises(DropkitTypeError, match="behind an Output that returns a dict"):
        model(torch.ones(2))


def test_an_inserted_dropout_is_copied_and_pickled_with_its_model() -> None:
    model = nn.Sequential(nn.Linear(8, 64))
    insert(model, "0", dt.Dropout(0.5))
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    for twin in (copy.deepcopy(model), torch.load(stream, weights_only=False)):
        assert 0.3 < zeros(twin(torch.randn(8, 8))) < 0.7
        drop = twin[0].dropkit_drop
        drop.eval()
        assert zeros(twin(torch.randn(8, 8))) == 0
    assert 0.3 < zeros(model(torch.randn(8, 8))) < 0.7


def test_insert_compiles_without_a_graph_break() -> None:
    model = nn.Sequential(nn.Linear(8, 64))
    insert(model, "0", dt.Dropout(0.5))
    assert 0.3 < zeros(torch.compile(model, backend="eager", fullgraph=True)(torch.randn(8, 8))) < 0.7


@pytest.mark.parametrize(
    ("make", "after", "message"),
    [
        (Bert, "nowhere", r"after='nowhere' matches nothing in Bert; it has blocks \(ModuleList\), heads \(Mod"),
        (Bert, "blocks", "cannot insert behind blocks: a ModuleList is not called as a whole; name its entries"),
        (encoder, "*.out_proj", "uses its weights and never calls it; insert behind the attention itself"),
        (Owner, "first", "cannot insert behind first alone: the same module also sits at second"),
    ],
)
def test_insert_refusals(make: Any, after: str, message: str) -> None:
    model = make()
    before = snapshot(model)
    with pytest.raises(DropkitValueError, match=message):
        insert(model, after, dt.Dropout(0.1))
    assert snapshot(model) == before


def test_insert_refuses_bad_arguments() -> None:
    model = nn.Sequential(nn.Linear(2, 2), dt.Dropout(0.5))
    with pytest.raises(DropkitTypeError, match="after must be a pattern of paths"):
        insert(model, 3, dt.Dropout(0.1))  # type: ignore[arg-type]
    with pytest.raises(DropkitTypeError, match="drop must be a module"):
        insert(model, "0", 0.1)  # type: ignore[arg-type]
    with pytest.raises(DropkitTypeError, match=r"drop\(\) must return a torch.nn.Module, got 0.1"):
        insert(model, "0", lambda: 0.1)  # type: ignore[arg-type, return-value]
    insert(model, "0", dt.Dropout(0.1))
    with pytest.raises(DropkitValueError, match="0 has an inserted dropout already"):
        insert(model, "0", dt.Dropout(0.1))
    dt.bind(model)
    with pytest.raises(DropkitValueError, match="drop is bound to a model"):
        insert(nn.Sequential(nn.ReLU()), "0", model[1])
    with pytest.warns(UserWarning, match="the model is bound and these are not: 1.dropkit_drop"):
        insert(model, "1", dt.Dropout(0.1))
