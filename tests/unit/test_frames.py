"""Frames and videos: one conversion each way, and the distances between clips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from opensora_demo.frames import to_frames, to_video
from opensora_demo.metrics import pairwise_rms, psnr, psnr_of


def test_every_byte_comes_back() -> None:
    clip = np.arange(2 * 8 * 16 * 3, dtype=np.int64).astype(np.uint8).reshape(2, 8, 16, 3)
    assert len(np.unique(clip)) == 256
    video = to_video(clip[None])
    assert video.shape == (1, 3, 2, 8, 16)
    assert (video.min(), video.max()) == (-1, 1)
    assert (to_frames(video[0]) == clip).all()


def test_a_read_only_picture_is_copied() -> None:
    clip = np.zeros((1, 1, 2, 2, 3), np.uint8)
    clip.flags.writeable = False
    to_video(clip).add_(1)
    assert clip.max() == 0


def test_the_nearest_byte_is_taken_and_what_is_outside_is_cut() -> None:
    levels = torch.tensor([0.4, 0.6, 127.5, 254.4, 254.6])
    values = torch.cat([levels / 127.5 - 1, torch.tensor([-3.0, 3.0])]).expand(3, 1, 1, 7)
    assert to_frames(values)[0, 0, :, 0].tolist() == [0, 1, 128, 254, 255, 0, 255]


def test_psnr() -> None:
    a = np.full((2, 3), 100, np.uint8)
    assert psnr(a, a) == math.inf
    assert psnr(a, a + 10) == pytest.approx(10 * math.log10(255**2 / 100))
    assert psnr(a + 10, a) == psnr(a, a + 10)  # no wrapping around of bytes
    assert psnr_of(0.01, span=2) == pytest.approx(psnr_of(0.01 * 127.5**2))


def test_pairwise_distance() -> None:
    clip = np.zeros((2, 4, 4, 3), np.uint8)
    assert pairwise_rms([clip, clip, clip]) == 0
    assert pairwise_rms([clip, np.full_like(clip, 255)]) == 1
    assert pairwise_rms([clip, clip, np.full_like(clip, 255)]) == pytest.approx(2 / 3)
