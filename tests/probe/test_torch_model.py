"""What the probe says of torch models built for it, against what was worked out by hand."""

import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dropkit
import dropkit.torch as ours
from dropkit.errors import DropkitRuntimeError, DropkitTypeError
from dropkit.probe import Explanation, explain
from dropkit.torch.learned import ConcreteDropout

from .torch_zoo import ZOO, Attention, Branches, ByHand, Checkpointed, DropPath, DroppedLinear, encoder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def explained(name: str) -> Explanation:
    model, inputs = ZOO[name]()
    return explain(model, *inputs)


# name of a model: {site: (zeroes, changes without the model itself, gradients)}
TRUTH: dict[str, dict[str, tuple[str, str, str]]] = {
    # dropout behind the first hidden layer: later outputs, all gradients, since the loss couples them
    "mlp": {"2": ("0", "3 4 5 6", "0 3 6"), "5": ("3", "6", "0 3 6")},
    "mlp of ours": {"2": ("0", "3 4 5 6", "0 3 6"), "5": ("3", "6", "0 3 6")},
    "bound": {"2": ("0", "3 4 5 6", "0 3 6"), "5": ("3", "6", "0 3 6")},
    "in place": {"1": ("0", "2 3", "0 3")},
    "in place, ours": {"1": ("0", "2 3", "0 3")},
    # the question this was built for: frozen trunk, two dense layers, dropout between them
    "transfer": {"head.drop": ("head.dense", "head head.last", "head.dense head.last")},
    # the sum is not dropped, but changed
    "residual": {"drop": ("inner", "head", "stem inner head")},
    # behind both uses of the shared layer; the second use is changed by the first
    "shared": {"drop": ("shared", "shared head", "first shared head")},
    # the right branch and its head know nothing of it, forward or backward
    "branches": {"drop": ("left", "head_left", "stem left head_left")},
    "packed": {":dropout": ("both", "a", "both a")},
    # inside the LSTM; the GRU of one layer drops nothing
    "recurrent": {"lstm": ("", "gru head", "embed lstm gru head"), "gru": ("", "", "")},
    "attention": {":scaled_dot_product_attention": ("", "out", "qkv out")},
    "attention written out": {"drop": ("", "out", "q k v out")},
    # out_proj is called by a function that is handed its weights
    "multi head": {"attend": ("", "head", "norm attend attend.out_proj head")},
    "functional": {":dropout1d": ("conv", "first second", "conv first second"),
                   ":dropout": ("first", "second", "conv first second")},
    "checkpointed": {"part.2": ("part.0", "part part.3 head", "stem part.0 part.3 head")},
    "reentrant": {"part.2": ("part.0", "part part.3 head", "stem part.0 part.3 head")},
    "checkpointed, ours": {"part.2": ("part.0", "part part.3 head", "stem part.0 part.3 head")},
    "reentrant, ours": {"part.2": ("part.0", "part part.3 head", "stem part.0 part.3 head")},
    "by hand": {":rand": ("branch", "head", "stem branch head")},
    # the weights are the model's own, so what is zeroed never leaves the model
    "own weights": {":dropout": ("", "", "")},
    # a layer that drops its own output
    "dropped linear": {"0:dropout": ("0", "0 1", "0 1")},
    # the bias is the model's own, added to what `inner` gave
    "fused": {":dropout": ("inner", "outer head", "inner outer head"),
              ":dropout#1": ("outer", "head", "inner outer head"),
              ":dropout#2": ("outer", "head", "inner outer head")},
    # the rate is a parameter of the site, whose gradient is there because the site is on
    "concrete": {"1": ("0", "2", "0 1 2")},
    "sparse": {"2": ("0", "3", "0 3")},
    "half": {"1": ("0", "2", "0 2")},
    # what is trained stands in the parametrisation; of the layer itself only the bias is left
    "weight norm": {"1": ("0", "2", "0 0.parametrizations.weight 2 2.parametrizations.weight")},
    "sequences": {"lstm": ("", "head", "lstm head")},
    "input": {"1": ("", "2", "2")},
    "prediction": {"2": ("0", "", "0")},
    "alpha": {"2": ("0", "3", "0 3")},
    "alpha, ours": {"2": ("0", "3", "0 3")},
    "images": {"3": ("0", "4 5 6 7", "0 4 5 7")},
    "images, ours": {"3": ("0", "4 5 6 7", "0 4 5 7")},
}  # fmt: skip


@pytest.mark.parametrize("name", TRUTH)
@pytest.mark.filterwarnings("ignore:dropout option adds dropout after all but last")
def test_what_a_site_zeroes_and_changes(name: str) -> None:
    explanation = explained(name)
    assert {site.name for site in explanation.sites} == set(TRUTH[name])
    for site in explanation.sites:
        zeroes, changes, gradients = (expected.split() for expected in TRUTH[name][site.name])
        assert list(site.zeroes) == zeroes
        assert [layer for layer in site.changes if layer] == changes
        own = [""] if name in ("own weights", "fused") else []  # the model has parameters of its own
        assert list(site.gradients) == own + gradients
        assert ("" in site.changes) is bool(site.train)
        assert [layer.name for layer in explanation.layers if site.name in layer.zeroed_by] == zeroes
        assert [layer.name for layer in explanation.layers if site.name in layer.changed_by] == list(site.changes)


def test_the_question_this_began_from() -> None:
    explanation = explained("transfer")
    assert [layer.name for layer in explanation.layers if layer.zeroed_by] == ["head.dense"]
    assert [layer.name for layer in explanation.layers if layer.changed_by and layer.parameters and layer.inputs] == [
        "head.last"
    ]
    gradients = {layer.name: layer.gradient for layer in explanation.layers if layer.parameters and layer.inputs}
    assert gradients == {"trunk.1": "frozen", "head.dense": "changed", "head.last": "changed"}
    assert not any(layer.touched for layer in explanation.layers if layer.name.startswith("trunk"))
    assert explanation.layer("trunk").frozen
    assert not explanation.layer("head").frozen


def test_sites_are_described() -> None:
    first, second = explained("mlp").sites
    assert (first.kind, first.layer, first.p, first.mask_shape) == ("Dropout", "2", 0.5, (16, 64))
    assert (first.train, first.eval, first.now, first.target, first.input_rank) == (True, False, True, "output", 2)
    assert (first.follows, second.follows) == ("relu", "selu")
    assert not first.on_prediction
    assert (first.twins, first.gradient_check, first.idle, first.note, first.source) == ((), "ok", "", "", "")


def test_layers_are_described() -> None:
    explanation = explained("transfer")
    names = [
        "",
        "trunk",
        *(f"trunk.{n}" for n in range(5)),
        "head",
        "head.dense",
        "head.relu",
        "head.drop",
        "head.last",
    ]
    assert [layer.name for layer in explanation.layers] == names
    assert [layer.parent for layer in explanation.layers[:3]] == [None, "", "trunk"]
    assert explanation.inputs == ((8, 3, 6, 6),)
    assert (explanation.model, explanation.framework) == ("Sequential", "torch")
    conv, dense = explanation.layer("trunk.0"), explanation.layer("head.dense")
    assert (conv.output_shape, conv.parameters, conv.trainable) == ((8, 8, 4, 4), 3 * 8 * 9 + 8, 0)
    assert (dense.output_shape, dense.parameters, dense.trainable) == ((8, 64), 8 * 64 + 64, 8 * 64 + 64)
    assert explanation.layer("").parameters == conv.parameters + 16 + dense.parameters + 64 * 2 + 2
    assert explanation.layer("trunk.4").inputs == ("trunk.3",)
    assert (dense.inputs, dense.calls, dense.training) == (("trunk.4",), 1, True)
    assert explanation.layer("trunk").inputs == ()
    assert explanation.layer("head.relu").activation == "relu"


def test_a_handful_of_passes() -> None:
    explanation = explained("mlp")
    assert (explanation.forwards, explanation.backwards) == (9, 2)


def test_inputs_of_layers_are_those_that_feed_them() -> None:
    residual, shared = explained("residual"), explained("shared")
    assert residual.layer("head").inputs == ("stem", "drop")
    assert (shared.layer("shared").inputs, shared.layer("shared").calls) == (("first", "drop"), 2)
    assert explained("branches").layer("right").inputs == ("stem",)


def test_a_shortcut_by_identity_is_no_detour_for_others() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.skip, self.inner, self.head = (
                nn.Linear(4, 4),
                nn.Identity(),
                nn.Linear(4, 4),
                nn.Linear(4, 2),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            y: torch.Tensor = self.head(self.skip(x) + self.inner(x))
            return y

    explanation = explain(Net(), torch.randn(3, 4))
    assert explanation.layer("inner").inputs == ("stem",)
    assert explanation.layer("head").inputs == ("skip", "inner")


def test_what_did_not_run_is_listed_without_a_shape() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare, self.used = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3)), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.used(x)
            return y

    explanation = explain(Net(), torch.randn(3, 4))
    assert [layer.name for layer in explanation.layers] == ["", "used", "spare", "spare.0", "spare.1"]
    spare, site = explanation.layer("spare.0"), explanation.site("spare.1")
    assert (spare.calls, spare.output_shape, spare.gradient) == (0, None, "unused")
    assert (site.train, site.mask_shape, site.note) == (False, None, "not reached with these inputs")


def test_gradients_of_layers() -> None:
    explanation = explained("branches")
    assert {layer.name: layer.gradient for layer in explanation.layers if layer.parameters} == {
        "": "none", "stem": "changed", "left": "changed", "head_left": "changed", "right": "unchanged",
        "head_right": "unchanged",
    }  # fmt: skip


def test_a_loss_of_ones_own() -> None:
    model = Branches()
    explanation = explain(model, torch.randn(16, 8), loss=lambda out: out["right"].square().sum())
    assert explanation.site("drop").gradients == ()
    assert explanation.layer("left").gradient == "unused"
    assert explanation.layer("stem").gradient == "unchanged"


def test_the_loss_that_a_model_gives_is_taken() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": F.dropout(self.a(x), 0.5).square().mean(), "other": self.b(x)}

    explanation = explain(Net(), torch.randn(16, 4))
    assert (explanation.layer("a").gradient, explanation.layer("b").gradient) == ("changed", "unused")


def test_what_is_dropped() -> None:
    targets = {name: [site.target for site in explained(name).sites] for name in ("mlp", "input", "attention")}
    assert targets == {"mlp": ["output", "output"], "input": ["input"], "attention": ["attention weights"]}
    assert explained("attention written out").sites[0].target == "attention weights"
    assert explained("multi head").sites[0].target == "attention weights"


@pytest.mark.filterwarnings("ignore:dropout option adds dropout after all but last")
def test_recurrent_networks() -> None:
    explanation = explained("recurrent")
    lstm, gru = explanation.sites
    assert (lstm.target, lstm.mask_shape, lstm.idle) == ("hidden states", (8, 5, 8), "")
    assert (gru.train, gru.idle) == (False, "one layer: there is nothing between layers to drop")


def test_dropout_on_the_prediction() -> None:
    def found(*layers: nn.Module) -> bool:
        return explain(nn.Sequential(nn.Linear(8, 8), *layers), torch.randn(16, 8)).sites[0].on_prediction

    assert found(nn.Dropout(0.5))
    assert found(nn.Dropout(0.5), nn.Softmax(-1))
    assert found(nn.Softmax(-1), nn.Dropout(0.5))
    assert not found(nn.Dropout(0.5), nn.Linear(8, 2))
    assert not found(nn.Dropout(0.5), nn.LayerNorm(8))
    assert not explained("residual").sites[0].on_prediction
    # what is added was not dropped, so the prediction is not either
    assert not any(site.on_prediction for site in explain(*_flat(encoder(True))).sites)


def _flat(made: tuple[nn.Module, tuple[Any, ...]]) -> tuple[Any, ...]:
    return made[0], *made[1]


@pytest.mark.parametrize(
    ("activation", "name"),
    [(nn.ReLU(), "relu"), (nn.SELU(), "selu"), (nn.LeakyReLU(0.2), "leaky_relu"), (nn.GELU(), "gelu"),
     (nn.Tanh(), "tanh"), (nn.Sigmoid(), "sigmoid"), (nn.SiLU(), "silu"), (nn.ELU(), "elu"), (nn.Identity(), None),
     (nn.Sequential(nn.ReLU(), nn.Linear(8, 8)), None), (nn.Sequential(nn.ReLU(), nn.Flatten()), "relu")],
)  # fmt: skip
def test_the_activation_before(activation: nn.Module, name: str | None) -> None:
    model = nn.Sequential(nn.Linear(8, 8), activation, nn.Dropout(0.5), nn.Linear(8, 2))
    assert explain(model, torch.randn(4, 8)).sites[0].follows == name


def test_an_activation_by_function_belongs_to_the_layer_that_calls_it() -> None:
    class Dense(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(super().forward(x))

    explanation = explain(nn.Sequential(Dense(8, 8), nn.Dropout(0.5), nn.Linear(8, 2)), torch.randn(4, 8))
    assert [layer.activation for layer in explanation.layers] == [None, "tanh", None, None]
    assert explanation.sites[0].follows == "tanh"


# Modes


def test_modes_as_handed_in() -> None:
    model, inputs = ZOO["mlp"]()
    assert [site.now for site in explain(model.eval(), *inputs).sites] == [False, False]
    model.get_submodule("2").train()
    explanation = explain(model, *inputs)
    assert [site.now for site in explanation.sites] == [True, False]
    assert [layer.training for layer in explanation.layers if layer.kind == "Dropout"] == [True, False]
    attention = Attention()
    attention.qkv.eval()
    assert explain(attention, torch.randn(4, 2, 6, 8)).sites[0].now
    attention.train().training = False
    assert not explain(attention, torch.randn(4, 2, 6, 8)).sites[0].now


def test_a_functional_dropout_without_a_mode_is_on_in_evaluation() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.b(F.dropout(self.a(x)))
            return y

    site = explain(Net().eval(), torch.randn(4, 8)).sites[0]
    assert (site.name, site.train, site.eval, site.now, site.deliberate) == (":dropout", True, True, True, False)
    assert site.source.startswith(__file__)


def test_dropout_that_is_told_to_be_on_always() -> None:
    model = nn.Sequential(nn.Linear(8, 8), ours.Dropout(0.5, when="always"), nn.Linear(8, 2)).eval()
    site = explain(model, torch.randn(4, 8)).sites[0]
    assert (site.eval, site.now, site.deliberate) == (True, True, True)


def test_dropout_that_is_told_to_be_off() -> None:
    model = nn.Sequential(nn.Linear(8, 8), ours.Dropout(0.5, when="never"), nn.Linear(8, 2))
    site = explain(model, torch.randn(4, 8)).sites[0]
    assert (site.train, site.changes, site.idle) == (False, (), "off by name: when='never'")


def test_the_fused_encoder_layer_skips_dropout() -> None:
    model, inputs = encoder()
    assert not any(site.fast_path for site in explain(model.eval(), *inputs).sites)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    skipped = [site.name for site in explain(model, *inputs).sites if site.fast_path]
    assert skipped == [f"layers.{n}.{name}" for n in range(2) for name in ("dropout1", "dropout", "dropout2")]
    always = nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=True)
    always.dropout1 = ours.Dropout(0.2, when="always")
    assert [site.name for site in explain(always, *inputs).sites if site.fast_path] == ["dropout1"]
    # in train mode, and in a layer with another activation, there is no such path
    assert not any(site.fast_path for site in explain(model.train(), *inputs).sites)
    other = nn.TransformerEncoderLayer(8, 2, 16, 0.2, activation=F.silu, batch_first=True).eval()
    other.dropout1.train()
    sites = explain(other, *inputs).sites
    assert [(site.name, site.now, site.fast_path) for site in sites if site.now] == [("dropout1", True, False)]


# Masks


def test_twins() -> None:
    class Net(nn.Module):
        def __init__(self, seeds: tuple[int, ...]) -> None:
            super().__init__()
            branches = [nn.Sequential(nn.Linear(8, 16), ours.Dropout(0.3)) for _ in seeds]
            self.branches = nn.ModuleList(ours.bind(branch, seed) for branch, seed in zip(branches, seeds, strict=True))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([branch(x) for branch in self.branches], -1)

    explanation = explain(Net((1, 1, 2)), torch.randn(16, 8))
    assert [site.twins for site in explanation.sites] == [("branches.1.1",), ("branches.0.1",), ()]
    # of 32 elements nothing is concluded
    assert [site.twins for site in explain(Net((1, 1)), torch.randn(2, 8)).sites] == [(), ()]


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputation_that_draws_another_mask(reentrant: bool) -> None:
    check = explain(Checkpointed(nn.Dropout(0.5), reentrant, False), torch.randn(16, 8)).sites[0].gradient_check
    assert check.startswith("FAILED: recomputed in the backward pass with another mask, unlike in ")
    for drop, preserve in ((nn.Dropout(0.5), True), (ours.Dropout(0.5), False)):
        assert explain(Checkpointed(drop, reentrant, preserve), torch.randn(16, 8)).sites[0].gradient_check == "ok"


@pytest.mark.parametrize("preserve", [True, False])
def test_a_recomputation_that_stops_in_the_midst_of_a_dropout(preserve: bool) -> None:
    """A checkpoint runs again only until it has what the backward needs, and of these dropouts that is the mask."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.head = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5)), nn.Linear(64, 8)

        def attend(self, x: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if self.training else 0.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.head(checkpoint(self.part, x, use_reentrant=False, preserve_rng_state=preserve))
            y: torch.Tensor = checkpoint(self.attend, x, use_reentrant=False, preserve_rng_state=preserve)
            return y

    explanation = explain(Net(), torch.randn(2, 16, 8))
    assert [site.gradient_check == "ok" for site in explanation.sites] == [preserve, preserve]
    assert explanation.site("part.1").gradients == ("part.0", "head")
    assert explanation.site(":scaled_dot_product_attention").gradients == ("part.0", "head")


def test_a_backward_without_the_mask() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * (torch.rand_like(x) > 0.5) * 2

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            return grads[0] * 2

    class WrongDropout(nn.Module):
        p = 0.5

        def __init__(self) -> None:
            super().__init__()
            self.p = 0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = Wrong.apply(x) if self.training else x
            return y

    model = nn.Sequential(nn.Linear(8, 64), WrongDropout(), nn.Linear(64, 2))
    site = explain(model, torch.randn(16, 8)).sites[0]
    assert site.gradient_check.startswith("FAILED: forward and backward draw other masks")
    assert site.zeroes == ("0",)


def test_masks_that_show_only_what_became_of_them_are_not_checked() -> None:
    assert explained("multi head").sites[0].gradient_check == (
        "not checked: its mask stays inside a kernel that shows only the result"
    )
    assert explained("attention").sites[0].gradient_check == "ok"


def test_a_mask_that_no_operator_shows_is_followed_all_the_same() -> None:
    """A kernel that torch does not see, forward or backward: NumPy here, Triton elsewhere."""

    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.mask = (torch.rand(x.shape) > 0.5).numpy()
            return torch.from_numpy(x.detach().numpy() * ctx.mask * 2)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(grads[0].numpy() * ctx.mask * 2)

    class HiddenDropout(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = 0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = Hidden.apply(x) if self.training and self.p else x
            return y

    model = nn.Sequential(nn.Linear(8, 64), HiddenDropout(), nn.Linear(64, 2))
    for loss in (None, lambda out: out.sum()):
        site = explain(model, torch.randn(16, 8), loss=loss).sites[0]
        assert (site.zeroes, site.changes, site.gradients) == (("0",), ("", "2"), ("0", "2"))


# Variances


def test_variance_before_a_batch_norm() -> None:
    # of x with mean 0 and variance 1, dropout makes 1 / (1 - p): 2 for p = 0.5
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(64), nn.Linear(64, 2))
    explanation = explain(model, torch.randn(4096, 64))
    assert explanation.layer("1").input_variance_ratio == pytest.approx(2, rel=0.02)
    assert explanation.layer("0").variance_ratio == pytest.approx(2, rel=0.02)
    assert explanation.layer("1").variance_ratio == pytest.approx(1, rel=0.02)
    plain = explain(nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(0.5)), torch.randn(64, 64))
    assert plain.layer("0").input_variance_ratio == 1
    assert plain.layer("0").variance_ratio is None


def test_layers_that_are_random_without_dropout() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    explanation = explain(nn.Sequential(nn.Linear(4, 4), Noise(), nn.Dropout(0.5), nn.Linear(4, 2)), torch.randn(8, 4))
    assert [layer.random for layer in explanation.layers] == [True, False, True, True, True]
    assert explanation.site("2").changes == ("", "3")
    assert explanation.layer("0").gradient == "changed"
    assert not any(layer.random for layer in explained("mlp").layers)


# Special cases


def test_stochastic_depth_by_hand_and_by_layer() -> None:
    by_hand = explain(ByHand(), torch.randn(16, 8)).sites[0]
    assert (by_hand.kind, by_hand.p, by_hand.mask_shape, by_hand.follows) == ("random.rand", 0.5, (16, 1), "relu")
    model = nn.Sequential(nn.Linear(8, 8), DropPath(0.3), nn.Linear(8, 2))
    by_layer = explain(model, torch.randn(16, 8)).sites[0]
    assert (by_layer.kind, by_layer.p, by_layer.mask_shape, by_layer.zeroes) == ("DropPath", 0.3, (16, 1), ("0",))


def test_a_learned_rate() -> None:
    model = nn.Sequential(nn.Linear(8, 8), ConcreteDropout(0.25, share=(0,)), nn.Linear(8, 2))
    site = explain(model, torch.randn(4, 8)).sites[0]
    assert (site.kind, site.p, site.mask_shape, site.train, site.eval) == ("ConcreteDropout", 0.25, (1, 8), True, False)
    assert site.gradient_check == "not checked: its noise is not a mask"


def test_a_model_that_is_one_layer_and_drops_its_output() -> None:
    site = explain(DroppedLinear(8, 16), torch.randn(4, 8)).sites[0]
    assert (site.name, site.layer, site.zeroes, site.on_prediction, site.note) == (":dropout", "", ("",), True, "")


def test_keyword_arguments_and_dataclasses() -> None:
    @dataclass
    class Out:
        y: torch.Tensor

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, *, x: torch.Tensor) -> Out:
            return Out(F.dropout(self.a(x), 0.5, self.training))

    explanation = explain(Net(), x=torch.randn(8, 4))
    assert explanation.inputs == ((8, 4),)
    assert (explanation.layer("").output_shape, explanation.layer("a").gradient) == ((8, 4), "changed")
    assert explanation.sites[0].on_prediction


def test_a_loop_whose_rounds_are_recomputed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

        def step(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(layer(x), 0.5, self.training)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = checkpoint(self.step, layer, x, use_reentrant=False)
            return x

    explanation = explain(Net(), torch.randn(16, 8))
    assert [site.name for site in explanation.sites] == [":dropout", ":dropout#1", ":dropout#2"]
    assert [site.zeroes for site in explanation.sites] == [("layers.0",), ("layers.1",), ("layers.2",)]
    assert [site.gradient_check for site in explanation.sites] == ["ok", "ok", "ok"]
    assert [site.on_prediction for site in explanation.sites] == [False, False, True]


def test_inside_inference_mode() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    with torch.inference_mode():
        explanation = explain(model, torch.randn(4, 8))
    assert explanation.site("1").gradients == ("0", "2")


def test_a_compiled_model_is_explained_as_written() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    explanation = explain(torch.compile(model, backend="eager"), torch.randn(4, 8))
    assert [site.name for site in explanation.sites] == ["_orig_mod.1"]
    assert explanation.sites[0].changes == ("", "_orig_mod", "_orig_mod.2")


def test_a_rate_of_zero_reaches_nothing() -> None:
    site = explain(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.0), nn.Linear(8, 2)), torch.randn(4, 8)).sites[0]
    assert (site.train, site.zeroes, site.changes, site.gradients) == (False, (), (), ())
    assert site.gradient_check == "not checked: p is 0"


def test_dropped_weights() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(self.a(x), F.dropout(self.b.weight, 0.5, self.training), self.b.bias)

    site = explain(Net(), torch.randn(4, 8)).sites[0]
    assert (site.zeroes, site.note, site.gradients) == ((), "it drops weights", ("a", "b"))


def test_a_model_without_dropout_and_one_without_gradient() -> None:
    assert explain(nn.Linear(4, 2), torch.randn(3, 4)).sites == ()
    frozen = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)).requires_grad_(False)
    explanation = explain(frozen, torch.randn(3, 4))
    assert (explanation.backwards, explanation.site("1").changes) == (0, ("",))
    assert explanation.notes == ("No gradient was computed: no floating output of the model requires grad.",)


def test_layers_skipped_at_random_are_noted() -> None:
    class LayerDrop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.layerdrop = nn.Linear(4, 4), nn.Linear(4, 4), 0.9

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            y: torch.Tensor = self.b(x) if torch.rand([]).item() >= self.layerdrop or not self.training else x
            return y

    explanation = explain(LayerDrop(), torch.randn(3, 4))
    assert "a number drawn at random decides in Python what runs" in " ".join(explanation.notes)


# Errors


def test_errors_name_the_remedy() -> None:
    with pytest.raises(DropkitTypeError, match=r"explain\(model, x\), where Linear got nothing"):
        explain(nn.Linear(2, 2))
    with pytest.raises(DropkitTypeError, match=r"explain needs a torch\.nn\.Module or a keras model, got int"):
        explain(3, torch.ones(2))
    with pytest.raises(DropkitTypeError, match="loss must be a function of the model's output, got 'mse'"):
        explain(nn.Linear(2, 2), torch.ones(2, 2), loss="mse")
    with pytest.raises(DropkitRuntimeError, match="cannot be run in training mode with these inputs"):
        explain(nn.Linear(2, 2), torch.ones(2, 3))


def test_it_is_public() -> None:
    assert dropkit.explain is explain
    assert "explain" in dir(dropkit)
    assert "dropkit.probe.torch.model" in sys.modules


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_told(value: float) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    notes = explain(model, torch.full((3, 4), value)).notes
    assert notes == ("The model's output holds NaN or infinity; what dropout changes in such numbers cannot be seen.",)
    assert explain(model, torch.ones(3, 4)).notes == ()
