"""The reference-like networks say what ours say; what `make bench` compares, counts and writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.baseline.arithmetic import attention, group_norm, layer_norm
from benchmarks.baseline.mmdit import mmdit
from benchmarks.baseline.stdit import stdit2, stdit3
from benchmarks.baseline.vae import hunyuan_decode, image_vae_decode, video_vae_decode
from benchmarks.bench import PARTS, main, measure, parts_of
from benchmarks.bench_models import stdit3_case
from benchmarks.bench_server import Programs
from benchmarks.pairs import Clocks, Matmul, Others, Ratio, Speed, Took, alternate, median_s, ratio, speed
from benchmarks.report import BEGIN, END, Report, Row, write
from opensora_demo.catalog import find_model
from opensora_demo.models.mmdit import MMDiTConfig
from opensora_demo.runtime.bundle import ModelBundle, build_bundle
from opensora_demo.runtime.cost.counter import Counter
from opensora_demo.weights.reading import random_module

CLOSE = 1e-4  # of the largest number
STUB = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Page(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""


@cache
def bundle(model_id: str) -> ModelBundle:
    return build_bundle(find_model(model_id))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def off(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    assert ours.shape == reference.shape
    return float((ours - reference).abs().max() / ours.abs().max())


# --- the same numbers


@pytest.mark.parametrize("model_id", ["debug-1.1", "debug-1.2", "nano"])
@pytest.mark.parametrize("packed", [False, True], ids=["alike", "packed"])
@torch.inference_mode()
def test_networks_that_read_by_cross_attention(model_id: str, packed: bool) -> None:
    """With real prompts: what is no text at all drives a trained network where rounding grows."""
    loaded = bundle(model_id)
    net: Any = loaded.family.network
    assert loaded.t5 is not None
    text = loaded.t5(["a red ball bouncing on a meadow", "a blue star"])
    x, y = draw(2, net.cfg.in_channels, 3, 5, 6), text.y
    lengths = text.lengths if packed else None
    told: dict[str, Any] = {"fps": torch.tensor([8.0, 24.0]), "height_px": 64.0, "width_px": 96.0}
    reference: Callable[..., Tensor] = stdit3
    if model_id == "debug-1.1":
        told |= {"frames": torch.tensor([8.0, 16.0]), "aspect": 1.5}
        reference = stdit2
    time = torch.tensor([900.0, 30.0])
    ours = net(x, time, net.project_text(y, lengths), **told)
    assert off(ours, reference(net, x, time, y, lengths, **told)) < CLOSE


@pytest.mark.parametrize("fused", [False, True], ids=["2.0", "Flux"])
@torch.inference_mode()
def test_mmdit(fused: bool) -> None:
    net: Any = bundle("debug-2.0").family.network
    if fused:
        config = MMDiTConfig(
            width=48, heads=3, depth=1, depth_single=1, axes=(4, 6, 6), text_channels=32, pooled_channels=24,
            fused_qkv=True, rotate_halves=False, cond_embed=False,
        )  # fmt: skip
        net = random_module(config.build, 3)
    channels = net.cfg.latent_channels
    x, y, pooled = draw(2, channels, 3, 4, 6), draw(2, 7, 32, seed=1), draw(2, 24, seed=2)
    cond = None if fused else draw(2, 1 + channels, 3, 4, 6, seed=3)
    time = torch.tensor([0.9, 0.1])
    assert off(net(x, time, y, pooled, cond=cond), mmdit(net, x, time, y, pooled, cond=cond)) < CLOSE


@pytest.mark.parametrize(
    ("model_id", "decode", "frames"),
    [
        ("debug-1.1", lambda codec, z, _: image_vae_decode(codec, z), 5),
        ("debug-1.2", video_vae_decode, 34),
        ("nano", video_vae_decode, 17),
        ("debug-2.0", hunyuan_decode, 9),
    ],
)
@torch.inference_mode()
def test_codecs(model_id: str, decode: Callable[..., Tensor], frames: int) -> None:
    codec = bundle(model_id).codec
    z = draw(1, codec.latent_channels, *codec.latent_size(frames, 32, 48))
    assert off(codec.decode(z, frames), decode(codec, z, frames)) < CLOSE


def test_what_the_reference_does_not_know_is_refused() -> None:
    net: Any = random_module(MMDiTConfig(width=48, heads=3, depth=0, depth_single=0, axes=(4, 6, 6),
                                         guidance_embed=True).build, 0)  # fmt: skip
    with pytest.raises(ValueError, match="branches"):
        mmdit(net, draw(1, 16, 1, 2, 2), torch.ones(1), draw(1, 1, 4096), draw(1, 768))
    with pytest.raises(ValueError, match="tile"):
        hunyuan_decode(bundle("debug-2.0").codec, draw(1, 16, 1, 40, 40), 1)


def test_the_pieces_against_torch() -> None:
    x = draw(2, 8, 5)
    assert off(torch.nn.functional.layer_norm(x, (5,), eps=1e-6), layer_norm(x)) < 1e-5
    norm = torch.nn.GroupNorm(4, 8, eps=1e-5)
    with torch.no_grad():
        norm.weight.copy_(draw(8, seed=1))
        assert off(norm(x), group_norm(norm, x)) < 1e-5
    q, k, v = draw(1, 2, 3, 4), draw(1, 2, 6, 4, seed=1), draw(1, 2, 6, 4, seed=2)
    mask = torch.rand(1, 1, 3, 6, generator=torch.Generator().manual_seed(0)) < 0.7
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert off(whole, attention(q, k, v, mask)) < 1e-5


@torch.inference_mode()
def test_the_reference_computes_more_and_holds_more() -> None:
    """Counted, not measured: text at every call, and scores in memory."""
    net: Any = bundle("debug-1.2").family.network
    case = stdit3_case("small", net, (3, 8, 8), 8)
    found = []
    for call in (case.ours, case.reference, case.alone):
        assert call is not None
        with Counter() as counter:
            call()
        found.append((counter.flops, counter.peak_bytes))
    ours, reference, alone = found
    assert reference[0] > ours[0] > 1.9 * alone[0]
    assert reference[1] > ours[1] > alone[1]


# --- taking turns


class FakeClock:
    """Goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_takes_turns_is_compared_within_rounds() -> None:
    clock, order = FakeClock(), list[str]()
    noise = iter((1.0, 1.0, 5.0, 5.0, 2.0, 2.0, 1.0, 1.0, 3.0, 3.0))  # of a round, the same for both

    def runs(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            order.append(name)
            clock.now += seconds * next(noise)

        return call

    times = alternate(
        {"slow": runs("slow", 3.0), "fast": runs("fast", 2.0)},
        rounds=5,
        limit_s=1e9,
        clocks=Clocks(wall=clock, cpu=clock),
    )
    assert order[:6] == ["slow", "fast", "fast", "slow", "slow", "fast"]
    assert [took.wall for took in times["slow"]] == [3.0, 15.0, 6.0, 3.0, 9.0]
    assert ratio(times["slow"], times["fast"]) == Ratio(median=1.5, low=1.5, high=1.5, rounds=5, cpu=1.5)
    assert median_s(times["fast"]) == 4.0


def test_rounds_end_with_the_time_that_there_is() -> None:
    clock, ended = FakeClock(), list[float]()

    def call() -> Callable[[], None]:
        clock.now += 10.0

        def after() -> None:
            ended.append(clock.now)
            clock.now += 5.0  # is not timed, and counts for the limit

        return after

    times = alternate({"one": call}, rounds=9, limit_s=50.0, clocks=Clocks(wall=clock, cpu=clock))
    assert [took.wall for took in times["one"]] == [10.0] * 3
    assert ended == [10.0, 25.0, 40.0]
    assert len(alternate({"one": call}, rounds=9, limit_s=0.0, clocks=Clocks(wall=clock, cpu=clock))["one"]) == 1


def test_a_range_leaves_out_the_ends_of_many() -> None:
    one = [Took(wall=1.0, cpu=0.0)]
    many = [Took(wall=float(n), cpu=0.0) for n in (9, 1, 2, 3, 4)]
    assert ratio(many, 5 * one) == Ratio(median=3.0, low=2.0, high=4.0, rounds=5, cpu=None)
    assert ratio(many[:2], 2 * one) == Ratio(median=5.0, low=1.0, high=9.0, rounds=2, cpu=None)


def test_the_share_of_the_peak_is_of_the_same_rounds() -> None:
    matmul = Matmul(side=8, times=2)
    assert matmul.flops == 2 * 2 * 8**3
    matmul()
    assert off(matmul.a @ matmul.b, matmul.out) < 1e-5
    took = [Took(wall=1.0, cpu=1.0), Took(wall=2.0, cpu=2.0)]
    peak = [Took(wall=0.5, cpu=0.5), Took(wall=1.0, cpu=1.0)]
    assert speed(3e9, took, peak, 3e9) == Speed(flops=3e9, gflops=2.0, of_peak=0.5)


# --- what is written


def small_report() -> Report:
    found = Ratio(median=1.5, low=1.25, high=2.0, rounds=7, cpu=1.4)
    told: dict[str, object] = {"processor": "A processor", "cores": 2, "threads": 2, "memory_gb": 8.0}
    report = Report(date="2026-11-30", machine=told | {"torch": "2.13.0", "python": "3.11.7"})
    report.rows = [
        Row(group="models", name="a net", value=1.25, unit="s", of="reference / ours", ratio=found,
            speed=Speed(flops=2e11, gflops=160.0, of_peak=0.8)),
        Row(group="visitors", name="4 visitors", value=3600.0, unit="an hour", of="as for one",
            ratio=Ratio(median=1.0, low=0.9, high=1.1, rounds=3, cpu=None)),
    ]  # fmt: skip
    report.peak_gflops, report.took_s, report.others_share = 200.0, 400.0, 0.25
    report.peaks = {"a net": {"ours_mb": 10.0, "reference_mb": 25.0}}
    report.memory, report.left_out = {"the server": 1234.5}, ["bfloat16: no instructions"]
    return report


def test_the_tables_stand_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"Before.\n\n{BEGIN}\nstale numbers\n{END}\n\nAfter.\n")
    report = small_report()
    write(report, page)
    write(report, page)  # once more, and nothing grows
    text = page.read_text()
    assert text.startswith(f"Before.\n\n{BEGIN}\n2026-11-30; A processor, 2 cores")
    assert text.endswith(f"Left out: bfloat16: no instructions.\n{END}\n\nAfter.\n")
    assert "stale" not in text
    assert "Meanwhile other programs took 25 % of the processors' time." in text
    lines = text.splitlines()
    assert "| a net | 1.25 s | 1.5 | reference / ours | 1.25 to 2 | 1.4 | 7 | 200 | 160 | 80 % |" in lines
    assert "| 4 visitors | 3,600 an hour | 1 | as for one | 0.9 to 1.1 | 3 |" in lines
    assert "| a net | 10.0 | 25.0 | 2.5 |" in lines
    assert json.loads(page.with_suffix(".json").read_text()) == report.to_json()


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("Nothing.\n")
    with pytest.raises(ValueError, match="no place"):
        write(small_report(), page)
    assert page.read_text() == "Nothing.\n"


def test_the_document_says_what_was_measured_last() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    said = (docs / "performance.md").read_text("utf-8")
    found = json.loads((docs / "performance.json").read_text())
    assert not found["quick"]
    for row in found["rows"]:
        assert f"| {row['name']} | " in said
        assert f" | {row['ratio']['median']:.3g} | {row['of']} | " in said
    assert found["date"] in said
    assert str(found["machine"]["processor"]) in said


# --- the program


def test_what_others_do_is_no_more_than_all() -> None:
    others = Others()
    share = others.share()
    assert share is None or 0 <= share <= 1
    others.busy, others.began = None, 0.0
    assert others.share() is None  # where the system does not say


def test_parts_have_an_order() -> None:
    assert parts_of("page, models") == ("models", "page")
    with pytest.raises(SystemExit):
        main(["--only", "everything"])


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """A page that answers everything at once in place of the real one."""
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    return Programs(page=(sys.executable, str(stub)), bare=(sys.executable, "-c", "pass"))


@pytest.mark.thorough
def test_a_quick_run_fills_every_field(programs: Programs) -> None:
    report = measure(PARTS, quick=True, programs=programs)
    found = report.to_json()
    assert {row["group"] for row in found["rows"]} == set(PARTS)
    names = [row["name"] for row in found["rows"]]
    assert len(names) == len(set(names))
    assert {"nano, a step, guidance 7", "nano, a step, guidance 1", "nano, decoding"} <= set(names)
    wanted = {"click to clip", "text", "denoising, 2 steps", "decoding", "writing the mp4", "first picture"}
    assert wanted | {"four scales of guidance", "to a page that answers", "to a model that is loaded"} <= set(names)
    assert {"1 visitor", "4 visitors at once", "16 visitors at once"} <= set(names)
    for row in found["rows"]:
        assert row["value"] > 0, row["name"]
        assert row["ratio"]["rounds"] == 1
        assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    speeds = {row["name"]: row["speed"] for row in found["rows"] if row["speed"]}
    assert set(speeds) == {"nano, a step, guidance 7", "nano, decoding"}
    assert all(speed["flops"] > 1e8 and speed["of_peak"] > 0 for speed in speeds.values())
    assert set(found["peaks"]) == {"nano, a step", "nano, decoding"}
    assert found["peak_gflops"] > 0
    assert found["memory"]["the server, most of all"] > 1
    assert found["machine"].keys() >= {"processor", "cores", "threads", "memory_gb", "torch", "python"}
    assert found["took_s"] > 0
    assert json.loads(json.dumps(found)) == found
    for row in report.rows:
        assert row.name in report.tables()
