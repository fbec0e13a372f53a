"""The posterior of a variational codec."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Posterior(NamedTuple):
    """The diagonal Gaussian N(mean, exp(log_variance)) of latents (b, c, t, h, w)."""

    mean: Tensor
    log_variance: Tensor

    def float(self) -> Posterior:
        return Posterior(self.mean.float(), self.log_variance.float())

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None) -> Tensor:
        """One draw; the noise is drawn on the CPU. Raises ValueError without a generator."""
        if generator is None:
            raise ValueError("a draw from the posterior needs a generator")
        return sample_gaussian(self.mean, self.log_variance, generator)

    def kl(self) -> Tensor:
        """KL(N(mean, variance) | N(0, 1)) in float32, the mean over elements."""
        mean, log_variance = self.float()
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def sample_gaussian(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None) -> Tensor:
    """One draw of N(mean, exp(log_variance)); the mean itself without a generator. Noise is drawn on the CPU."""
    if generator is None:
        return mean
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32).to(mean)
    return mean + torch.exp(0.5 * log_variance) * noise
