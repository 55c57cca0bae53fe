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
    "axes": {"errors", "threshold", "place"},
    "lint": {"errors", "finding"},
    "kernels": {"errors", "counter"},
    "grid": {"errors", "threshold", "axes", "drop"},
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
        {"bound"},
        {"layers", "functional", "fused", "attention", "norm"},
        {"reading"},
        {"binding", "sharding", "learned", "weights", "structures", "pipelines", "release"},
        {"finding"},
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

# Former names that do more than import, and what is called so now. They are for programs; nobody of ours imports them.
FORMER = {"layout": "place"}

# Private attributes of frameworks' classes that we have to read; some classes of ours have them too.
OF_FRAMEWORKS = {"_parameters": "torch.nn.Module", "_value": "keras.Variable"}

# While rooms move: where a file that still has its old name will be.
MOVING: dict[str, str] = {
    "layout": "place",
    "cli": "cli/__init__",
    "jax/layers": "jax/nnx",
    "jax/equinox": "jax/equinox/layers",
    "keras/noise": "keras/gaussian",
    "keras/sites": "keras/paths",
    "keras/words": "keras/bits",
    "probe/words": "probe/sentences",
    "report/figures": "report/plots",
    "torch/norm": "torch/fused",
    "lab/data": "lab/data/sets",
    "lab/files": "lab/files/__init__",
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
        "coordinates", "recomputation", "ranks")},
    "torch/transforms": "torch/arithmetic/transforms",
    **{f"torch/{name}": f"torch/moving/{name}" for name in ("schedule", "callbacks", "rate_log")},
    **{f"torch/{name}": f"torch/bound/{name}" for name in ("bond", "state", "calls", "clock", "unplaced", "sizes")},
    "torch/overlay": "torch/changing/overlay",
    **{f"lab/{name}": f"lab/data/{name}" for name in ("idx", "cifar", "images", "limits")},
    **{f"lab/{name}": f"lab/files/{name}" for name in ("arrays", "sealed", "lock")},
    **{f"lab/{name}": f"lab/recipes/{name}" for name in (
        "recipe", "strategies", "figures", "features", "weights", "keras_weights")},
    **{f"lab/{name}": f"lab/engines/{name}" for name in (
        "loop", "keras_run", "numpy_run", "by_hand", "adversarial", "sites", "gradients", "checkpoint",
        "judge", "quality")},
    "lab/run": "lab/runs/run",
    "lab/events": "lab/runs/events",
    **{f"lab/{name}": f"lab/telling/{name}" for name in ("stats", "table", "verdict", "page")},
}  # fmt: skip

# Whose public names need a docstring with an example: packages, and files that are there for users.
DOCUMENTED = (
    "",
    "grid",
    "axes/rate",
    "numpy",
    "torch",
    "torch/functional",
    "torch/learned",
    "jax",
    "jax/equinox",
    "keras",
    "probe",
    "probe/findings",
    "uncertainty",
    "lint",
    "report",
    "lab",
)
# Files whose classes users make; what else is in them is ours.
CLASSES_DOCUMENTED = ("axes/noise", "axes/share", "axes/when", "jax/nnx", "jax/linen")

# What is still out of place while rooms move: how many faults of a check a room may have at most.
AWAITED: dict[tuple[str, str], int] = {
    ("axes", "docstring"): 1,
    ("drop", "core"): 1,
    ("grid", "docstring"): 9,
    ("jax", "docstring"): 8,
    ("jax", "former name"): 2,
    ("jax", "long file"): 1,
    ("keras", "former name"): 3,
    ("keras", "private attribute"): 1,
    ("mask", "floor"): 2,
    ("mask", "long file"): 1,
    ("probe", "circle"): 1,
    ("probe", "floor"): 1,
    ("probe", "long file"): 1,
    ("probe", "patch"): 3,
    ("probe", "private attribute"): 5,
    ("torch", "circle"): 1,
    ("torch", "former name"): 10,
    ("torch", "long file"): 1,
    ("torch", "order"): 6,
    ("torch", "private"): 1,
    ("torch", "private attribute"): 2,
}

# The core, by what a file's path begins with, and how many code lines it may have.
CORE = ("errors", "counter", "threshold", "place", "mask", "axes", "drop", "choice")
NOT_CORE = ("axes/rate",)
CORE_LINES = 600
FILE_LINES = 400
FUNCTION_LINES = 25
