"""The plan: which room stands on which floor, and the orders inside `torch/` and `lab/`. Imports point down only."""

# Rooms by floor. A room may import what stands on lower floors, and of its own floor itself alone and what BESIDE says.
FLOORS: tuple[set[str], ...] = (
    {"errors", "language", "finding", "plain", "frontends", "visible", "writing", "interrupts"},
    {"counter", "threshold", "place", "patterns", "receipt", "turns"},
    {"mask", "axes", "lint"},
    {"drop", "kernels", "choice", "attention"},
    {"grid", "numpy", "torch", "jax"},
    # What draws pages needs no dropout: it stands below all that shows something, above all that must not reach for it.
    {"keras", "report"},
    {"probe", "uncertainty"},
    {"lab"},
    {"reproduce"},
    {"cli", "benchmarks", "__init__"},
)
# (who, whom) of the same floor.
BESIDE = {
    *((room, "errors") for room in FLOORS[0] - {"errors"}),
    ("choice", "kernels"),
    ("finding", "language"),  # a finding tells itself
    ("mask", "axes"),  # where alpha's numbers were once
    ("benchmarks", "__init__"),  # as users do
    ("cli", "__init__"),
    ("__init__", "interrupts"),
}
# Rooms that see less than what is below them.
ONLY = {
    "axes": {"errors", "threshold", "place"},
    "lint": {"errors", "finding", "language"},
    "kernels": {"errors", "counter"},
    "grid": {"errors", "threshold", "axes", "drop"},
    "choice": {"errors", "counter", "kernels"},
    "report": {"errors", "visible", "language"},
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
    "reproduce": FRAMEWORKS,
    "cli": FRAMEWORKS,
    "benchmarks": FRAMEWORKS,
}

# Inside a room: its files and folders, from below. Those of one row may import each other (without circles).
INSIDE: dict[str, tuple[set[str], ...]] = {
    "torch": (
        {"draw"},
        {"channels"},
        {"arithmetic"},
        {"drawing"},
        {"bound"},
        {"parts"},
        {"ops", "named"},
        {"layers", "functional", "fused", "attention"},
        {"variants"},
        {"reading"},
        {"binding", "release", "pipelines", "sharding", "learned", "depth", "structures", "taken", "eager"},
        {"weights", "heads", "tokens", "graphs", "embedded", "pooling", "recurrent"},
        {"finding"},
        {"changing"},
        {"moving"},
        {"__init__"},
    ),
    "lab": (
        {"imported", "order", "files", "statistics", "keras_backend", "pictures", "signatures"},
        {"data"},
        {"recipes"},
        {"plan"},
        {"engines"},
        {"tasks"},
        {"runs"},
        {"telling"},
        {"settling"},
        {"experiment"},
        {"searching"},
        {"tuning", "own"},
        {"comparing", "doors"},
        {"__init__"},
    ),
}

# Former names that do more than import, and what is called so now. They are for programs; nobody of ours imports them.
FORMER = {"layout": "place"}

# Private attributes of frameworks' classes that we have to read; some classes of ours have them too.
OF_FRAMEWORKS = {"_parameters": "torch.nn.Module", "_value": "keras.Variable"}

# Whose public names need a docstring with an example: packages, and files that are there for users.
DOCUMENTED = (
    "",
    "grid",
    "axes/rate",
    "numpy",
    "torch",
    "torch/functional",
    "torch/learned",
    "torch/depth",
    "torch/weights",
    "torch/graphs",
    "torch/tokens",
    "jax",
    "jax/equinox",
    "jax/nnx",
    "keras",
    "probe",
    "probe/findings",
    "uncertainty",
    "lint",
    "report",
    "lab",
    "reproduce",
)
# Files whose classes users make; what else is in them is ours.
CLASSES_DOCUMENTED = ("axes/noise", "axes/share", "axes/when", "jax/linen")

# What is still out of place while rooms move: how many faults of a check a room may have at most.
AWAITED: dict[tuple[str, str], int] = {}

# The core, by what a file's path begins with, and how many code lines it may have: what every mask goes through. Of
# laws and shares that is what a value of theirs must say, and not each of them. It must not grow from here.
CORE = ("errors", "counter", "threshold", "place", "mask", "axes", "drop")
NOT_CORE = (
    "axes/rate",
    *(f"axes/noise/{file}" for file in ("__init__", "hard", "relaxed", "soft")),
    *(f"axes/share/{file}" for file in ("__init__", "names", "refining")),
)
CORE_LINES = 586
FILE_LINES = 400
FUNCTION_LINES = 25
