"""Log probabilities from a model's logits, on the host. For engines that hand logits out.

Imports numpy: the adapters import it when they start.
"""

import math
from typing import Any

import numpy as np

from workers.engine import Logprob

_LEAST = -9999.0  # of a token that cannot come: JSON has no minus infinity


def logprob_of(logits: Any, token_id: int, num_top: int) -> Logprob:
    """That of a token, and the `num_top` likeliest ones, by the model's own logits: float32, one for each id."""
    shifted = logits - logits.max()
    total = math.log(np.exp(shifted).sum(dtype=np.float64))
    top = np.argpartition(shifted, -num_top)[-num_top:] if num_top else ()
    likeliest = sorted(((int(each), _bounded(shifted[each], total)) for each in top), key=lambda pair: (-pair[1], pair))
    return _bounded(shifted[token_id], total), tuple(likeliest)


def _bounded(shifted: Any, total: float) -> float:
    return max(float(shifted) - total, _LEAST)
