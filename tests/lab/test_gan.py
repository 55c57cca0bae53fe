import base64
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

import dropkit
from dropkit.errors import DropkitValueError, OutputError
from dropkit.lab import Comparison, Run, compare, load_data, train, tune
from dropkit.lab.engines.adversarial import Adversarial
from dropkit.lab.engines.gradients import Part
from dropkit.lab.pictures import GAP
from dropkit.lab.plan import Choices, Plan
from dropkit.lab.recipes import get
from dropkit.lab.recipes.gan import FIXED, FULL, SMALL, settings
from dropkit.lab.telling.numbers import named
from dropkit.lab.telling.page import MOST
from dropkit.lab.telling.table import cells, headings, lines
from dropkit.lab.telling.verdict import verdict
from tests.lab.runs import numbers

DIGITS = load_data("digits")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A folder of its own for the judge, which is trained once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("DROPKIT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare("gan", size="tiny", epochs=5, device="cpu", out=tmp_path_factory.mktemp("runs"))


def tiny(out: Path, **choices: Any) -> Run:
    return train("gan", **{"size": "tiny", "device": "cpu", "out": out, **choices})


def engine(strategy: str = "fixed", size: str = "tiny", seed: int = 0, **choices: Any) -> Adversarial:
    made = Choices.make("gan", size=size, device="cpu", **choices)
    return Adversarial(Plan.make(made, strategy, seed))


def batch(count: int = 16) -> Part:
    return Part(torch.from_numpy(DIGITS.train_x[:count]), torch.from_numpy(DIGITS.train_y[:count]))


def test_the_networks_are_the_published_ones() -> None:
    assert settings("full", "mnist") == FULL and settings("small", "mnist") == SMALL
    assert (FULL.learning_rate, FULL.latent, set(FIXED.values())) == (3e-4, 100, {0.1})
    model = get("gan").build(FULL, (28, 28), 10, 0)
    widths = {
        name: [part.out_features for part in model.get_submodule(name).modules() if isinstance(part, torch.nn.Linear)]
        for name in ("generator", "discriminator")
    }
    assert widths == {"generator": [256, 512, 1024, 784], "discriminator": [1024, 512, 256, 1]}
    names = [type(part).__name__ for part in model.discriminator]
    assert names == ["Flatten", *["Linear", "LeakyReLU", "Dropout"] * 3, "Linear"]
    assert {part.negative_slope for part in model.modules() if isinstance(part, torch.nn.LeakyReLU)} == {0.2}
    made = model.generator(torch.randn(5, 100))
    assert made.shape == (5, 28, 28) and made.abs().max() < 1 and made.min() < -0.1


def test_a_logit_and_its_loss_are_the_sigmoid_and_its() -> None:
    logits, target = torch.linspace(-5, 5, 11), torch.linspace(0, 1, 11).round()
    torch.testing.assert_close(
        binary_cross_entropy_with_logits(logits, target), binary_cross_entropy(logits.sigmoid(), target)
    )


def masks_of(found: Adversarial, site: str) -> list[torch.Tensor]:
    """What is dropped at a site in the passes of the discriminator, in order."""
    seen: list[torch.Tensor] = []

    def look(module: Any, args: Any, output: torch.Tensor) -> None:
        seen.append(output.detach() != 0)

    found.sites.modules[site].register_forward_hook(look)
    return seen


@pytest.mark.slow
def test_each_pass_of_a_step_has_masks_of_its_own() -> None:
    found = engine("fixed:0.5")
    seen = masks_of(found, "dropout2")
    found.module.train()
    found._begin()
    for step in range(2):
        found._set_rates(step)
        found._train(batch(), step)
    # Real, generated, and generated for the generator: three steps of the discriminator's clock.
    assert len(seen) == 6
    for clock, mask in enumerate(seen):
        expected = dropkit.keep(mask.shape, 0.5, dropkit.Key(found.plan.seed, "dropout2", clock))
        assert np.array_equal(mask.numpy(), expected)
    assert len({mask.numpy().tobytes() for mask in seen}) == 6
    assert int(found.module.discriminator.dropkit_step) == 6


def test_no_dropout_is_active_where_images_are_scored() -> None:
    found = engine("fixed:0.5")
    found.module.train()
    clock = int(found.module.discriminator.dropkit_step)
    assert found.quality() == found.quality()
    assert int(found.module.discriminator.dropkit_step) == clock


def test_each_network_learns_from_its_own_loss_alone() -> None:
    found = engine("none")
    before = {name: value.clone() for name, value in found.module.state_dict().items()}
    found._begin()
    real = 2 * batch().x - 1
    fake = found.generator(found._latents(16, "lab/latent", 0))
    loss, *_ = found._train_discriminator(real, fake.detach())
    after = {name: value.clone() for name, value in found.module.state_dict().items()}
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"discriminator"}
    # The first loss is that of the formula, before any step.
    first = get("gan").build(found.settings, DIGITS.shape, 10, found.plan.seed)
    with torch.no_grad():
        probabilities = [first.discriminator(part).sigmoid() for part in (real, fake)]
    expected = -probabilities[0].log().mean() - (1 - probabilities[1]).log().mean()
    torch.testing.assert_close(loss, expected)
    found._train_generator(fake)
    last = found.module.state_dict()
    weights = [name for name in last if not name.endswith("dropkit_step")]
    assert {name.partition(".")[0] for name in weights if not torch.equal(last[name], after[name])} == {"generator"}
    assert all(parameter.requires_grad for parameter in found.module.parameters())


def test_images_enter_in_the_range_of_tanh() -> None:
    found = engine("none")
    seen: list[torch.Tensor] = []
    found.module.discriminator.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    found._begin()
    found._train(batch(), 0)
    real, fake, again = seen
    assert (real.min(), real.max()) == (-1, 1)
    torch.testing.assert_close(real, 2 * batch().x - 1)
    assert torch.equal(fake, again)
    assert fake.abs().max() <= 1


def test_latents_are_normal_numbers_of_the_counter() -> None:
    found = engine()
    expected = dropkit.normal((7, found.settings.latent), dropkit.Key(0, "lab/latent", 5))
    assert np.array_equal(found._latents(7, "lab/latent", 5).numpy(), expected)


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    untrained = engine("fixed").quality()
    last = tiny(tmp_path, epochs=40).rows[-1]
    assert last["frechet"] < untrained["frechet"] / 2
    assert last["recall"] > 0.2 > 0.1 > untrained["recall"]
    assert last["largest_share"] < 0.25 < untrained["largest_share"]
    assert sum(last[f"share_{number}"] for number in range(10)) == pytest.approx(1)
    assert last["largest_share"] == max(last[f"share_{number}"] for number in range(10))


@pytest.mark.parametrize("after", [1, 2])
def test_resumed_run_ends_bit_for_bit_the_same(tmp_path: Path, after: int) -> None:
    def stop(plan: Plan, row: dict) -> None:
        if row["epoch"] == after:
            raise KeyboardInterrupt

    whole = tiny(tmp_path / "whole", strategy="step", seed=3)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "cut", strategy="step", seed=3, on_epoch=stop)
    torch.manual_seed(after)  # torch's generator has no part in it
    cut = tiny(tmp_path / "cut", strategy="step", seed=3, resume=True)
    assert numbers(cut) == numbers(whole)
    for name in ("checkpoint.safetensors", "pictures/epoch-0003.png"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    states = [load_file(tmp_path / run / "state.safetensors") for run in ("cut", "whole")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    parts = {"/".join(re.split(r"[/.]", name)[:2]) for name in states[0]}
    assert parts == {"model/generator", "model/discriminator", "optimizer/generator", "optimizer/discriminator"}
    assert states[0]["model/discriminator.dropkit_step"] == 3 * whole.rows[-1]["step"]


@pytest.mark.slow
def test_strategies_move_the_rate_and_the_masks(finished: Comparison, tmp_path: Path) -> None:
    assert list(finished.runs) == ["none", "fixed", "fixed:0.3"]
    for strategy, p in (("none", 0.0), ("fixed", 0.1), ("fixed:0.3", 0.3)):
        for run in finished.runs[strategy]:
            assert {row[f"rate_{site}"] for row in run.rows for site in FIXED} == {p}
    step = tiny(tmp_path, strategy="step", epochs=6)
    assert [row["rate_dropout1"] for row in step.rows] == [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    distances = {strategy: runs[0].rows[-1]["frechet"] for strategy, runs in finished.runs.items()}
    assert len(set(distances.values())) == 3


def test_a_seed_gives_every_strategy_the_same_start(tmp_path: Path) -> None:
    runs = [tiny(tmp_path / name.replace(":", "-"), strategy=name, epochs=2) for name in ("none", "fixed:0")]
    assert [row["frechet"] for row in runs[0].rows] == [row["frechet"] for row in runs[1].rows]


def test_the_table_and_the_words_are_about_frechet_distance(finished: Comparison) -> None:
    head = (finished.folder / "table.md").read_text().splitlines()[0]
    assert head == (
        "| strategy | Frechet distance | difference from none | collapsed | precision | recall | smallest class "
        "| largest class | spread | D(x) | D(G(z)) | D(x) - D(G(z)) | generator loss | discriminator loss | seconds |"
    )
    text = (finished.folder / "table.md").read_text()
    assert 'The difference is Frechet distance minus that of "none", paired by seed' in text
    assert "not figures of FID" in text
    result = json.loads((finished.folder / "result.json").read_text())
    for line, found in zip(result["table"], finished.lines, strict=True):
        assert line["figures"]["frechet"]["mean"] == found.interval("frechet").mean
    means = {line.strategy: line.compared.mean for line in finished.lines}
    best = named(min((name for name in means if name != "none"), key=lambda name: means[name]))
    assert f" too few to say on digits: {best} against no dropout, Frechet distance " in finished.verdict[0]
    assert "gap" not in " ".join(finished.verdict)
    assert re.search(
        r"judged after each epoch on 256 generated images against the 500 of the test set, by a classifier of test "
        r"accuracy 0.9\d+; 256 real training images in their place would have a Frechet distance of \d",
        finished.verdict[-1],
    )


def made(**figures: float) -> Run:
    """A run of one epoch whose figures are these, and one half where nothing is said."""
    kind = get("gan").figures
    return Run({}, ({**dict.fromkeys(kind.rows, 0.5), "seconds": 1.0, **figures},), 1, (), kind)


def test_collapsed_runs_are_counted() -> None:
    """By the spread after the last epoch, not by a mean of epochs; a run that diverged is told as such."""
    late = made(spread=0.9)
    late = replace(late, rows=({**late.rows[0], "spread": 0.9}, {**late.rows[0], "spread": 0.05}))
    found = lines(
        {
            "none": [made(spread=0.0), made(spread=0.0999), late],
            "fixed": [made(spread=0.1), made(spread=0.05), made(spread=np.nan, generator_loss=np.nan)],
        }
    )
    assert [cells(line)[headings(line.figures).index("collapsed")] for line in found] == ["3 of 3", "1 of 2"]
    text = " ".join(verdict(found, "toys"))
    means = "ended with generated images of less than a tenth of the real ones' spread"
    assert f"Collapsed, that is, {means}: no dropout in 3 of 3 runs, dropout (fixed) in 1 of 2 runs." in text
    assert "dropout (fixed) diverged (loss not finite) in 1 of 3 seeds." in text
    assert f"No run collapsed, that is, {means}." in verdict(lines({"none": [made()]}), "toys")


def test_the_verdict_says_where_the_discriminator_is_farthest_ahead() -> None:
    found = lines(
        {
            "none": [made(real_probability=real, fake_probability=0.0) for real in (0.9, 1.0, 1.0)],
            "fixed": [made(real_probability=0.6, fake_probability=fake) for fake in (0.4, 0.5, 0.5)],
        }
    )
    assert (
        "The discriminator's margin, D(x) - D(G(z)), is widest under no dropout (+0.9667), narrowest under dropout "
        "(fixed) (+0.1333); paired difference +0.8333 (95 % interval +0.5465 to +1.1202)."
    ) in verdict(found, "toys")


def test_spread_is_that_of_the_test_set_for_its_own_images() -> None:
    found = engine("none")
    images = torch.from_numpy(DIGITS.test_x)
    found.generated = lambda count, site: images  # type: ignore[method-assign]
    assert found.quality()["spread"] == pytest.approx(1)
    found.generated = lambda count, site: images[:1].expand(256, -1, -1)  # type: ignore[method-assign]
    assert found.quality()["spread"] == pytest.approx(0, abs=1e-12)


def test_a_run_without_a_spread_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a version that did not measure it: it stays unknown for the epochs that are over."""
    whole = Adversarial.quality
    with monkeypatch.context() as older:
        kind = get("gan").figures
        rows = tuple(name for name in kind.rows if name != "spread")
        columns, charts = (
            tuple(one for one in part if "spread" not in repr(one)) for part in (kind.columns, kind.charts)
        )
        figures = replace(kind, rows=rows, counts=(), columns=columns, charts=charts)
        older.setattr(
            Adversarial, "quality", lambda self: {name: x for name, x in whole(self).items() if name != "spread"}
        )
        train(replace(get("gan"), figures=figures), size="tiny", epochs=1, device="cpu", out=tmp_path)
    finished = tiny(tmp_path, epochs=1, resume=True)
    assert np.isnan(finished.rows[0]["spread"]) and "collapsed" not in " ".join(
        verdict(lines({"fixed": [finished]}), "x")
    )
    longer = tiny(tmp_path, epochs=2, resume=True)
    assert np.isnan(longer.rows[0]["spread"]) and longer.rows[1]["spread"] > 0
    assert "spread" in (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "No run collapsed" in (tmp_path / "report.html").read_text()


def test_lower_is_better_in_the_verdict(finished: Comparison) -> None:
    def run(frechet: float) -> Run:
        return made(frechet=frechet)

    def words(**distances: list[float]) -> str:
        return "\n".join(verdict(lines({name: [run(d) for d in found] for name, found in distances.items()}), "toys"))

    none = [30.0, 31.0, 32.0, 30.5, 31.5]
    text = words(none=none, fixed=[20.0, 21.1, 22.0, 20.4, 21.6], step=[40.0, 41.1, 42.0, 40.4, 41.6])
    assert text.startswith(
        "Dropout (fixed) helps on toys: Frechet distance -9.98 (-10.08 to -9.88, 95 %), over 5 seeds."
    )
    assert "step hurts: +10.02 (9.92 to 10.12)." in text
    assert "Dropout (fixed) is better than step: -20" in text
    text = words(none=none, fixed=[29.0, 32.0, 31.0, 30.0, 33.0])
    assert text.startswith("Not settled on toys: dropout (fixed) against no dropout, Frechet distance 0.0")


def test_the_report_has_grids_and_curves(finished: Comparison) -> None:
    html = (finished.folder / "report.html").read_text()
    titles = re.findall(r"<h3>(.*?)</h3>", html)
    assert titles == [
        "Frechet distance minus that of &#34;none&#34;, seed by seed",
        "Frechet distance",
        "Loss",
        "What the discriminator says",
        "Spread",
        "Precision and recall",
        "Share of a class",
        *(f"Drop probability of {site}" for site in FIXED),
    ]
    found = [json.loads(block) for block in re.findall(r'<script type="application/json">(.*?)</script>', html)]
    assert found[0]["layout"]["xaxis"]["title"]["text"] == "Frechet distance, difference from none"
    losses = [trace["name"] for trace in found[2]["data"] if trace.get("name")]
    assert losses[:2] == ["none, generator", "none, discriminator"]
    sources = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="(.*?)">', html)
    epochs = sorted({round(float(epoch)) for epoch in np.geomspace(1, 5, MOST)})
    assert [words for _, words in sources] == [
        f"Images made under {strategy}, seed 0, after epoch {epoch}" for strategy in finished.runs for epoch in epochs
    ]
    last = finished.folder / "fixed-0.3" / "seed0" / "pictures" / "epoch-0005.png"
    assert base64.b64decode(sources[-1][0]) == last.read_bytes()


def test_a_picture_shows_what_the_generator_makes(finished: Comparison) -> None:
    place = finished.folder / "fixed" / "seed1"
    assert sorted(path.name for path in (place / "pictures").iterdir()) == [f"epoch-{n:04d}.png" for n in range(1, 6)]
    sheet = np.asarray(Image.open(place / "pictures" / "epoch-0005.png"))
    model = get("gan").build(settings("tiny", "digits"), (8, 8), 10, 0)
    weights = load_file(place / "checkpoint.safetensors")
    model.load_state_dict(
        {name: value for name, value in weights.items() if not name.endswith(("dropkit_step", "dropkit_seed"))}
    )
    latents = dropkit.normal((64, 32), dropkit.Key(1, "lab/latent/shown", 0))
    with torch.no_grad():
        made = model.generator(torch.from_numpy(latents.copy())).numpy()
    # Digits are enlarged four times, eight in a row.
    side = 8 * 4 + GAP
    assert sheet.shape == (8 * side + GAP, 8 * side + GAP)
    tenth = sheet[GAP + side : GAP + side + 32 : 4, GAP + side : GAP + side + 32 : 4]
    np.testing.assert_allclose(tenth, 255 * (made[9] + 1) / 2, atol=0.6)


def test_pictures_need_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DropkitValueError, match=r'drawing pictures needs pillow.*pip install "dropkit\[images\]"'):
        tiny(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_is_chosen_by_a_validation_loss_that_is_not_there(tmp_path: Path) -> None:
    for call in (
        lambda: tiny(tmp_path / "run", validation=0.1),
        lambda: tune("gan", size="tiny", trials=1, device="cpu", out=tmp_path / "run"),
    ):
        with pytest.raises(DropkitValueError, match=r"'gan' has no validation loss.* rates cannot be tuned; compare"):
            call()
    assert not (tmp_path / "run").exists()


def test_other_settings_are_refused_on_resume(tmp_path: Path) -> None:
    tiny(tmp_path, epochs=1)
    recipe = get("gan")
    other = replace(recipe, settings=lambda size, data: replace(settings(size, data), betas=(0.9, 0.999)))
    with pytest.raises(OutputError, match=r"holds a run with betas \[0.5, 0.999\], this one has \[0.9, 0.999\]"):
        train(other, size="tiny", epochs=1, device="cpu", out=tmp_path, resume=True)


def test_a_run_that_diverges_is_recorded(tmp_path: Path) -> None:
    recipe = get("gan")
    wild = replace(recipe, settings=lambda size, data: replace(settings(size, data), learning_rate=1e30))
    run = train(wild, strategy="none", size="tiny", epochs=2, device="cpu", out=tmp_path)
    assert np.isnan(run.rows[-1]["frechet"]) and np.isnan(run.rows[-1]["largest_share"])
    assert "no dropout diverged (loss not finite) in 1 of 1 seed." in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)["last"]["frechet"] is None


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
def test_precision_changes_the_arithmetic(tmp_path: Path, precision: str) -> None:
    first, other = (tiny(tmp_path / name, epochs=1, precision=name) for name in ("32-true", precision))
    assert other.rows[0]["generator_loss"] != first.rows[0]["generator_loss"]
    assert other.rows[0]["generator_loss"] == pytest.approx(first.rows[0]["generator_loss"], rel=0.05)


def test_importing_the_recipe_loads_no_framework() -> None:
    code = (
        "import sys, dropkit.lab.recipes.gan; sys.exit(bool({'torch', 'sklearn', 'scipy', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
