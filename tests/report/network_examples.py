"""Explanations written out: a plain network, a frozen trunk with a new head, a residual network, a deep transformer."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from dropkit.probe.explanation import Explanation, Layer, Site
from dropkit.probe.findings import Finding


def finished(model: str, inputs: tuple[int, ...], layers: Iterable[Layer], sites: Sequence[Site]) -> Explanation:
    """An explanation whose layers say what its sites say."""
    listed = list(layers)
    total = {one.name: [one.parameters, one.trainable] for one in listed}
    for one in reversed(listed):
        if one.parent is not None:
            total[one.parent] = [above + own for above, own in zip(total[one.parent], total[one.name], strict=True)]
    told = []
    for one in listed:
        gradient_by = tuple(site.name for site in sites if one.name in site.gradients)
        gradient: Any = "none"
        if one.parameters:
            gradient = "changed" if gradient_by else "unchanged" if one.trainable else "frozen"
        told.append(
            replace(
                one,
                parameters=total[one.name][0],
                trainable=total[one.name][1],
                zeroed_by=tuple(site.name for site in sites if one.name in site.zeroes),
                changed_by=tuple(site.name for site in sites if one.name in site.changes),
                gradient=gradient,
                gradient_by=gradient_by,
            )
        )
    return Explanation(
        model=model, framework="torch", inputs=(inputs,), layers=tuple(told), sites=tuple(sites),
        forwards=6, backwards=3,
    )  # fmt: skip


def layer(name: str, kind: str, shape: tuple[int, ...], parameters: int = 0, **more: Any) -> Layer:
    """A layer that ran, in train mode; what it takes is given, the block is that of its path, all of it is trained."""
    parent = None if name == "" else name.rpartition(".")[0]
    filled = {"parent": parent, "trainable": parameters, "calls": 1} | more
    return Layer(name=name, kind=kind, output_shape=shape, parameters=parameters, **filled)


def site(name: str, kind: str, of: str, p: float, mask: tuple[int, ...], **more: Any) -> Site:
    """A site that drops in training and not in evaluation."""
    return Site(name=name, kind=kind, layer=of, p=p, mask_shape=mask, train=True, eval=False, now=True, **more)


def mlp() -> Explanation:
    """Two hidden layers; the first dropout a module, the second a call in the model's forward."""
    layers = [
        layer("", "MLP", (8, 10)),
        layer("hidden1", "Linear", (8, 512), 401_920),
        layer("relu1", "ReLU", (8, 512), inputs=("hidden1",), activation="relu"),
        layer("dropout1", "Dropout", (8, 512), inputs=("relu1",)),
        layer("hidden2", "Linear", (8, 256), 131_328, inputs=("dropout1",), variance_ratio=1.2312),
        layer("relu2", "ReLU", (8, 256), inputs=("hidden2",), activation="relu", variance_ratio=1.3),
        layer("head", "Linear", (8, 10), 2_570, inputs=("relu2",), variance_ratio=1.61),
    ]
    every = ("hidden1", "hidden2", "head")
    first = site(
        "dropout1", "Dropout", "dropout1", 0.2, (8, 512),
        zeroes=("hidden1",), changes=("hidden2", "relu2", "head"), gradients=every, follows="relu",
    )  # fmt: skip
    second = site(
        ":dropout", "dropout", "", 0.5, (8, 256),
        zeroes=("hidden2",), changes=("head",), gradients=every, follows="relu", source="mlp.py:21",
    )  # fmt: skip
    return finished("MLP", (8, 784), layers, [first, second])


def transfer() -> Explanation:
    """The question of the transfer tutorial: a frozen trunk of 229 layers, two dense layers and a dropout of 0.2."""
    names = [f"{kind}_{number}" for number in range(76) for kind in ("conv2d", "batch_normalization", "activation")]
    kinds = {
        "conv2d": ("Conv2D", 55_296),
        "batch_normalization": ("BatchNormalization", 576),
        "activation": ("Activation", 0),
    }
    layers = [layer("", "transfer", (8, 1)), layer("inception_v3", "Functional", (8, 7, 7, 768), training=False)]
    before: tuple[str, ...] = ()
    for name in [*names, "mixed7"]:
        kind, parameters = kinds.get(name.rpartition("_")[0], ("Activation" if "_" in name else "Concatenate", 0))
        full = f"inception_v3/{name}"
        # Every ninth layer also feeds the ninth after it, as the branches of the real one do.
        far = (f"inception_v3/{names[names.index(name) - 9]}",) if name in names[9::9] else ()
        layers.append(
            layer(
                full, kind, (8, 7, 7, 192), parameters,
                parent="inception_v3", trainable=0, training=False, inputs=before + far,
            )
        )  # fmt: skip
        before = (full,)
    layers += [
        layer("flatten", "Flatten", (8, 37_632), parent="", inputs=before),
        layer("dense_512", "Dense", (8, 512), 19_268_096, inputs=("flatten",), activation="relu"),
        layer("dense_1024", "Dense", (8, 1024), 525_312, inputs=("dense_512",), activation="relu"),
        layer("dropout", "Dropout", (8, 1024), inputs=("dense_1024",)),
        layer("head", "Dense", (8, 1), 1_025, inputs=("dropout",), variance_ratio=1.18, activation="sigmoid"),
    ]
    drop = site(
        "dropout", "Dropout", "dropout", 0.2, (8, 1024), zeroes=("dense_1024",), changes=("head",),
        gradients=("dense_512", "dense_1024", "head"), follows="relu", gradient_check="ok",
    )  # fmt: skip
    return replace(finished("transfer", (8, 150, 150, 3), layers, [drop]), framework="keras")


def residual() -> Explanation:
    """Three residual blocks with whole-channel dropout in the branch, and two branches that a concatenation joins."""
    shape = (8, 64, 16, 16)
    layers = [layer("", "ResidualNet", (8, 10)), layer("stem", "Conv2d", shape, 1_792)]
    sites: list[Site] = []
    skip = "stem"
    trained = ["stem"]
    for number in range(3):
        path = f"blocks.{number}" if number else "blocks.0"
        layers += [layer("blocks", "Sequential", shape)] if number == 0 else []
        layers += [
            layer(path, "Residual", shape),
            layer(f"{path}.conv1", "Conv2d", shape, 36_928, inputs=(skip,)),
            layer(f"{path}.norm", "BatchNorm2d", shape, 128, inputs=(f"{path}.conv1",), input_variance_ratio=1.09),
            layer(f"{path}.drop", "Dropout2d", shape, inputs=(f"{path}.norm",)),
            layer(f"{path}.conv2", "Conv2d", shape, 36_928, inputs=(f"{path}.drop",)),
            layer(f"{path}.add", "Add", shape, inputs=(skip, f"{path}.conv2")),
        ]
        trained += [f"{path}.conv1", f"{path}.norm", f"{path}.conv2"]
        skip = f"{path}.add"
    layers += [
        layer("left", "Conv2d", (8, 32, 16, 16), 2_080, inputs=(skip,)),
        layer("right", "Conv2d", (8, 32, 16, 16), 18_464, inputs=(skip,)),
        layer("concat", "Concat", shape, inputs=("left", "right")),
        layer("pool", "AdaptiveAvgPool2d", (8, 64, 1, 1), inputs=("concat",)),
        layer("head", "Linear", (8, 10), 650, inputs=("pool",)),
    ]
    order = [one.name for one in layers]
    for number in range(3):
        path = f"blocks.{number}"
        later = [name for name in order[order.index(f"{path}.drop") + 1 :] if name != "blocks"]
        sites.append(
            site(
                f"{path}.drop", "Dropout2d", f"{path}.drop", 0.1 * (number + 1), (8, 64, 1, 1),
                zeroes=(f"{path}.norm",), changes=("", "blocks", path, *later), input_rank=4,
                gradients=tuple(sorted({*trained, "left", "right", "head"}, key=order.index)),
            )
        )  # fmt: skip
    return finished("ResidualNet", (8, 3, 16, 16), layers, sites)


def transformer(blocks: int = 24) -> Explanation:
    """A deep transformer: three dropouts a block, that of the attention weights a call."""
    wide, deep = (4, 16, 256), (4, 16, 1024)
    layers = [
        layer("", "Transformer", (4, 16, 1000)),
        layer("embed", "Embedding", wide, 256_000),
        layer("drop", "Dropout", wide, inputs=("embed",)),
        layer("layers", "ModuleList", wide),
    ]
    # Along the residual connections a block takes the outputs of all before it.
    stream: tuple[str, ...] = ("drop",)
    for number in range(blocks):
        path = f"layers.{number}"
        parts = (
            (path, "Block", wide, 0, ()),
            (f"{path}.norm1", "LayerNorm", wide, 512, stream),
            (f"{path}.attention", "Attention", wide, 0, ()),
            (f"{path}.attention.qkv", "Linear", (4, 16, 768), 197_376, (f"{path}.norm1",)),
            (f"{path}.attention.out", "Linear", wide, 65_792, (f"{path}.attention.qkv",)),
            (f"{path}.drop1", "Dropout", wide, 0, (f"{path}.attention.out",)),
            (f"{path}.norm2", "LayerNorm", wide, 512, (*stream, f"{path}.drop1")),
            (f"{path}.mlp", "Sequential", wide, 0, ()),
            (f"{path}.mlp.0", "Linear", deep, 263_168, (f"{path}.norm2",)),
            (f"{path}.mlp.1", "GELU", deep, 0, (f"{path}.mlp.0",)),
            (f"{path}.mlp.2", "Linear", wide, 262_400, (f"{path}.mlp.1",)),
            (f"{path}.drop2", "Dropout", wide, 0, (f"{path}.mlp.2",)),
        )
        layers += [layer(name, kind, shape, size, inputs=inputs) for name, kind, shape, size, inputs in parts]
        stream += (f"{path}.drop1", f"{path}.drop2")
    layers += [
        layer("norm", "LayerNorm", wide, 512, inputs=stream),
        layer("head", "Linear", (4, 16, 1000), 257_000, inputs=("norm",)),
    ]
    return finished("Transformer", (4, 16), layers, _transformer_sites(layers, blocks, wide))


def _transformer_sites(layers: Sequence[Layer], blocks: int, wide: tuple[int, ...]) -> list[Site]:
    order = [one.name for one in layers]
    trained = tuple(one.name for one in layers if one.parameters)
    numbers = {name: number for number, name in enumerate(order)}

    def after(name: str) -> tuple[str, ...]:
        return tuple(order[numbers[name] + 1 :])

    sites = [site("drop", "Dropout", "drop", 0.1, wide, zeroes=("embed",), changes=after("drop"), gradients=trained)]
    for number in range(blocks):
        path = f"layers.{number}"
        weights = site(
            f"{path}.attention:dropout", "dropout", f"{path}.attention", 0.1, (4, 8, 16, 16),
            target="attention weights", changes=after(f"{path}.attention.qkv"), gradients=trained,
            source="transformer.py:48",
        )  # fmt: skip
        sites.append(weights)
        for name, zeroed in (("drop1", "attention.out"), ("drop2", "mlp.2")):
            full = f"{path}.{name}"
            sites.append(
                site(
                    full, "Dropout", full, 0.1, wide,
                    zeroes=(f"{path}.{zeroed}",), changes=after(full), gradients=trained,
                )
            )  # fmt: skip
    return sites


HOSTILE = "</script><script>alert(1)</script>"


def hostile() -> Explanation:
    """Names, kinds and notes that would be markup."""
    layers = [
        layer("", HOSTILE, (2, 4)),
        layer(HOSTILE, '"><img src=x onerror=alert(1)>', (2, 4), 20, parent=""),
        layer("drop'\"&<b>", "Dropout", (2, 4), parent="", inputs=(HOSTILE,)),
    ]
    drop = site(
        "drop'\"&<b>", "Dropout", "drop'\"&<b>", 0.5, (2, 4), zeroes=(HOSTILE,), gradients=(HOSTILE,), note=HOSTILE,
    )  # fmt: skip
    return replace(finished(HOSTILE, (2, 4), layers, [drop]), notes=(HOSTILE,))


FINDING = Finding(
    "DK115", "rate of 0.6 or more", "dropout1", "p = 0.8: 20 % are kept, and scaled by 5", "Pass 0.2.",
    "docs/doctor.md#dk115",
)  # fmt: skip
