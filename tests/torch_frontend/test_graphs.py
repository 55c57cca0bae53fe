"""Edges, nodes and messages that drop: by which bits, in which forms, and with which errors."""

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
from dropkit.torch.graphs import normalized

KEY = Key(seed=5, site="graph", step=3)
NODES = 40


def here(**more: Any) -> Any:
    return dt.at(seed=KEY.seed, site=KEY.site, step=KEY.step, **more)


def graph(links: int = 90, loops: int = 4, copies: int = 7) -> torch.Tensor:
    """Both directions of links, loops, and some edges twice, in no order."""
    random = np.random.default_rng(0)
    ends = random.integers(0, NODES, (2, links))
    edges = np.concatenate([ends, ends[::-1], np.tile(random.integers(0, NODES, loops), (2, 1)), ends[:, :copies]], 1)
    return torch.from_numpy(edges[:, random.permutation(edges.shape[1])].copy())


def as_rows(edges: torch.Tensor) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in edges.t().tolist()]


def index_of(edge: tuple[int, int], undirected: bool) -> int:
    a, b = sorted(edge) if undirected else edge
    return a * 2**31 + b


@pytest.mark.parametrize("p", [0.0, 0.3, 0.6, 1.0])
def test_edges_go_by_the_bits_of_their_places(p: float) -> None:
    edges, weights = graph(), torch.randn(graph().shape[1], 3)
    with here():
        left, of_them = dt.DropEdge(p)(edges, weights)
    kept = torch.from_numpy(dropkit.keep((edges.shape[1],), p, KEY).copy())
    assert torch.equal(left, edges[:, kept]) and torch.equal(of_them, weights[kept])


@pytest.mark.parametrize("undirected", [False, True])
def test_edges_go_by_the_bits_of_their_pairs_whatever_the_order_of_the_list(undirected: bool) -> None:
    edges, drop = graph(), dt.DropEdge(0.4, by="pair", undirected=undirected)
    kept = [
        bool(dropkit.keep((1,), 0.4, KEY, index=np.array([index_of(edge, undirected)]))[0]) for edge in as_rows(edges)
    ]
    with here():
        assert torch.equal(drop(edges), edges[:, torch.tensor(kept)])
    order = torch.randperm(edges.shape[1])
    with here():
        assert sorted(as_rows(drop(edges[:, order]))) == sorted(as_rows(edges[:, torch.tensor(kept)]))
    some = edges[:, : edges.shape[1] // 2]  # a part of the graph, as a sampler gives
    with here():
        assert as_rows(drop(some)) == [edge for edge, stays in zip(as_rows(some), kept, strict=False) if stays]


@pytest.mark.parametrize("exact", [False, True])
def test_an_undirected_edge_goes_with_its_reverse_and_its_copies(exact: bool) -> None:
    edges = graph()
    before, everything = as_rows(edges), {tuple(sorted(edge)) for edge in as_rows(edges)}
    for step in range(5):
        with dt.at(seed=1, site="s", step=step):
            left = as_rows(dt.DropEdge(0.5, undirected=True, exact=exact)(edges))
        pairs = {tuple(sorted(edge)) for edge in left}
        assert left == [edge for edge in before if tuple(sorted(edge)) in pairs]
        assert not exact or len(pairs) == int(len(everything) * 0.5)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.6, 0.95, 1.0])
def test_an_exact_count_is_that_of_the_papers_program_and_of_the_smallest_numbers(p: float) -> None:
    edges = graph()
    count = int(edges.shape[1] * (1 - p))
    with here():
        left = dt.DropEdge(p, exact=True)(edges)
    order = np.argsort(dropkit.uniform((edges.shape[1],), KEY), kind="stable")
    assert torch.equal(left, edges[:, np.sort(order[:count]).copy()]) and left.shape == (2, count)


def test_every_set_of_an_exact_count_is_as_likely() -> None:
    """Of 4 edges 2 are kept: each of the 6 sets 500 times of 3000, to within 5 standard errors."""
    edges, drop, found = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]]), dt.DropEdge(0.5, exact=True), {}
    for step in range(3000):
        with dt.at(seed=2, site="sets", step=step):
            chosen = tuple(drop(edges)[0].tolist())
        found[chosen] = found.get(chosen, 0) + 1
    assert len(found) == 6
    assert all(abs(n - 500) < 5 * np.sqrt(3000 * 5 / 36) for n in found.values())


def test_parts_of_an_edge_list_get_their_parts_of_its_mask() -> None:
    edges, drop = graph(), dt.DropEdge(0.5)
    with here():
        whole = drop(edges)
    rows = torch.randperm(edges.shape[1])[:50].sort().values
    with here(rows=rows):
        part = drop(edges[:, rows])
    kept = dropkit.keep((edges.shape[1],), 0.5, KEY)
    assert as_rows(part) == [
        edge for edge, row in zip(as_rows(edges[:, rows]), rows.tolist(), strict=True) if kept[row]
    ]
    with here(offset=(20,), global_shape=(edges.shape[1],)):
        assert as_rows(drop(edges[:, 20:60])) == as_rows(edges[:, 20:60][:, torch.from_numpy(kept[20:60].copy())])
    assert torch.equal(whole, edges[:, torch.from_numpy(kept.copy())])


def test_all_edges_stay_in_evaluation_and_at_the_rate_0() -> None:
    edges, weights = graph(), torch.ones(graph().shape[1])
    assert dt.DropEdge(0.5).eval()(edges) is edges
    assert dt.DropEdge(0.0)(edges) is edges
    found = dt.DropEdge(0.5, when="never")(edges, weights)
    assert found[0] is edges and found[1] is weights
    assert dt.DropEdge(0.5, when="always").eval()(edges).shape[1] < edges.shape[1]
    none = torch.empty(2, 0, dtype=torch.long)
    for drop in (dt.DropEdge(0.5), dt.DropEdge(0.5, exact=True), dt.DropEdge(0.5, undirected=True)):
        assert drop(none).shape == (2, 0)


def test_weights_of_edges_keep_their_gradients() -> None:
    edges, weights = graph(), torch.randn(graph().shape[1], requires_grad=True)
    with here():
        dt.DropEdge(0.5)(edges, weights)[1].sum().backward()
    assert torch.equal(weights.grad, torch.from_numpy(dropkit.keep((edges.shape[1],), 0.5, KEY).copy()).float())


@pytest.mark.parametrize("form", ["symmetric", "rows", "first-order"])
def test_an_adjacency_is_normalised_as_its_formula_says(form: str) -> None:
    edges = graph()
    weights = torch.rand(edges.shape[1], dtype=torch.float64, requires_grad=True)
    dense = np.eye(NODES)
    for (source, target), weight in zip(as_rows(edges), weights.tolist(), strict=True):
        dense[target, source] += weight
    sums = dense.sum(1)
    wanted = dense / np.sqrt(sums[:, None] * sums[None, :]) if form == "symmetric" else dense / sums[:, None]
    if form == "first-order":
        dense = dense - np.eye(NODES)
        roots = np.array([n**-0.5 if n > 0 else 0 for n in dense.sum(1)])
        assert 0 in roots
        wanted = np.eye(NODES) + dense * roots[:, None] * roots[None, :]
    found = normalized(edges, NODES, weights, form)
    np.testing.assert_allclose(found.to_dense().detach().numpy(), wanted, atol=1e-12)
    (found.to_dense() ** 2).sum().backward()
    assert torch.isfinite(weights.grad).all() and weights.grad.any()
    ones = normalized(edges, NODES, form=form).to_dense()
    assert torch.equal(ones, normalized(edges, NODES, torch.ones(edges.shape[1]), form).to_dense())


def test_nodes_drop_whole_by_the_bits_of_keep() -> None:
    x = torch.randn(NODES, 6, dtype=torch.float64, requires_grad=True)
    kept = torch.from_numpy(dropkit.keep((NODES, 6), 0.5, KEY, share=(1,)).copy()).double()
    for scale, training, evaluation in ((True, 2 * kept, 1.0), (False, kept, 0.5)):
        drop = dt.DropNode(0.5, scale=scale)
        with here():
            y = drop(x)
        assert torch.equal(y, x * training)
        assert torch.equal(drop.eval()(x), x * evaluation)
    with here(rows=[7, 3]):
        assert torch.equal(dt.DropNode(0.5)(x[[7, 3]]), 2 * kept[[7, 3]] * x[[7, 3]])

    def loss(x: torch.Tensor) -> torch.Tensor:
        with here():
            return dt.DropNode(0.3)(x)

    assert torch.autograd.gradcheck(loss, (x,))


def test_messages_drop_by_element() -> None:
    x = torch.randn(30, 5)
    with here():
        y = dt.DropMessage(0.4)(x)
    kept = torch.from_numpy(dropkit.keep((30, 5), 0.4, KEY).copy())
    assert torch.equal(y != 0, kept) and torch.allclose(y, x * kept / 0.6, rtol=1e-4)
    assert dt.DropMessage(0.4).eval()(x) is x


class Convolution(nn.Module):
    """Two graph convolutions that share the edges of a forward."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.edges, self.nodes, self.messages = dt.DropEdge(0.4, **how), dt.DropNode(0.2), dt.DropMessage(0.1)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        source, target = self.edges(edges)
        for layer in (self.first, self.second):
            sent = self.messages(layer(self.nodes(x)).index_select(0, source))
            x = torch.zeros(len(x), sent.shape[1]).index_add(0, target, sent)
        return x


def test_a_bound_model_repeats_and_resumes_its_graphs() -> None:
    torch.manual_seed(0)
    x, edges, model = torch.randn(NODES, 6), graph(), dt.bind(Convolution(exact=True), seed=1)
    assert [site.name for site in dt.sites(model)] == ["edges", "nodes", "messages"]
    first = [model(x, edges) for _ in range(3)]
    state = copy.deepcopy(model.state_dict())
    later = [model(x, edges) for _ in range(2)]
    assert not torch.equal(first[0], first[1])
    model.load_state_dict(state)
    assert all(map(torch.equal, later, [model(x, edges) for _ in range(2)]))
    again = dt.bind(Convolution(exact=True), seed=1)
    again.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert all(map(torch.equal, later, [again(x, edges) for _ in range(2)]))


def test_rates_move_and_are_told() -> None:
    model = Convolution()
    dt.set_rate(model, "edges", 0.8)
    schedule = dt.Schedule(model, {"nodes": Linear(0.5, 0.0, 10)})
    schedule.step(to=5)
    assert (model.edges.p, model.nodes.p) == (0.8, 0.25)
    assert repr(model.edges) == "DropEdge(p=0.8)"
    assert repr(dt.DropEdge(0.8, exact=True, undirected=True)) == "DropEdge(p=0.8, exact=True, undirected=True)"
    assert repr(dt.DropNode(0.5, scale=False)) == "DropNode(p=0.5, scale=False)"


def test_a_recomputed_forward_has_the_edges_of_the_first_one() -> None:
    x, edges = torch.randn(NODES, 6, requires_grad=True), graph()
    model = dt.bind(Convolution(exact=True), seed=4)

    def gradients(checkpointed: bool) -> torch.Tensor:
        x.grad = None
        with dt.at(step=0):
            if checkpointed:
                y = torch.utils.checkpoint.checkpoint(model, x, edges, use_reentrant=False)
            else:
                y = model(x, edges)
        model.edges.p = 0.9  # before backward runs
        y.sum().backward()
        model.edges.p = 0.4
        return x.grad

    assert torch.equal(gradients(False).clone(), gradients(True))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: dt.DropEdge(1.5), "has to be between 0 and 1, but got 1.5"),
        (lambda: dt.DropEdge(by="node"), "unknown by 'node'"),
        (lambda: dt.DropEdge()(torch.ones(2, 3)), "edges must be an integer tensor of shape (2, E), got a tensor of t"),
        (lambda: dt.DropEdge()([[0], [1]]), "edges must be an integer tensor of shape (2, E), got [[0], [1]]"),
        (lambda: dt.DropEdge()(torch.zeros(3, 2).long()), "edges must have shape (2, E), sources and targets, got (3"),
        (lambda: dt.DropEdge().eval()(torch.zeros(3, 2).long()), "edges must have shape (2, E)"),
        (lambda: dt.DropEdge()(torch.zeros(2, 3).long(), torch.ones(2)), "must be a tensor with 3 entries along axis"),
        (lambda: dt.DropEdge(0.0)(torch.zeros(2, 3).long(), [1]), "must be a tensor with 3 entries along axis 0, got "),
        (lambda: dt.DropEdge(by="pair")(-torch.ones(2, 3).long()), "nodes must lie in [0, 2**31) to key edges by "),
        (lambda: dt.DropNode()(torch.tensor(1.0)), "DropNode takes nodes x features, got a tensor without axes"),
        (lambda: normalized(torch.zeros(2, 3).long(), 0), "nodes must be a whole number of at least 1, got 0"),
        (lambda: normalized(torch.full((2, 3), 9), 9), "nodes must lie in [0, 9), got 9 to 9"),
        (lambda: normalized(torch.zeros(2, 3).long(), 1, torch.ones(2)), "weights must have one entry for each of 3"),
        (lambda: normalized(torch.zeros(2, 3).long(), 1, form="x"), "form must be one of symmetric, rows, first-"),
    ],
)
def test_bad_input_is_one_line(made: Any, said: str) -> None:
    with pytest.raises(DropkitError) as error:
        made()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_explain_tells_how_many_edges_stay() -> None:
    from dropkit.probe import explain

    x, edges = torch.randn(NODES, 6), graph()
    n = edges.shape[1]
    for how, told in (({}, f"each of {n} edges"), ({"exact": True}, f"exactly {int(n * 0.6)} of {n} edges")):
        first = explain(Convolution(**how), x, edges).sentences[0]
        assert first == f"edges (DropEdge, p 0.4) decides what runs: {told}."


def test_an_edge_dropper_cannot_be_inserted_and_the_others_can() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    for drop in (dt.DropEdge(0.5), lambda: dt.DropEdge(0.5)):
        with pytest.raises(DropkitError, match="takes an edge list, which no layer puts out"):
            dt.insert(model, "0", drop)
    dt.insert(model, "0", dt.DropNode(0.5))
    assert [site.kind for site in dt.sites(model)] == ["DropNode"]


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
    for how in ({}, {"exact": True}, {"undirected": True}):
        model, backend, counts = dt.bind(Convolution(**how), seed=2), Counting(), []
        twin, compiled = copy.deepcopy(model), torch.compile(model, backend=backend)
        x, edges = torch.randn(NODES, 6), graph()
        for p in (0.0, 0.4, 0.1, 0.9, 0.5):
            model.edges.p = twin.edges.p = p
            torch.testing.assert_close(compiled(x, edges), twin(x, edges))
            counts.append(backend.graphs)
        assert counts == counts[:1] * 5
    torch.compiler.reset()
