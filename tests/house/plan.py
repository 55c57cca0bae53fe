"""The plan: which room stands on which floor, and the orders inside `torch/` and `lab/`. Imports point down only."""

# Rooms by floor. A room may import what stands on lower floors, and of its own floor itself alone and what BESIDE says.
FLOORS: tuple[set[str], ...] = (
    {"errors", "finding", "plain", "frontends", "visible", "writing", "interrupts"},
    {"counter", "threshold", "place", "patterns"},
    {"mask", "axes", "lint"},
    {"drop", "kernels", "choice"},
    {"grid", "numpy", "torch", "jax"},
    {"keras"},
    {"probe", "uncertainty"},
    {"report"},
    {"lab"},
    {"cli", "benchmarks", "__init__"},
)
# (who, whom) of the same floor.
BESIDE = {
    *((room, "errors") for room in FLOORS[0] - {"errors"}),
    ("choice", "kernels"),
    ("benchmarks", "__init__"),  # as users do
    ("cli", "__init__"),
    ("__init__", "interrupts"),
}
# Rooms that see less than what is below them.
ONLY = {
    "axes": {"errors", "threshold"},
    "lint": {"errors", "finding"},
    "kernels": {"errors", "counter"},
    "choice": {"errors", "counter", "kernels"},
    "report": {"errors", "visible", "writing", "plain", "finding", "probe"},
}
# One axis never imports another.
APART = {"axes"}

FRAMEWORKS = {"torch", "jax", "flax", "equinox", "keras", "tensorflow"}
# Which frameworks a room may load; those that are not here, none; lab, cli and benchmarks, all.
MAY_LOAD: dict[str, set[str]] = {
    "torch": {"torch"},
    "jax": {"jax", "flax", "equinox"},
    "keras": {"keras", "torch", "jax", "tensorflow"},
    "kernels": {"torch"},
    "probe": {"torch", "keras", "jax", "tensorflow"},
    "uncertainty": {"torch", "jax", "flax", "equinox", "keras"},
    "lab": FRAMEWORKS,
    "cli": FRAMEWORKS,
    "benchmarks": FRAMEWORKS,
}

# Inside a room: its files and folders, from below. Those of one row may import each other (without circles).
INSIDE: dict[str, tuple[set[str], ...]] = {
    "torch": (
        {"draw", "channels"},
        {"arithmetic"},
        {"drawing"},
        {"parts"},
        {"ops"},
        {"layers", "functional", "fused", "attention", "norm"},
        {"binding", "sharding", "learned", "weights", "structures"},
        {"reading", "finding"},
        {"moving", "changing"},
        {"__init__"},
    ),
    "lab": (
        {"data", "order", "files", "task", "keras_backend", "pictures"},
        {"recipes"},
        {"plan"},
        {"engines"},
        {"runs"},
        {"telling"},
        {"experiment"},
        {"tuning"},
        {"__init__"},
    ),
}

# While rooms move: where a file that still has its old name will be.
MOVING: dict[str, str] = {
    "layout": "place",
    "lab/commands": "cli/lab",
    "lab/probing": "cli/probe",
    "lab/target": "cli/target",
    "lab/inputs": "cli/inputs",
    "lab/console": "cli/console",
    "lab/terminal": "cli/terminal",
    "probe/plain": "plain",
    **{f"torch/{name}": f"torch/arithmetic/{name}" for name in (
        "formula", "cpu", "cuda", "registered", "scripted", "noise")},
    "torch/elsewhere": "torch/arithmetic/tracing",
    **{f"torch/{name}": f"torch/drawing/{name}" for name in (
        "coordinates", "clock", "recomputation", "ranks", "calls", "transforms", "pipelines", "unplaced", "sizes")},
    **{f"torch/{name}": f"torch/moving/{name}" for name in ("schedule", "callbacks", "rate_log")},
    **{f"torch/{name}": f"torch/binding/{name}" for name in ("bond", "state", "release")},
    "torch/overlay": "torch/changing/overlay",
    **{f"lab/{name}": f"lab/data/{name}" for name in ("idx", "cifar", "images", "limits", "sealed", "lock")},
    **{f"lab/{name}": f"lab/recipes/{name}" for name in (
        "recipe", "strategies", "figures", "features", "weights", "keras_weights")},
    **{f"lab/{name}": f"lab/engines/{name}" for name in (
        "loop", "keras_run", "numpy_run", "by_hand", "adversarial", "sites", "gradients", "checkpoint", "arrays",
        "judge", "quality")},
    "lab/run": "lab/runs/run",
    "lab/events": "lab/runs/events",
    **{f"lab/{name}": f"lab/telling/{name}" for name in ("stats", "table", "verdict", "page")},
}  # fmt: skip

# The core, by what a file's path begins with, and how many code lines it may have.
CORE = ("errors", "counter", "threshold", "place", "layout", "mask", "axes", "drop", "choice")
NOT_CORE = ("axes/rate",)
CORE_LINES = 600
FILE_LINES = 400
FUNCTION_LINES = 25
