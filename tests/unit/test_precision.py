"""Half precision in training is used where this processor is faster with it."""

from __future__ import annotations

import pytest
import torch

from opensora_demo.training import precision
from opensora_demo.training.muon import orthogonalise


@pytest.mark.parametrize("wins", [True, False])
def test_training_multiplies_in_what_is_faster(monkeypatch: pytest.MonkeyPatch, wins: bool) -> None:
    seconds = {torch.float32: 2.0 if wins else 1.0, torch.bfloat16: 1.0 if wins else 50.0}
    monkeypatch.setattr(precision, "_product_s", seconds.__getitem__)
    precision.bfloat16_wins.cache_clear()
    try:
        layer = torch.nn.Linear(4, 4)
        with precision.half_precision("cpu"):
            assert layer(torch.zeros(1, 4)).dtype == (torch.bfloat16 if wins else torch.float32)
        with precision.half_precision("cpu", enabled=False):
            assert layer(torch.zeros(1, 4)).dtype == torch.float32
        q = orthogonalise(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
        assert q.dtype == torch.float32
        assert torch.linalg.svdvals(q).sub(1).abs().max() < 0.4
        in_bfloat16 = q.bfloat16().float().equal(q)
        assert in_bfloat16 == wins
    finally:
        precision.bfloat16_wins.cache_clear()
