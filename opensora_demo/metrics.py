"""How near clips are to one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opensora_demo.request.video import Frames


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Peak signal to noise ratio of values in 0..255, dB; infinite where they are equal."""
    return psnr_of(float(np.mean((a.astype(np.float64) - b) ** 2)))


def psnr_of(error: float, span: float = 255) -> float:
    """The PSNR, dB, of a mean squared error of values that reach over `span`: 10 log10(span^2 / error)."""
    return math.inf if error == 0 else 10 * math.log10(span**2 / error)


def rms_distances(clips: Sequence[Frames]) -> NDArray[np.float64]:
    """RMS distance, 0..1 of the range, of every clip (t, h, w, 3) from every other: (n, n). They have one shape."""
    values = [clip.astype(np.float32) / 255 for clip in clips]
    table = np.zeros((len(clips), len(clips)))
    for i, j in combinations(range(len(clips)), 2):
        table[i, j] = table[j, i] = np.sqrt(np.mean((values[i] - values[j]) ** 2))
    return table


def pairwise_rms(clips: Sequence[Frames]) -> float:
    """Mean RMS distance, 0..1 of the range, between every two of the clips (t, h, w, 3), which have one shape."""
    return float(np.mean(rms_distances(clips)[np.triu_indices(len(clips), 1)]))


def shrunk(clip: Frames, side_px: int = 64) -> Frames:
    """A clip (t, h, w, 3) whose shorter side is about `side_px` at least: means of squares of whole pixels."""
    t, h, w, c = clip.shape
    k = max(min(h, w) // side_px, 1)
    blocks = clip[:, : h // k * k, : w // k * k].reshape(t, h // k, k, w // k, k, c)
    return clip if k == 1 else (blocks.mean((2, 4)) + 0.5).astype(np.uint8)


def jackknife_error(mean_without: Sequence[float]) -> float | None:
    """Standard error of a statistic of n samples from its n values with one of them left out; None of fewer than two.

    Of a mean it is the sample's standard deviation / sqrt(n). Source: Efron and Stein, The jackknife estimate of
    variance, 1981, equation 1.2.
    """
    n = len(mean_without)
    return (
        None if n < 2 else float(np.sqrt((n - 1) / n * np.sum((np.asarray(mean_without) - np.mean(mean_without)) ** 2)))
    )
