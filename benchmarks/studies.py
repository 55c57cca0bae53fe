"""The studies behind docs/studies.md, one command each; losing arms stay in the tables.

    python benchmarks/studies.py                     # lists them, with what each takes
    python benchmarks/studies.py order --data-dir DIR

A study trains its arms over paired seeds through `dropkit.lab.compare`, so that it can be stopped and continued; its
folder (runs/studies/NAME) holds every run, the table, the verdict and the report. One thread each, so that its figures
do not depend on the number of cores, and two studies can run side by side.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import placement
import robustness
from study import ORDER, Study

QUARTER = {"channels": (16, 32, 64, 128, 128), "hidden": (1024, 1024), "evaluated": 5_000}
TENTH = {"channels": (6, 13, 26, 51, 51), "hidden": (410, 410), "evaluated": 2_000}
FEW = {"train_samples": 10_000, "test_samples": 5_000}


STUDIES: dict[str, Study | Callable[..., None]] = {
    "gan": Study(
        "Does dropout in the discriminator balance a GAN, at its tutorial's settings?",
        "three quarters of an hour",
        {"gan-functional": ("none", "fixed:0.1", "fixed:0.3", "fixed:0.5")},
        "mnist",
        seeds=5,
        epochs=3,
    ),
    "order": ORDER,
    "decay-or-dropout": Study(
        "Weight decay or dropout, where a network over-fits?",
        "five minutes",
        {"mlp-functional": ("none", "fixed", "fixed:0.5", "weight-decay:0.0001", "weight-decay:0.001")},
        "fashion-mnist",
        seeds=3,
        epochs=30,
        changed={"train_samples": 5_000, "evaluated": 5_000},
    ),
    "vgg": Study(
        "Does dropout after fc6 and fc7 help a VGG that over-fits?",
        "three and a half hours",
        {"vgg-adaptive": ("none", "fixed")},
        "cifar10",
        seeds=3,
        epochs=30,
        changed=QUARTER,
    ),
    "convolutions": Study(
        "Dropout after every convolution, of elements or of channels?",
        "three quarters of an hour",
        {
            "vgg-adaptive": ("none", "fixed"),
            "vgg-everywhere": ("fixed", "fixed:0.5"),
            "vgg-channels": ("fixed", "fixed:0.5"),
        },
        "cifar10",
        seeds=3,
        epochs=20,
        changed=TENTH | FEW,
    ),
    "placement": placement.run,
    "robustness": robustness.run,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """List the studies, or run one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", choices=sorted(STUDIES))
    parser.add_argument("--seeds", type=int, help="in place of the study's own")
    parser.add_argument("--data-dir", help="see `dropkit compare`")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=Path("runs/studies"))
    asked = parser.parse_args(arguments)
    if asked.study is None:
        for name, study in STUDIES.items():
            print(f"{name:17} {_question(study)}")
        return
    found = STUDIES[asked.study]
    if isinstance(found, Study):
        found.run(asked.out / asked.study, asked.seeds, asked.data_dir, asked.device)
    elif asked.device != "cpu":
        parser.error(f"{asked.study} runs on the CPU alone; leave --device {asked.device} out")
    else:
        found(asked.out / asked.study, asked.seeds, asked.data_dir)


def _question(study: Study | Callable[..., None]) -> str:
    if isinstance(study, Study):
        return f"{study.question} ({study.takes})"
    return (sys.modules[study.__module__].__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    main()
