"""The scaling factor of latents: two conventions for one division by their standard deviation.

A divisor is the standard deviation itself: encode divides by it, decode multiplies (Open-Sora's DC-AE; the `scale` of
1.2, the std of 1.3, nano's). A multiplier is its inverse: encode multiplies, decode divides (DiT's 0.18215, which 1.0,
1.1 and the 2-D stage of 1.2 take; Hunyuan's 0.476986). The results are the same but for rounding.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

Convention = Literal["divisor", "multiplier"]
MOST_OFF = 2.0  # how many times too large or too small a factor may be


def latent_std(latents: Tensor) -> float:
    """Standard deviation over all numbers of raw latents, those before any factor, in float32."""
    return float(latents.float().std())


def check_factor(factor: float, std: float, convention: Convention) -> None:
    """A factor must give latents of standard deviation `std` about unit variance.

    Raises ValueError for one of the other convention, and for one that is off by more than MOST_OFF.
    """
    if factor <= 0 or std <= 0:
        raise ValueError(f"a scaling factor and a standard deviation are positive, not {factor} and {std}")
    right = std if convention == "divisor" else 1 / std
    off, off_inverted = abs(math.log(factor / right)), abs(math.log(factor * right))
    if max(off, off_inverted) > math.log(MOST_OFF) and off_inverted < off:
        other = "multiplier" if convention == "divisor" else "divisor"
        raise ValueError(
            f"the scaling factor {factor:g} looks like a {other} (about {1 / right:.4g}), and this codec takes a "
            f"{convention}: {right:.4g} for latents of standard deviation {std:.4g}"
        )
    if off > math.log(MOST_OFF):
        raise ValueError(
            f"the scaling factor {factor:g} does not fit latents of standard deviation {std:.4g}: the {convention} "
            f"would be {right:.4g}"
        )
