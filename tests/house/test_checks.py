"""Each check of the house finds what is planted for it, and nothing in what is allowed."""

from collections.abc import Callable

import pytest

from . import arrows, docs, names, sizes
from .plan import FUNCTION_LINES
from .source import Fault, House

# Files that planted imports lead to.
PATHS = """
    __init__.py errors.py mask.py drop.py visible.py grid.py finding.py
    axes/__init__.py axes/share.py axes/noise.py axes/rate/__init__.py axes/rate/shapes.py
    kernels/__init__.py kernels/cpu/__init__.py numpy/__init__.py numpy/ops.py jax/__init__.py
    torch/__init__.py torch/ops.py torch/layers.py torch/draw.py torch/drawing/__init__.py torch/finding/__init__.py
    keras/__init__.py keras/ops.py probe/__init__.py report/__init__.py report/page.py uncertainty/__init__.py
    lab/__init__.py lab/plan.py lab/runs/__init__.py lab/runs/run.py lab/recipes/__init__.py cli/__init__.py
"""
EMPTY = dict.fromkeys(PATHS.split(), "")


def found(check: Callable[[House], list[Fault]], sources: dict[str, str]) -> list[str]:
    return [f"{fault.path}:{fault.line} {fault.says}" for fault in check(House(EMPTY | sources))]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mask.py", "from .drop import Drop"),
        ("threshold.py", "from .axes.noise import Alpha"),
        ("mask.py", "import torch"),
        ("errors.py", "from .visible import one_line"),
        ("drop.py", "from .torch import ops"),
        ("drop.py", "from .kernels import cpu"),
        ("drop.py", "from . import grid"),
        ("drop.py", "def lower():\n    from .grid import grid"),
        ("drop.py", "import dropkit.numpy.ops"),
        ("drop.py", "from dropkit import Drop"),
        ("drop.py", "from importlib import import_module\nimport_module('.torch', __package__)"),
        ("drop.py", "from importlib import import_module\nimport_module('dropkit.torch.ops')"),
        ("drop.py", "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from .numpy.ops import Law"),
        ("axes/share.py", "from .rate import Rate"),
        ("axes/share.py", "from . import noise"),
        ("axes/rate/shapes.py", "from ..share import Share"),
        ("axes/rate/__init__.py", "from ..share import Share"),
        ("axes/rate/shapes.py", "from ...mask import keep"),
        ("kernels/cpu/__init__.py", "from ...mask import keep"),
        ("grid.py", "from .kernels import cpu"),
        ("numpy/ops.py", "from ..torch import ops"),
        ("numpy/ops.py", "import torch.nn"),
        ("numpy/ops.py", "from .. import grid"),
        ("torch/ops.py", "import jax"),
        ("torch/ops.py", "def late():\n    from jax import numpy"),
        ("torch/ops.py", "from ..keras import ops"),
        ("torch/ops.py", "from ..lab.runs import run"),
        ("torch/ops.py", "from dropkit.report import page"),
        ("torch/ops.py", "from ..probe import explain"),
        ("torch/draw.py", "from .drawing import at"),
        ("torch/ops.py", "from . import layers"),
        ("torch/ops.py", "from .layers import Dropout"),
        ("torch/layers.py", "def late():\n    from .finding import sites"),
        ("torch/layers.py", "from . import Dropout"),
        ("torch/unheard_of.py", "import os"),
        ("jax/ops.py", "import torch"),
        ("keras/ops.py", "from ..lab.runs import run"),
        ("probe/model.py", "from ..lab.runs import run"),
        ("report/page.py", "from ..probe import explain"),
        ("keras/ops.py", "from ..report import page"),
        ("probe/tree.py", "from ..uncertainty import predict"),
        ("lab/plan.py", "from .runs.run import Run"),
        ("lab/recipes/mlp.py", "from ..plan import Plan"),
        ("lab/plan.py", "from .. import cli"),
        ("lab/unheard_of.py", "import os"),
        ("unheard_of.py", "import os"),
    ],
)
def test_an_import_that_runs_up_is_found(path: str, source: str) -> None:
    assert len(found(arrows.upward, {path: source})) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("mask.py", "from .errors import DropkitError"),
        ("errors.py", "import os"),
        ("visible.py", "from .errors import DropkitError"),
        ("axes/__init__.py", "from . import noise, rate, share"),
        ("axes/rate/__init__.py", "from .shapes import Cosine"),
        ("torch/layers.py", "import torch\nfrom . import draw, ops\nfrom ..drop import Drop"),
        ("keras/ops.py", "import keras\nfrom ..torch import ops"),
        ("probe/model.py", "from ..keras import ops\nfrom ..report import page\nfrom ..torch.finding import sites"),
        ("lab/runs/run.py", "import torch\nfrom ..plan import Plan\nfrom ... import __version__"),
        ("__init__.py", "from . import axes\nfrom .probe import explain"),
        ("benchmarks/gpu.py", "import dropkit.torch, torch, keras\nfrom dropkit.lab.plan import Plan"),
    ],
)
def test_an_import_that_points_down_is_not(path: str, source: str) -> None:
    assert found(arrows.upward, {path: source}) == []


def test_a_file_that_only_imports_stands_outside_the_order() -> None:
    sources = {"lab/by_hand.py": '"""Its former name."""\nfrom .runs.run import score as score'}
    assert found(arrows.upward, sources) == []
    assert found(arrows.former, sources) == []
    uses = {"benchmarks/gpu.py": "from dropkit.lab.by_hand import score", "lab/plan.py": "from . import by_hand"}
    assert len(found(arrows.former, sources | uses)) == 2


@pytest.mark.parametrize(
    "sources",
    [
        {"a.py": "from . import b", "b.py": "from . import a"},
        {"a.py": "from .b import x", "b.py": "def late():\n    from .a import y"},
        {"a.py": "import dropkit.b", "b.py": "import dropkit.c as c", "c.py": "from dropkit import a"},
        {"r/__init__.py": "from .a import x as x", "r/a.py": "from . import x"},
        {"r/__init__.py": "from .a import x as x", "r/a.py": "from ..r import x"},
        {"r/__init__.py": "from .a import x as x", "s.py": "from .r import x", "r/a.py": "from ..s import y"},
        {"a.py": "TYPE_CHECKING = 0\nif TYPE_CHECKING:\n    from .b import x", "b.py": "from .a import y"},
        {"a.py": "from importlib import import_module\nimport_module('dropkit.b')", "b.py": "from .a import y"},
    ],
)
def test_a_circle_is_found(sources: dict[str, str]) -> None:
    (circle,) = arrows.circles(House(sources))
    assert set(sources) <= set(circle.says.replace(":", " ").split())


def test_two_circles_are_two() -> None:
    sources = {
        "a.py": "from . import b",
        "b.py": "from . import a",
        "c.py": "from . import d",
        "d.py": "from . import c",
    }
    assert [fault.path for fault in arrows.circles(House(sources))] == ["a.py", "c.py"]


@pytest.mark.parametrize(
    "sources",
    [
        {"r/__init__.py": "from .a import x as x", "r/a.py": "from . import b", "r/b.py": "x = 1"},
        {"r/__init__.py": "from .a import x as x", "r/a.py": "from .b import x", "r/b.py": "x = 1"},
        {"__init__.py": "from .a import x as x", "a.py": "from . import b", "b.py": ""},
        {"a.py": "from . import b, c", "b.py": "from . import d", "c.py": "from . import d", "d.py": ""},
    ],
)
def test_a_package_that_passes_on_names_is_no_circle(sources: dict[str, str]) -> None:
    assert arrows.circles(House(sources)) == []


@pytest.mark.parametrize(
    "source",
    [
        "from .drop import Drop",
        "from . import unheard_of",
        "def late():\n    from .unheard_of import x",
        "import dropkit.unheard_of",
        "from dropkit.mask import no_such_name",
    ],
)
def test_an_import_of_nothing_is_found(source: str) -> None:
    assert len(found(arrows.missing, {"mask.py": "def keep(): ...", "a.py": source})) == 1


def test_an_import_of_something_is_not() -> None:
    sources = {
        "__init__.py": "_LAZY = ('torch',)\ndef __getattr__(name): ...",
        "mask.py": "if True:\n    MASK, (ROUNDS, _) = 1, (2, 3)\ntry:\n    import os\nexcept E:\n    os = None",
        "words.py": "from .mask import *",
        "a.py": "from . import mask\nfrom .mask import ROUNDS, os\nfrom .words import MASK\nfrom dropkit import torch",
    }
    assert found(arrows.missing, sources) == []


# What a module has that others must leave alone.
OPS = """
def dropout(): return _where()
def _where(): return 0
class Dropout:
    _site = None
    def __init__(self): self._clock = 0
    def forward(self): return self._clock
    def _draw(self): return 0
"""


@pytest.mark.parametrize(
    "source",
    [
        "from .ops import _where",
        "from .ops import _where as where",
        "from . import ops\nops._where()",
        "from . import ops as o\ndef f():\n    return o._where",
        "def f():\n    from .. import numpy\n    return numpy.ops._where",
        "import dropkit.numpy.ops\ndropkit.numpy.ops._where()",
        "import dropkit.numpy.ops as ops\nops._where()",
        "from . import ops\ngetattr(ops, '_where')()",
        "from . import ops\nhasattr(ops, '_where')",
        "from .ops import Dropout\nDropout._draw(0)",
        "from .ops import Dropout\nLayer = Dropout\nLayer._site",
        "from . import ops\nfor module in (ops,):\n    module._where()",
        "from dropkit.numpy import Dropout\nDropout._draw(0)",
        "import sys\nsys.modules['dropkit.numpy.ops']._where()",
        "from . import ops\nops.__dict__['_where']()",
        "from . import ops\nvars(ops)['_where']()",
        "from ..torch._hidden import draw",
        "from ..torch import _hidden",
        "import dropkit.torch._hidden",
    ],
)
def test_a_private_name_of_another_module_is_found(source: str) -> None:
    sources = {
        "numpy/__init__.py": "from .ops import Dropout as Dropout",
        "numpy/ops.py": OPS,
        "numpy/layers.py": source,
    }
    assert len(found(names.private, sources | {"torch/_hidden.py": "draw = 1"})) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from .ops import Dropout, dropout as _dropout\n_dropout()",
        "from . import ops as _ops\n_ops.dropout()",
        "from . import ops\nops.__doc__",
        "import torch\ntorch._dynamo",
        "from .ops import Dropout\nclass Layer(Dropout):\n    def forward(self):\n        return self._draw()",
        "def _where(): ...\n_where()",
        "from . import _hidden\nfrom ._hidden import x",
    ],
)
def test_a_name_of_ones_own_is_not(source: str) -> None:
    sources = {"numpy/ops.py": OPS, "numpy/_hidden.py": "x = 1", "numpy/layers.py": source}
    assert found(names.private, sources) == []
    assert found(names.private_attributes, sources) == []


@pytest.mark.parametrize("source", ["def f(layer): return layer._clock", "def f(x): x.inner[0]._draw()"])
def test_a_private_attribute_of_anothers_object_is_found(source: str) -> None:
    assert len(found(names.private_attributes, {"numpy/ops.py": OPS, "numpy/layers.py": source})) == 1


def test_a_private_attribute_of_the_same_file_or_of_a_framework_is_not() -> None:
    source = "def f(module): return module._modules, module._parameters"
    assert found(names.private_attributes, {"numpy/ops.py": OPS + "def f(x): return x._clock", "a.py": source}) == []


@pytest.mark.parametrize(
    "source",
    [
        "from . import ops\nops.dropout = None",
        "from . import ops\nops.new = 1",
        "from . import ops\ndel ops.dropout",
        "from . import ops\nops.COUNT += 1",
        "from . import ops\nops.a, ops = 1, 2",
        "from . import ops\nsetattr(ops, 'dropout', None)",
        "from . import ops\ndelattr(ops, 'dropout')",
        "from . import ops\nobject.__setattr__(ops, 'dropout', None)",
        "from . import ops\nops.__dict__['dropout'] = None",
        "from . import ops\nvars(ops).update(dropout=None)",
        "from . import ops\nfor name in ('dropout',):\n    setattr(ops, name, None)",
        "from . import ops\nfor module in (ops,):\n    setattr(module, 'dropout', None)",
        "from . import ops\nother = ops\nother.dropout = None",
        "import dropkit.numpy.ops\ndropkit.numpy.ops.dropout = None",
        "import sys\nsys.modules['dropkit.numpy.ops'].dropout = None",
        "from .ops import Dropout\nDropout.forward = None",
        "from dropkit.numpy import Dropout\nDropout.forward = None",
        "from .ops import dropout\ndropout.fast = True",
        "from unittest import mock\nwith mock.patch('dropkit.numpy.ops.dropout'): ...",
        "from unittest.mock import patch\nfrom . import ops\nwith patch.object(ops, 'dropout'): ...",
        "from . import ops\nreplaced(ops, 'dropout', None)",
        "from . import ops\nTABLE = [(ops, 'dropout', None)]",
        "from . import ops\nTABLE = [(ops, '_where', None)]",
        "from .ops import Dropout\nTABLE = ((Dropout, 'forward'),)",
        "from . import ops\nTABLE = {ops: 'dropout'}",
        "from . import ops\nTABLE = (ops,)\nfor module in TABLE:\n    setattr(module, 'new', None)",
        "from . import ops\nfor module, name in zip((ops,), ('new',)):\n    setattr(module, name, None)",
        "from . import ops\nreplaced(target=ops, name='dropout')",
        "from unittest import mock\nfrom . import ops\nwith mock.patch.multiple(ops, new=None): ...",
        "from unittest import mock\nfrom . import ops\nwith mock.patch.dict(vars(ops), new=None): ...",
        "from . import ops\nops.dropout.__code__ = None",
        "def apply(monkeypatch):\n    from . import ops\n    monkeypatch.setattr(ops, 'dropout', None)",
    ],
)
def test_a_patch_of_our_own_is_found(source: str) -> None:
    sources = {
        "numpy/__init__.py": "from .ops import Dropout as Dropout",
        "numpy/ops.py": OPS,
        "numpy/layers.py": source,
    }
    assert len(found(names.patches, sources)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.dropout = None",
        "import keras\nfrom . import ops\nTABLE = [(keras.layers.Dropout, 'call')]",
        "from . import ops\ngetattr(ops, 'dropout')",
        "from .ops import Dropout\nlayer = Dropout()\nlayer.p = 0.5",
        "class Layer: ...\nLayer.forward = None",
        "from . import ops\nlog(ops, 'some text')",
        "from . import ops\nops.TABLE['x']",
    ],
)
def test_a_patch_of_others_and_of_objects_is_not(source: str) -> None:
    assert found(names.patches, {"numpy/ops.py": OPS, "numpy/layers.py": source}) == []


def test_a_long_file_is_found() -> None:
    assert found(sizes.long_files, {"mask.py": "x = 1\n" * 400}) == []
    assert found(sizes.long_files, {"mask.py": "# as long\n" * 401}) == ["mask.py:1 401 lines, at most 400"]


def test_code_lines_are_lines_with_code() -> None:
    head, text = (
        '"""Text.\n\nMore."""\n\n# why\ndef f(\n    x,\n):\n    """One."""\n\n',
        '    y = """a\n\nb"""  # here\n',
    )
    source = f"{head}{text}    return y\n"
    (file,) = House({"a.py": source}).files.values()
    assert sizes.code_lines(file) == {6, 7, 8, 11, 12, 13, 14}
    assert [n for _, n in sizes.functions(file)] == [7]


def test_long_functions_are_found_when_more_than_a_tenth_is_long() -> None:
    long = "def long():\n" + "    x = 1\n" * FUNCTION_LINES
    short = "".join(f"def f{i}():\n    return 1\n\n    # and\n" for i in range(8))
    assert found(sizes.long_functions, {"a.py": long + short}) == ["a.py:1 long: 26 code lines"]
    assert found(sizes.long_functions, {"a.py": long + short + "def g(): ...\n"}) == []


def test_a_large_core_is_found() -> None:
    core = {"mask.py": "x = 1\n" * 340, "drop.py": "# why\n\ny = 1\n" * 246}
    assert found(sizes.large_core, core) == []
    assert found(sizes.large_core, core | {"axes/rate/shapes.py": "x = 1\n"}) == []
    for path in ("axes/share.py", "errors.py", "place.py"):
        (said,) = found(sizes.large_core, core | {path: "x = 1\n"})
        assert "587 code lines" in said


@pytest.mark.parametrize(
    "sources",
    [
        {"keras/__init__.py": "from .ops import f as f", "keras/ops.py": "def f(): ..."},
        {"keras/__init__.py": "from .ops import f as f", "keras/ops.py": "def f():\n    '''Drops.'''"},
        {
            "keras/__init__.py": "from .ops import f as f",
            "keras/ops.py": "from .all import f",
            "keras/all.py": "class f: ...",
        },
        {"probe/__init__.py": "def explain():\n    '''Explains.'''"},
        {
            "lab/__init__.py": "if TYPE_CHECKING:\n    from .plan import train as train",
            "lab/plan.py": "def train(): ...",
        },
        {"torch/__init__.py": "def __getattr__(n):\n    from .ops import S", "torch/ops.py": "class S:\n    '''S.'''"},
        {"axes/rate/__init__.py": "from .shapes import Cosine as Cosine", "axes/rate/shapes.py": "class Cosine: ..."},
        {"uncertainty/__init__.py": "def predict():\n    '''Predicts.'''"},
        {"errors.py": "class E(Exception): ...", "__init__.py": "from .errors import E as E"},
        {"lint/__init__.py": "def lint():\n    '''Lints.'''"},
        {"grid.py": "def zoneout():\n    '''Keeps the state.'''"},
        {"axes/share.py": "class Block: ...\nclass Refining:\n    '''Abstract: refines.'''\ndef of(): ..."},
    ],
)
def test_a_public_name_without_an_example_is_found(sources: dict[str, str]) -> None:
    assert len(found(docs.undocumented, sources)) == 1


def test_a_public_name_with_an_example_is_not() -> None:
    sources = {
        "keras/__init__.py": "from .ops import f as f\nfrom .ops import hidden\nfrom . import ops as ops",
        "keras/ops.py": "def f():\n    '''Drops.\n\n    >>> f()\n    '''\ndef hidden(): ...",
        "errors.py": "class E(Exception):\n    '''What is raised.'''",
        "__init__.py": "from .errors import E as E\nfrom .mask import MAX as MAX",
        "mask.py": "MAX = 1",
    }
    assert found(docs.undocumented, sources) == []


TREE = """
    src/dropkit/
      mask.py        the mask
      torch/         the frontend: ops.py and more
        ops.py  layers.py    functions and modules
        learned/
      lab/           the lab

mask.py is told.
"""


def test_a_tree_that_leaves_out_a_file_is_found() -> None:
    files = {"__init__.py", "mask.py", "torch/__init__.py", "torch/ops.py", "torch/layers.py", "lab/__init__.py"}
    files |= {"torch/learned/__init__.py", "torch/learned/base.py", "lab/plan.py"}
    house = House(dict.fromkeys(files, ""))
    assert docs.untold(house, TREE) == []
    more = {"drop.py": "", "jax/ops.py": "", "torch/learned/rates.py": "", "torch/fused.py": "", "lab/files.py": ""}
    assert [fault.path for fault in docs.untold(house.with_(more), TREE)] == ["drop.py", "jax/", "torch/fused.py"]
    former = {"layers.py": "'Its former name.'\nfrom .torch.layers import Dropout as Dropout"}
    assert docs.untold(house.with_(former), TREE) == []


def test_a_tree_that_names_what_is_not_there_is_found() -> None:
    house = House({"mask.py": "", "torch/ops.py": "", "lab/plan.py": ""})
    assert [fault.says for fault in docs.untold(house, TREE)] == ["names torch/layers.py", "names torch/learned/"]
