"""What is wrong with a model's dropout: a model is run, and what was measured is judged by the rules."""

from collections.abc import Collection
from typing import Any

from ...finding import Finding as Finding
from .rules import RULES as RULES
from .rules import Findings as Findings
from .rules import check_codes as check_codes
from .rules import findings as findings


def doctor(model: Any, *inputs: Any, ignore: Collection[str] = (), **kwargs: Any) -> Findings:
    """Run a model as `dropkit.explain` does, and tell what about its dropout is likely not meant.

    Args:
        model: of torch or Keras, in the modes in which it is trained: frozen parts are judged by them.
        inputs, kwargs: what it takes; a batch as in training, since variances are measured on it.
        ignore: codes that are not looked for.

    Returns:
        Findings, in the order of their codes: a tuple that prints as text, `()` for a healthy model. The model is as
        before.

    Raises:
        UnknownNameError: a code that there is not.
        The errors of `dropkit.explain`.

    >>> import torch, dropkit
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Dropout(0.8), torch.nn.Linear(64, 2))
    >>> for finding in dropkit.doctor(net, torch.ones(4, 8)):
    ...     print(finding)
    DK115 1: rate of 0.6 or more
      measured: p = 0.8: 20 % are kept, and scaled by 5
      remedy: Pass 0.2 if 0.8 was meant as the share to keep: `dropkit.torch.set_rate(model, "1", 0.2)`.
      docs/doctor.md#dk115
    """
    from .. import explain

    check_codes(ignore)
    return findings(explain(model, *inputs, **kwargs), ignore)
