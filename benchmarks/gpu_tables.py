"""The lines of `make gpu` as tables for docs/gpu.md."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def page(rows: Sequence[Row]) -> str:
    """All tables that there are lines for."""
    of = {name: [row for row in rows if row["part"] == name] for name in {row["part"] for row in rows}}
    (machine,) = of["machine"]
    about = f"{machine['gpu']}, {machine['memory_gib']:g} GiB; torch {machine['torch']}, Triton {machine['triton']}, "
    parts = [about + f"Python {machine['python']}."]
    parts.append(
        table(
            "| part | seconds | outcome |", [[r["name"], number(r["seconds"]), r["outcome"]] for r in of.get("run", [])]
        )
    )
    checks = [[r["part"], r["check"], r["result"]] for r in rows if "check" in r]
    checks += [
        ["tests", "pytest", f"{r['passed']} passed, {r['failed']} failed, {r['skipped']} skipped"]
        for r in of.get("tests", [])
    ]
    parts.append(table("| part | check | result |", checks))
    parts += [
        host(of.get("host", [])),
        training(of.get("training", [])),
        kernels(of.get("kernels", [])),
        attention(of.get("attention", [])),
        vgg(of.get("vgg", [])),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def host(rows: Sequence[Row]) -> str:
    """What a call costs the host, however small the tensor."""
    head = "| one call, on the host | mode | forward, us | forward and backward, us |"
    return table(head, [[r["dropout"], r["mode"], number(r["forward_us"]), number(r["both_us"])] for r in rows])


def training(rows: Sequence[Row]) -> str:
    """A step of a transformer layer; `x` is against torch's dropout in the same mode."""
    torchs = {row["mode"]: row["ms"] for row in rows if row["dropout"] == "torch.nn.Dropout"}
    head = "| one training step | mode | ms | x torch's | first step, s | peak, MiB |"
    lines = [
        [
            r["dropout"],
            r["mode"],
            number(r["ms"]),
            number(r["ms"] / torchs[r["mode"]]),
            number(r["first_s"]),
            number(r["peak_mib"]),
        ]
        for r in rows
        if r["mode"] in torchs
    ]
    return table(head, lines)


def kernels(rows: Sequence[Row]) -> str:
    """Each operation against a copy and what users write in its place."""
    head = "| dtype | MiB | operation | ms | GB/s | of copy | eager, ms | compiled, ms |"
    lines = []
    for r in (row for row in rows if "operation" in row):
        share = f"{r['of copy']:.0%}" if "of copy" in r else None
        others = [number(r.get(f"{kind} ms")) for kind in ("eager", "compile")]
        lines.append(
            [r["dtype"], f"{r['MiB']:g}", r["operation"], number(r["ms"]), number(r.get("GB/s")), share, *others]
        )
    return table(head, lines)


def attention(rows: Sequence[Row]) -> str:
    """Forward and backward passes; `x` is against torch's attention without dropout, and with it."""
    head = "| attention, forward and backward | dtype | T | features | ms | x flash | x SDPA | peak, MiB |"
    timed = [row for row in rows if "attention" in row]
    places = ("dtype", "length", "features")
    found = {(row["attention"], *(row[name] for name in places)): row["ms"] for row in timed}
    lines = []
    for r in timed:
        bases = [found.get((base, *(r[name] for name in places))) for base in ("flash", "SDPA")]
        ratios = [number(r["ms"] / base) if base and r["ms"] else None for base in bases]
        where = [r["dtype"], str(r["length"]), str(r["features"])]
        lines.append([r["attention"], *where, number(r["ms"]), *ratios, number(r["peak_mib"])])
    return table(head, lines)


def vgg(rows: Sequence[Row]) -> str:
    """One epoch for each strategy."""
    skipped = [row["result"] for row in rows if "result" in row]
    if skipped:
        return f"`vgg-adaptive --size full`: {skipped[0]}."
    head = "| `vgg-adaptive --size full`, 1 epoch | data | seconds | train loss | test loss | test accuracy |"
    figures = ("seconds", "train_loss", "test_loss", "test_accuracy")
    return table(head, [[r["strategy"], r["data"], *(number(r[name]) for name in figures)] for r in rows])


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(head: str, lines: Sequence[Sequence[str | None]]) -> str:
    """In Markdown; nothing without lines."""
    if not lines:
        return ""
    body = ["| " + " | ".join((cell or "-").replace("|", "/") for cell in line) + " |" for line in lines]
    return "\n".join([head, "|" + " --- |" * (head.count("|") - 1), *body])
