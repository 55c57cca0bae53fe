"""One launch for each number of processes; later ones resume from what earlier ones saved."""

import pytest
import torch

from .launch import Report, launch

RANKS = (4, 2, 1)


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Report]:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    folder = tmp_path_factory.mktemp("ranks")
    return {ranks: launch(ranks, folder) for ranks in RANKS}
