"""The callbacks: their hooks in the order in which the libraries call them, and in the libraries where installed."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dropkit.axes.rate import Gap, Linear
from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.torch import Dropout
from dropkit.torch.callbacks import huggingface_callback, lightning_callback
from dropkit.torch.rate_log import RateLog
from dropkit.torch.schedule import Schedule

HOOKS_ONLY = ["lightning.pytorch", "pytorch_lightning", "transformers", "transformers.trainer_callback"]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Base classes without hooks of their own, in the place of the libraries'."""
    for name in HOOKS_ONLY:
        monkeypatch.delitem(sys.modules, name, raising=False)
    lightning = ModuleType("lightning.pytorch")
    lightning.Callback = type("Callback", (), {})  # type: ignore[attr-defined]
    transformers = ModuleType("transformers.trainer_callback")
    transformers.TrainerCallback = type("TrainerCallback", (), {})  # type: ignore[attr-defined]
    transformers.ExportableState = type("ExportableState", (), {})  # type: ignore[attr-defined]
    for module in (lightning, transformers):
        parent = ModuleType(module.__name__.partition(".")[0])
        monkeypatch.setitem(sys.modules, parent.__name__, parent)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def rates() -> dict[str, Any]:
    return {"*drop6": Linear(0.5, 0.1, steps=10), "*drop7": Gap(0.1, start=0.2, gain=0.5, smoothing=0.3)}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.drop6, self.drop7, self.drop8 = nn.Linear(4, 4), Dropout(), Dropout(), Dropout(0.05)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop8(self.drop7(self.drop6(self.fc(x))))


# ---------------------------------------------------------------------------------------------------------------------
# the hooks


class Curves:
    """A Lightning logger."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.points.append((step, metrics))


def fake_trainer(**other: Any) -> Any:
    known = {"enable_validation": True, "sanity_checking": False, "is_global_zero": True, "global_step": 0}
    return SimpleNamespace(
        **{**known, "state": SimpleNamespace(fn="fit"), "callback_metrics": {}, "loggers": [], **other}
    )


@pytest.mark.usefixtures("stand_ins")
def test_lightning_hooks(tmp_path: Path) -> None:
    model, logger = Net(), Curves()
    callback = lightning_callback(rates(), train="train", validation="val", log=RateLog(tmp_path / "rates.csv"))
    assert isinstance(callback, sys.modules["lightning.pytorch"].Callback)
    trainer = fake_trainer(loggers=[logger], current_epoch=0)
    callback.on_fit_start(trainer, model)
    trainer.sanity_checking = True
    callback.on_validation_end(trainer, model)
    trainer.sanity_checking = False
    for step in range(5):
        trainer.global_step = step
        callback.on_train_batch_start(trainer, model, None, step)
    assert model.drop6.p == pytest.approx(0.34)
    trainer.global_step = 5
    trainer.callback_metrics = {"train": torch.tensor(0.25), "val": torch.tensor(0.75), "other": torch.tensor(1.0)}
    callback.on_validation_end(trainer, model)
    assert model.drop7.p == pytest.approx(0.3)
    trainer.state.fn = "validate"
    callback.on_validation_end(trainer, model)
    assert callback.schedule.controllers[0].state()["updates"] == 1
    callback.on_train_epoch_end(trainer, model)
    # The rates that the epoch's last batch had; drop8 is not scheduled and logged all the same.
    used = {"drop6": 0.33999999999999997, "drop7": 0.2, "drop8": 0.05}
    assert logger.points == [(5, {**{f"dropout/{site}": p for site, p in used.items()}, "epoch": 0})]
    assert RateLog(tmp_path / "rates.csv").rows == [{"epoch": 0, **used}]


@pytest.mark.usefixtures("stand_ins")
def test_lightning_state_before_and_after_the_start_of_fit() -> None:
    first = lightning_callback(rates(), train="t", validation="v")
    assert first.state_dict() == {}
    first.on_fit_start(fake_trainer(), Net())
    first.on_train_batch_start(fake_trainer(global_step=7), Net(), None, 0)
    first.on_validation_end(fake_trainer(callback_metrics={"t": 0.1, "v": 0.7}), Net())
    saved = first.state_dict()
    for early in (True, False):
        second, model = lightning_callback(rates(), train="t", validation="v"), Net()
        if early:
            second.load_state_dict(saved)
        second.on_fit_start(fake_trainer(), model)
        if not early:  # strategies that restore after the setup
            second.load_state_dict(saved)
        assert second.schedule.rates() == first.schedule.rates()
        assert model.drop7.p == pytest.approx(0.3)


@pytest.mark.usefixtures("stand_ins")
def test_huggingface_waits_for_both_evaluations() -> None:
    callback, model = huggingface_callback(rates(), train="eval_train_loss", validation="eval_val_loss"), Net()
    args, state = SimpleNamespace(eval_strategy="epoch"), SimpleNamespace(global_step=0, stateful_callbacks={})
    assert callback.state() == {"args": {}, "attributes": {"saved": None}}
    callback.on_evaluate(args, state, None, metrics={"eval_val_loss": 9.0})  # before training: none of its business
    callback.on_train_begin(args, state, None, model=model)
    callback.on_step_begin(args, state, None)
    callback.on_evaluate(args, state, None, metrics={"eval_train_loss": 0.25, "epoch": 1})
    assert model.drop7.p == 0.2
    callback.on_evaluate(args, state, None, metrics={"eval_val_loss": 0.75, "epoch": 1})
    assert model.drop7.p == pytest.approx(0.3)
    json.dumps(callback.state())
    callback.on_evaluate(args, state, None, metrics={"eval_loss": 0.75, "epoch": 2})
    with pytest.raises(DropkitValueError, match="waits for the metric 'eval_train_loss' and 'eval_val_loss', which no"):
        callback.on_evaluate(args, state, None, metrics={"eval_loss": 0.75, "epoch": 3})


@pytest.mark.usefixtures("stand_ins")
def test_a_controller_without_a_validation() -> None:
    with pytest.raises(
        DropkitValueError, match="a controller among the rates needs two metrics, but got train='t' and"
    ):
        lightning_callback(Schedule(Net(), rates()), train="t")
    for make in (lightning_callback, huggingface_callback):
        with pytest.raises(DropkitTypeError, match="validation must be the name of a metric, got 3"):
            make(rates(), train="t", validation=3)  # type: ignore[operator]
    late = lightning_callback(rates())
    with pytest.raises(DropkitValueError, match="needs two metrics, but got train=None and validation=None: pass the"):
        late.on_fit_start(fake_trainer(), Net())
    idle = lightning_callback(rates(), train="t", validation="v")
    with pytest.raises(DropkitValueError, match="no validation to learn from: give the module a validation_step"):
        idle.on_fit_start(fake_trainer(enable_validation=False), Net())
    trainer = huggingface_callback(rates(), train="t", validation="v")
    args, state = SimpleNamespace(eval_strategy="no"), SimpleNamespace(global_step=0, stateful_callbacks={})
    with pytest.raises(DropkitValueError, match="no validation to learn from: set eval_strategy="):
        trainer.on_train_begin(args, state, None, model=Net())
    misnamed = lightning_callback(rates(), train="t", validation="v")
    misnamed.on_fit_start(fake_trainer(), Net())
    with pytest.raises(
        DropkitValueError, match=r"waits for the metric 'v', which no validation gave; there are loss, t$"
    ):
        misnamed.on_validation_end(fake_trainer(callback_metrics={"loss": 0.1, "t": 0.1}), Net())


@pytest.mark.usefixtures("stand_ins")
def test_a_second_fit_moves_the_second_model() -> None:
    callback, models = lightning_callback({"drop6": 0.3}), [Net(), Net()]
    for model in models:
        callback.on_fit_start(fake_trainer(enable_validation=False), model)
        assert model.drop6.p == 0.3


@pytest.mark.parametrize(
    ("make", "package"), [(lightning_callback, "lightning"), (huggingface_callback, "transformers")]
)
def test_without_the_library(make: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*HOOKS_ONLY, "lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ModuleNotFoundError, match=f"needs {package}: pip install {package}"):
        make(0.5)


# ---------------------------------------------------------------------------------------------------------------------
# inside the libraries

lightning_is_there = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs lightning")
transformers_are_there = pytest.mark.skipif(
    None in (importlib.util.find_spec("transformers"), importlib.util.find_spec("accelerate")),
    reason="needs transformers and accelerate",
)
EPOCHS = 5


def slow_rates() -> dict[str, Any]:
    """With a controller that meets no bound on the way."""
    return {"*drop6": Linear(0.5, 0.1, steps=10), "*drop7": Gap(0.1, start=0.4, gain=0.1, smoothing=0.3)}


def batches(seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(8, 4, generator=generator), torch.randn(8, 4, generator=generator)) for _ in range(4)]


def lightning_fit(folder: Path, epochs: int, resume: Path | None = None, save_last: bool = True) -> Any:
    import lightning.pytorch as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = Net()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            torch.manual_seed(self.global_step)
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> None:
            loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
            self.log(("held_out", "part")[dataloader_idx], loss, add_dataloader_idx=False, batch_size=8)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def loader(seed: int) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(batches(seed), batch_size=None)  # type: ignore[arg-type]

    callback = lightning_callback(slow_rates(), train="part", validation="held_out", log=RateLog(folder / "rates.csv"))
    saves = pl.callbacks.ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=not save_last)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[saves, callback],
        logger=pl.loggers.CSVLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), loader(1), [loader(2), loader(1)], ckpt_path=resume)
    trainer.validate(trainer.lightning_module, [loader(2), loader(1)], verbose=False)
    assert callback.schedule.controllers[0].state()["updates"] == epochs
    return callback


@lightning_is_there
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("after_validation", [True, False])
def test_lightning_killed_and_resumed(tmp_path: Path, after_validation: bool) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = lightning_fit(tmp_path / "whole", EPOCHS, save_last=after_validation)
    lightning_fit(tmp_path / "cut", 2, save_last=after_validation)
    cut = lightning_fit(tmp_path / "cut", EPOCHS, tmp_path / "cut" / "last.ckpt", save_last=after_validation)
    rows = RateLog(tmp_path / "whole" / "rates.csv").rows
    assert RateLog(tmp_path / "cut" / "rates.csv").rows == rows
    assert cut.state_dict() == whole.state_dict()
    assert [row["epoch"] for row in rows] == list(range(EPOCHS))
    assert [row["net.drop6"] for row in rows] == pytest.approx([0.38, 0.22, 0.1, 0.1, 0.1])  # steps 3, 7, 11, ...
    assert len({row["net.drop7"] for row in rows}) == EPOCHS
    metrics = (tmp_path / "whole" / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "dropout/net.drop6" in metrics


def trainer_fit(folder: Path, epochs: int, resume: str | None = None, restores: bool = False) -> Any:
    import transformers

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = Net()

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.net(x)
            return {"loss": nn.functional.mse_loss(y, labels), "logits": y}

    def rows(seed: int) -> list[dict[str, torch.Tensor]]:
        return [{"x": x, "labels": y} for xs, ys in batches(seed) for x, y in zip(xs, ys, strict=True)]

    callback = huggingface_callback(
        slow_rates(), train="eval_part_loss", validation="eval_held_out_loss", log=RateLog(folder / "rates.csv")
    )
    trainer = transformers.Trainer(
        model=Model(),
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=epochs * 4,
            lr_scheduler_type="constant",  # not one that depends on where the run is cut
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            eval_strategy="epoch",
            save_strategy="epoch",
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            restore_callback_states_from_checkpoint=restores,
        ),
        train_dataset=rows(1),
        eval_dataset={"held_out": rows(2), "part": rows(1)},
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=resume)
    trainer.evaluate()
    assert callback.schedule.controllers[0].state()["updates"] == epochs
    return callback


@transformers_are_there
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("restores", [False, True])
def test_transformers_killed_and_resumed(tmp_path: Path, restores: bool) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = trainer_fit(tmp_path / "whole", EPOCHS)
    trainer_fit(tmp_path / "cut", 2)
    saved = tmp_path / "cut" / "checkpoint-8"
    cut = trainer_fit(tmp_path / "cut", EPOCHS, str(saved), restores)
    rows = RateLog(tmp_path / "whole" / "rates.csv").rows
    assert RateLog(tmp_path / "cut" / "rates.csv").rows == rows
    assert cut.schedule.state_dict() == whole.schedule.state_dict()
    assert [row["epoch"] for row in rows] == list(range(EPOCHS))
    assert [row["net.drop6"] for row in rows] == pytest.approx([0.38, 0.22, 0.1, 0.1, 0.1])
    assert len({row["net.drop7"] for row in rows}) == EPOCHS
