"""A plan is a plain value: it travels to another process, and says there what it said here."""

import inspect
import os
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropkit import cli, lab
from dropkit.axes.rate import Constant
from dropkit.cli.options import Comparing, Once, Searching, Trained
from dropkit.errors import UnknownNameError
from dropkit.lab import Data, Recipe, load_data
from dropkit.lab.experiment import compare, train
from dropkit.lab.plan import Asked, Choices, Plan, Wanted
from dropkit.lab.recipes import RECIPES, get
from dropkit.lab.recipes.engine import ENGINES, KERAS, TORCH, Engine
from dropkit.lab.recipes.recipe import Prepared
from dropkit.lab.recipes.strategies import ADAPTIVE, DECAY, SCHEDULED, chosen
from dropkit.lab.tuning import tune

DIGITS = load_data("digits")
ALL = [(name, strategy) for name, recipe in RECIPES.items() for strategy in recipe.strategies]


def prepared(data: Data) -> Prepared:
    return Prepared(data, "a network, random weights", ("A remark.",), 0.25)


def plan(recipe: Recipe, strategy: str, seed: int = 3) -> Plan:
    """As `Choices.make` chooses, without the framework that the recipe trains with."""
    known = prepared(DIGITS) if recipe.prepare else None
    backend = "jax" if recipe.engine == KERAS else None
    settings = recipe.settings("tiny", "digits")
    return Plan.make(Choices(recipe, DIGITS, "tiny", settings, 0.2, "cpu", "32-true", known, backend), strategy, seed)


@pytest.mark.parametrize(("recipe", "strategy"), [*ALL, ("mlp", "fixed:0.1:0.3")])
def test_a_plan_is_the_same_after_a_journey(recipe: str, strategy: str) -> None:
    here = plan(get(recipe), strategy)
    there = pickle.loads(pickle.dumps(here))
    assert there.record() == here.record()
    assert list(there.record()) == list(here.record())
    assert there.choices.recipe.strategies == here.choices.recipe.strategies
    assert there.choices.recipe.build is here.choices.recipe.build
    for name, part in here.choices.parts().items():
        assert all(np.array_equal(one, other) for one, other in zip(part, there.choices.parts()[name], strict=True))


def test_every_strategy_is_of_some_recipe() -> None:
    assert {strategy for _, strategy in ALL} == {*SCHEDULED, *ADAPTIVE, DECAY, "decay", "pathwise", "literal"}


def test_a_strategy_that_is_a_closure_does_not_travel() -> None:
    def closure(settings: Any, steps: int, values: tuple[float, ...]) -> dict[str, Constant]:
        return dict.fromkeys(get("mlp").feeds, Constant(0.2))

    planted = plan(replace(get("mlp"), strategies={"fixed": closure}), "fixed")
    assert planted.record()["rates"] == {"dropout1": "Constant(p=0.2)", "dropout2": "Constant(p=0.2)"}
    with pytest.raises((pickle.PicklingError, AttributeError), match="closure"):
        pickle.dumps(planted)


def test_a_plan_says_the_same_in_another_process(tmp_path: Path) -> None:
    """One that has loaded nothing but NumPy, and whose Keras would run on another backend."""
    here = [plan(get(recipe), "step") for recipe in ("mlp", "numpy-mlp", "dense", "transfer", "gan")]
    (tmp_path / "plans").write_bytes(pickle.dumps(here))
    code = (
        "import pickle, sys\n"
        "plans = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "print([plan.record() for plan in plans])\n"
        "sys.exit(bool({'torch', 'keras', 'jax'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "plans")]
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == repr([each.record() for each in here])


def test_a_plan_that_has_travelled_trains_to_the_same_numbers(tmp_path: Path) -> None:
    from dropkit.lab.runs.run import run_plan
    from tests.lab.runs import numbers

    for recipe, strategy in (("mlp", "gap"), ("numpy-mlp", "decay")):
        choices = Choices.make(recipe, size="tiny", epochs=2, validation=0.2, device="cpu")
        here = Plan.make(choices, strategy, 0)
        there = pickle.loads(pickle.dumps(here))
        runs = [run_plan(each, tmp_path / f"{recipe}-{n}", resume=False) for n, each in enumerate((here, there))]
        assert numbers(runs[0]) == numbers(runs[1])
        assert pickle.loads(pickle.dumps(runs[1])) == runs[1]  # and so comes back


def test_an_engine_is_a_plain_value_and_every_trainer_is_where_it_says() -> None:
    from importlib.util import find_spec

    for name, engine in ENGINES.items():
        assert engine.name == name and pickle.loads(pickle.dumps(engine)) == engine
        module, _, kind = engine.trainer.partition(":")
        spec = find_spec(module)
        assert spec is not None and spec.origin and f"class {kind}" in Path(spec.origin).read_text()
    with pytest.raises(FrozenInstanceError):
        TORCH.name = "other"  # type: ignore[misc]


def test_a_recipe_takes_an_engine_or_its_name() -> None:
    mine = Engine(name="mine", framework="torch", title="torch", trainer="tests.lab.test_plan:Mine")
    assert replace(get("mlp"), engine="keras").engine is KERAS
    assert replace(get("mlp"), engine=mine).engine is mine
    with pytest.raises(UnknownNameError, match="unknown engine 'Torch'; did you mean 'torch'"):
        replace(get("mlp"), engine="Torch")


class Mine:
    """A trainer of somebody's own."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan


def test_an_engine_of_ones_own_is_started_and_recorded_by_name() -> None:
    mine = Engine(name="mine", framework="torch", title="torch", trainer="tests.lab.test_plan:Mine")
    found = plan(replace(get("mlp"), engine=mine), "none")
    assert type(found.choices.recipe.engine.start(found)) is Mine
    assert found.record()["engine"] == "mine" and "engine" not in plan(get("mlp"), "none").record()


def test_strategies_are_values() -> None:
    one, other = (chosen({"dropout1": 0.5}, "none", "fixed", "gap", "disarm") for _ in range(2))
    assert one == other and one != chosen({"dropout1": 0.4}, "none", "fixed", "gap", "disarm")
    with pytest.raises(UnknownNameError, match="unknown strategy 'zzz'; Known: concrete, decay, disarm, fixed, gap"):
        chosen({"dropout1": 0.5}, "zzz")


OWN = {
    train: ("strategy", "seed", "tensorboard"),
    compare: ("strategies", "seeds", "margin", "until_settled", "max_seeds", "tensorboard"),
    tune: ("trials", "low", "high", "shared", "seeds", "seed"),
}
WANTED = tuple(dict.fromkeys([*Wanted.__annotations__, *Asked.__annotations__]))
COMMON = ("recipe", "out", "resume", "lang", "on_start", "on_epoch", *WANTED)


@pytest.mark.parametrize("function", OWN)
def test_a_signature_shows_all_that_can_be_asked(function: Any) -> None:
    assert [*inspect.signature(Choices.make).parameters] == ["recipe", *Asked.__annotations__]
    shown = inspect.signature(function).parameters
    assert sorted(shown) == sorted((*COMMON, *OWN[function]))
    assert [shown[name].default for name in ("data", "size", "epochs", "device")] == [None, "small", None, "auto"]
    assert shown["validation"].default == (0.1 if function is tune else None)
    assert all(f"{name}" in function.__doc__ for name in shown)
    door = inspect.signature(getattr(lab, function.__name__)).parameters  # for loops of one's own as well
    assert [*door][: len(shown)] == [*shown] and door["run"].default is None


@pytest.mark.parametrize("function", OWN)
def test_a_word_that_nobody_knows_is_refused_before_anything_is_written(function: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'sise'"):
        function("mlp", sise="tiny", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("kind", "function"), [(Once, train), (Comparing, compare), (Searching, tune)])
def test_a_command_can_be_told_what_the_function_can(kind: type[Trained], function: Any) -> None:
    words = kind(recipe="mlp").words()
    known = inspect.signature(function).parameters
    assert sorted(words) == sorted(known.keys() - {"on_start", "on_epoch", "train"})  # arrays are for Python
    for name, value in words.items():
        assert value == known[name].default or name in ("recipe", "out"), name


def test_the_options_of_a_command_are_its_functions_own_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    options = [word for word in capsys.readouterr().out.split() if word.startswith("--")]
    assert options[:5] == ["--data", "--strategy", "--seed", "--seeds", "--epochs"]
