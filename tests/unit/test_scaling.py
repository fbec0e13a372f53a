"""The scaling factor of latents: both conventions in every precision, their gradients, and one taken for the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from opensora_demo.codecs.base import Codec
from opensora_demo.codecs.dc_ae import DcAe, DcAeConfig
from opensora_demo.codecs.image_vae import ImageVAE, ImageVaeConfig
from opensora_demo.codecs.scaling import Convention, check_factor, latent_std
from opensora_demo.codecs.tiling import Tiling

STD = 4.38  # of nano-mmdit's raw latents


class Same(nn.Module):
    """An encoder or decoder that changes nothing, so that the factor is all that is left of a codec."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class MeanAndVariance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)], dim=1)


def divisor(std: float = STD) -> Codec:
    """A DC-AE, whose factor is the std."""
    cfg = DcAeConfig(
        latent_channels=3, widths=(4, 4), encoder_depths=(1, 1), decoder_depths=(1, 1), attention=(None, None),
        time=(False, False), scaling_factor=std, tiling=Tiling(),
    )  # fmt: skip
    codec = DcAe(cfg)
    codec.encoder, codec.decoder = Same(), Same()  # type: ignore[assignment]
    return codec


def multiplier(std: float = STD) -> Codec:
    """DiT's VAE, whose factor is 1 / std."""
    cfg = ImageVaeConfig(block_channels=(4,), layers_per_block=1, norm_groups=1, latent_scale=1 / std)
    codec = ImageVAE(cfg)
    codec.module.encoder, codec.module.quant_conv = Same(), MeanAndVariance()
    codec.module.decoder, codec.module.post_quant_conv = Same(), Same()
    return codec


BOTH = pytest.mark.parametrize("build", [divisor, multiplier])
# What the mean relative error of a round trip lies between. Measured (2026-11-29), both conventions: 5.3e-5 in float16
# and 4.0e-4 in bfloat16, where 7 to 8 of 100 numbers come back with another last digit; at most 3e-9 in float32.
ROUNDING = {torch.float32: (0.0, 1e-8), torch.float16: (2e-5, 1e-4), torch.bfloat16: (2e-4, 1e-3)}


def raw(dtype: torch.dtype) -> Tensor:
    return (STD * torch.randn(1, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0))).to(dtype)


@BOTH
@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_round_trip_is_rounding_in_every_precision(build: type[Codec], dtype: torch.dtype) -> None:
    codec, x = build(), raw(dtype)
    z = codec.encode(x)
    assert z.dtype == dtype
    assert latent_std(z) == pytest.approx(1, abs=0.03)
    back = codec.decode(z, 2)
    assert back.dtype == dtype
    error = float(((back.double() - x.double()).abs() / x.double().abs()).mean())
    least, most = ROUNDING[dtype]
    assert least <= error < most


@pytest.mark.parametrize("dtype", ROUNDING)
def test_the_conventions_agree_to_the_last_digits(dtype: torch.dtype) -> None:
    x = raw(dtype)
    a, b = divisor().encode(x), multiplier().encode(x)
    exact = x.double() / STD
    last_digit = torch.finfo(dtype).eps
    assert float(((a.double() - b.double()).abs() / exact.abs()).max()) <= 2 * last_digit
    if dtype != torch.float32:  # a factor is a Python number here: neither is rounded to the latents' precision first
        assert torch.equal(a, exact.to(dtype))


@BOTH
def test_gradients_carry_the_factor_once(build: type[Codec]) -> None:
    """d encode / d x = 1 / std, d decode / d z = std, whichever way they are written; through both it is 1."""
    codec = build()
    x = raw(torch.float32).requires_grad_()
    encoded = codec.encode(x)
    (grad,) = torch.autograd.grad(encoded.sum(), x, retain_graph=True)
    torch.testing.assert_close(grad, torch.full_like(x, 1 / STD))
    z = torch.randn_like(x).requires_grad_()
    (grad,) = torch.autograd.grad(codec.decode(z, 2).sum(), z)
    torch.testing.assert_close(grad, torch.full_like(x, STD))
    (grad,) = torch.autograd.grad(codec.decode(encoded, 2).sum(), x)
    torch.testing.assert_close(grad, torch.ones_like(x))


def test_the_std_is_measured_in_float32() -> None:
    x = raw(torch.float32)
    assert latent_std(x) == pytest.approx(STD, rel=0.02)
    assert latent_std((40 * x).half()) == pytest.approx(40 * latent_std(x), rel=0.01)  # squares that half cannot hold


@pytest.mark.parametrize(
    ("factor", "std", "convention"),
    [(4.3, 4.38, "divisor"), (0.18215, 5.5, "multiplier"), (1.0, 1.0, "divisor"), (1.0, 1.3, "multiplier")],
)
def test_a_factor_that_fits_passes(factor: float, std: float, convention: Convention) -> None:
    check_factor(factor, std, convention)


@pytest.mark.parametrize(
    ("factor", "std", "convention", "sentence"),
    [
        (0.18215, 4.38, "divisor", r"0\.18215 looks like a multiplier .*takes a divisor: 4\.38 for"),
        (4.3, 4.38, "multiplier", r"4\.3 looks like a divisor .*takes a multiplier: 0\.2283 for"),
        (20.0, 4.38, "divisor", r"does not fit .*the divisor would be 4\.38"),
        (0.9, 0.2, "divisor", r"does not fit .*the divisor would be 0\.2"),
        (0.0, 4.38, "divisor", "positive"),
        (-4.3, 4.38, "divisor", "positive"),
    ],
)
def test_a_factor_of_the_other_convention_is_told(
    factor: float, std: float, convention: Convention, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_factor(factor, std, convention)
