"""What training asks of a network beside the plain loss, and what its captions are like."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from opensora_demo.catalog.nano import NANO, NETWORK, TEXT
from opensora_demo.evaluation.adherence import Trial, held_out_prompts
from opensora_demo.families.adapters.stdit3 import STDiT3Adapter
from opensora_demo.families.stdit import STDiTFamily
from opensora_demo.models.stdit3 import STDiT3, Watched
from opensora_demo.sampling.rectified_flow import sample
from opensora_demo.sampling.step import Prediction
from opensora_demo.toy.captions import SHAPE_WORDS, build_tokenizer, caption, caption_with_spans
from opensora_demo.toy.captions_zh import SHAPES as SHAPES_ZH
from opensora_demo.toy.rendering import object_share
from opensora_demo.toy.spans import mark, read_marks
from opensora_demo.toy.worlds import Scene, render, render_objects, sample_scene
from opensora_demo.training import ladder
from opensora_demo.training.export import save_shards
from opensora_demo.training.loop import LoopConfig, finished, learning_rate, load_ema, train
from opensora_demo.training.muon import Muon
from opensora_demo.training.train_network import (
    Captions,
    Objective,
    STDiT3Job,
    TextToVideo,
    alignment_loss,
    grounding_loss,
    nearest_noise,
    object_words,
    patch_share,
    room_share,
)

TINY = replace(
    NANO,
    network=replace(NETWORK, width=32, depth=2, heads=2, text_channels=32),
    text=replace(TEXT, width=32, layers=1, heads=2, head_width=16, hidden=32),
)


def tiny_job(folder: Path, **changes: object) -> STDiT3Job:
    build_tokenizer(str(folder / "tokenizer.json"))
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, pairs=0.5) for _ in range(8)]
    (folder / "0000.json").write_text(json.dumps([asdict(s) for s in scenes]))
    np.save(folder / "0000.npy", rng.normal(size=(8, 16, 5, 8, 8)).astype(np.float16))
    shares = [object_share(render_objects(s)[1], (5, 8, 8)) for s in scenes]
    np.save(folder / "0000.masks.npy", np.stack(shares))
    torch.manual_seed(0)
    zero, one = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    options: dict[str, object] = {"batch": 4, "short_share": 0.0, "bfloat16": False, **changes}
    spec = options.pop("spec", TINY)
    return STDiT3Job(spec, folder / "tokenizer.json", folder, zero, one, **options)  # type: ignore[arg-type]


# --- captions --------------------------------------------------------------------------------------------------------


def test_marks_are_taken_out_of_a_caption() -> None:
    text, spans = read_marks("we see " + mark("a red ball", "right") + " and " + mark("two stars", "left", both=True))
    assert text == "we see a red ball and two stars"
    assert [(text[s.start : s.end], s.index) for s in spans] == [("a red ball", 1), ("two stars", 0), ("two stars", 1)]
    assert mark("", "left") == ""


@pytest.mark.parametrize("chinese", [0.0, 1.0])
def test_the_words_about_an_object_name_its_shape_and_nothing_of_the_other(chinese: float) -> None:
    words = SHAPES_ZH if chinese else SHAPE_WORDS
    rng, named = np.random.default_rng(3), 0
    for _ in range(300):
        scene = sample_scene(rng, pairs=0.7)
        text, spans = caption_with_spans(scene, rng, chinese=chinese)
        for index, thing in enumerate(scene.objects):
            about = [text[s.start : s.end] for s in spans if s.index == index]
            assert any(word in part for part in about for word in words[thing.shape]), (text, about)
            others = [o for o in scene.objects if o.shape != thing.shape]
            named += len(others)
            for other in others:
                long = [w for w in words[other.shape] if not any(w in mine for mine in words[thing.shape])]
                own = " ".join(about)
                for word in words[thing.shape]:
                    own = own.replace(word, "")
                assert not any(f" {word} " in f" {own} " for word in long if " " not in word and not chinese), text
    assert named > 100


def test_spans_change_no_caption() -> None:
    scenes = [sample_scene(np.random.default_rng(i), pairs=0.5) for i in range(50)]
    plain = [caption(s, np.random.default_rng(i), chinese=0.3) for i, s in enumerate(scenes)]
    spanned = [caption_with_spans(s, np.random.default_rng(i), chinese=0.3)[0] for i, s in enumerate(scenes)]
    assert plain == spanned
    assert not any("\ue000" <= character <= "\ue003" for text in plain for character in text)


def test_foreign_captions_are_another_clips() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(400)]
    own, _ = Captions(chinese=0.0).draw(scenes, np.random.default_rng(1))
    mixed, spans = Captions(chinese=0.0, foreign=0.25).draw(scenes, np.random.default_rng(1))
    moved = [i for i, (a, b) in enumerate(zip(own, mixed, strict=True)) if a != b]
    assert 70 < len(moved) < 130  # 100 expected, 8.7 standard deviation
    assert all(mixed[i] in own and spans[i] == () for i in moved)


def test_incomplete_captions_leave_more_out() -> None:
    scenes = [sample_scene(np.random.default_rng(i)) for i in range(400)]
    full, _ = Captions(omit=0.0, chinese=0.0).draw(scenes, np.random.default_rng(1))
    short, _ = Captions(omit=0.0, chinese=0.0, incomplete=1.0).draw(scenes, np.random.default_rng(1))
    assert np.mean([len(t) for t in short]) < 0.8 * np.mean([len(t) for t in full])


# --- where objects are -----------------------------------------------------------------------------------------------


def test_the_share_of_a_cell_that_an_object_covers() -> None:
    alpha = np.zeros((1, 17, 64, 64), np.uint8)
    alpha[:, 0, :8, :8] = 255  # the first cell in the first frame, which is a latent frame of its own
    alpha[:, 1:3, 32:36, 56:64] = 255  # half of a cell in two frames of four
    share = object_share(alpha, (5, 8, 8))
    assert share.shape == (2, 5, 8, 8)
    assert (share[0, 0, 0, 0], share[0, 1, 4, 7]) == (255, 64)
    assert share.astype(int).sum() == 255 + 64
    patches = patch_share(torch.from_numpy(share)[None].float() / 255, (1, 2, 2))
    assert patches.shape == (1, 2, 5 * 16)
    assert patches[0, 0, 0] == 0.25
    assert float(patches[0, 0, 16 + 4 * 2 + 3]) == pytest.approx(64 / 255 / 4)


def test_an_object_is_where_its_mask_is() -> None:
    left = Scene(shape="ball", colour="red", motion="still", background="black", seed=1, room="left", size="large")
    scene = replace(left, companion=replace(left, room="right", seed=2))
    share = object_share(render_objects(scene)[1], (5, 8, 8)).astype(int)
    assert share[0, :, :, 4:].sum() == share[1, :, :, :4].sum() == 0
    assert min(share[0].sum(), share[1].sum()) > 2000


def test_words_of_an_object_become_tokens(tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    text, spans = read_marks(mark("a red ball", "left") + " next to " + mark("小蓝星", "right"))
    words = object_words(job.model.text, [text], [spans], 12)
    assert words[0, 0].nonzero().flatten().tolist() == [0, 1, 2]
    assert words[0, 1].nonzero().flatten().tolist() == [5, 6, 7]


# --- losses ----------------------------------------------------------------------------------------------------------


def test_attention_inside_the_object_costs_nothing() -> None:
    covered = torch.zeros(1, 2, 6)
    covered[0, 0, :2], covered[0, 1, 4:] = 0.6, 0.3
    words = torch.tensor([[[True, False, False], [False, True, False]]])
    inside = torch.zeros(1, 6, 3)
    inside[0, :2, 0] = inside[0, 4:, 1] = 1
    one = torch.ones(1)
    assert float(grounding_loss([inside, inside], words, covered, one)) == pytest.approx(0.0)
    swapped = inside[:, :, [1, 0, 2]]
    assert float(grounding_loss([swapped], words, covered, one)) == pytest.approx(1.0)
    even = torch.full((1, 6, 3), 1 / 3)
    assert float(grounding_loss([even], words, covered, one)) == pytest.approx((1 - 1 / 3) ** 2)
    assert float(grounding_loss([even], words & False, covered, one)) == 0
    hidden = covered.clone()
    hidden[0, 1] = 0  # an object out of sight asks nothing of its words
    assert float(grounding_loss([swapped], words, hidden, one)) == pytest.approx(1.0)
    assert float(grounding_loss([even], words & torch.tensor([[[False], [True]]]), hidden, one)) == 0


def test_each_of_two_objects_has_half_of_the_tokens() -> None:
    ball = Scene(shape="ball", colour="red", motion="spin", background="sea", room="bottom")
    two = replace(ball, companion=replace(ball, room="top"))
    lone = replace(ball, room="all")
    share = room_share([two, lone], (1, 2, 4)).unflatten(2, (2, 4))
    assert share[0, 0].tolist() == [[1] * 4, [0] * 4]  # the upper one comes first
    assert share[0, 1].tolist() == [[0] * 4, [1] * 4]
    assert share[1, 0].min() == 1


def test_an_encoder_that_can_read_stays_as_it_is(tmp_path: Path) -> None:
    first = tiny_job(tmp_path)
    file = tmp_path / "text.safetensors"
    save_shards(first.model.text.state_dict(), [file], {})
    job = tiny_job(tmp_path, text_weights=(file,))
    loss, _ = job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), 0)
    loss.backward()
    assert all(p.grad is None for p in job.model.text.parameters())
    assert any(p.grad is not None for p in job.model.dit.parameters())
    prompts = ["a red ball"]
    torch.testing.assert_close(job.model.text(prompts).y, first.model.text(prompts).y, atol=0.05, rtol=0.05)  # 8 bits


def test_a_clip_of_no_weight_does_not_count() -> None:
    covered = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]).expand(2, -1, -1)
    words = torch.tensor([[[True], [False]]]).expand(2, -1, -1)
    attention = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])  # right, wrong
    assert float(grounding_loss([attention], words, covered, torch.tensor([1.0, 0.0]))) == pytest.approx(0.0)
    assert float(grounding_loss([attention], words, covered, torch.tensor([1.0, 3.0]))) == pytest.approx(0.75)


def test_the_nearest_noise_is_nearest() -> None:
    x0 = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(5))
    drawn = torch.randn(4, 5, 2, 3, generator=torch.Generator().manual_seed(1))
    chosen = nearest_noise(x0, 4, torch.Generator().manual_seed(1))
    for i in range(5):
        distances = (drawn[:, i] - x0[i]).square().sum((1, 2))
        assert torch.equal(chosen[i], drawn[distances.argmin(), i])
    lone = nearest_noise(x0, 1, torch.Generator().manual_seed(1))
    assert torch.equal(lone, torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1)))


def test_alignment_looks_at_the_patch_of_its_token() -> None:
    x0 = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    tokens = torch.stack(
        [x0[:, :, t, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(1) for t in (0, 1) for i in (0, 1) for j in (0, 1)],
        dim=1,
    ).unflatten(1, (2, 4))
    assert float(alignment_loss(3 * tokens, x0, (1, 2, 2))) == pytest.approx(0.0, abs=1e-6)
    assert float(alignment_loss(-tokens, x0, (1, 2, 2))) == pytest.approx(2.0, abs=1e-6)


def test_watching_changes_nothing(tmp_path: Path) -> None:
    job = tiny_job(tmp_path)
    network = job.model.dit
    assert isinstance(network, STDiT3)
    for p in network.parameters():
        p.data += 0.05 * torch.randn_like(p)
    x, y = torch.randn(2, 16, 5, 8, 8), torch.randn(2, 6, 32)
    text = network.project_text(y, torch.tensor([6, 4]))
    options: dict[str, object] = {"fps": torch.full((2,), 8.0), "height_px": 128, "width_px": 128}
    watched = Watched()
    with torch.no_grad():
        plain = network(x, torch.full((2,), 500.0), text, **options)
        seen = network(x, torch.full((2,), 500.0), text, watched=watched, **options)
    torch.testing.assert_close(seen, plain, atol=1e-5, rtol=1e-4)
    assert [w.shape for w in watched.attention] == [(2, 80, 6)] * 4
    assert watched.middle is not None
    assert watched.middle.shape == (2, 5, 16, 32)
    for weights in watched.attention:
        torch.testing.assert_close(weights.sum(2), torch.ones(2, 80))
        assert weights[1, :, 4:].abs().sum() == 0  # padding


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks at it
@pytest.mark.thorough
def test_blocks_can_be_compiled_while_they_are_watched(tmp_path: Path) -> None:
    """One graph each: the list that takes the weights breaks none."""
    job = tiny_job(tmp_path, objective=Objective(grounding=1.0, alignment=1.0))

    def value() -> tuple[float, dict[str, float]]:
        loss, metrics = job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), 0)
        loss.backward()
        return float(loss.detach()), metrics

    plain, measured = value()
    for block in job.model.blocks():
        block.compile(backend="eager", fullgraph=True)
    compiled, again = value()
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert again == pytest.approx(measured, rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        (Objective(grounding=1.0), "grounding"),
        (Objective(rooms=1.0), "rooms"),
        (Objective(alignment=1.0), "alignment"),
    ],
)
@pytest.mark.thorough
def test_what_is_asked_beside_the_loss_is_learnt(objective: Objective, name: str, tmp_path: Path) -> None:
    job = tiny_job(tmp_path, objective=objective, batch=8, caption_dropout=0.0)
    optimiser = Muon(job.model.named_parameters(), lr=1e-2)
    curve = []
    for step in range(45):
        loss, metrics = job.loss(np.random.default_rng(0), torch.Generator().manual_seed(0), step)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        curve.append(metrics[name])
    assert np.mean(curve[-5:]) < 0.9 * np.mean(curve[:3]), curve


def test_frames_of_one_time_are_a_clip_of_that_time(tmp_path: Path) -> None:
    network = tiny_job(tmp_path).model.dit
    assert isinstance(network, STDiT3)
    for p in network.parameters():
        p.data += 0.05 * torch.randn_like(p)
    x, text = torch.randn(2, 16, 5, 8, 8), network.project_text(torch.randn(2, 6, 32))
    options: dict[str, object] = {"fps": torch.full((2,), 8.0), "height_px": 128, "width_px": 128}
    options["x_mask"] = torch.tensor([[False, True, True, True, True], [True] * 5])
    with torch.no_grad():
        one = network(x, torch.tensor([300.0, 700.0]), text, **options)
        each = network(x, torch.tensor([[300.0] * 5, [700.0] * 5]), text, **options)
        other = network(x, torch.tensor([[300.0] * 5, [700.0, 700.0, 100.0, 700.0, 700.0]]), text, **options)
    torch.testing.assert_close(each, one, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other[0], one[0], atol=1e-5, rtol=1e-4)
    assert (other[1, :, 2] - one[1, :, 2]).abs().mean() > 1e-3


def test_each_frame_is_noised_to_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny_job(tmp_path, objective=Objective(frame_times=1.0), reference_share=0.0)
    batch = job.draw(np.random.default_rng(0), torch.Generator().manual_seed(0), short=False)
    seen: list[tuple[Tensor, Tensor]] = []

    def right(x: Tensor, timestep: Tensor, *_: object, **__: object) -> Tensor:
        seen.append((x, timestep))
        return batch.x0 - batch.noise

    monkeypatch.setattr(job.model.dit, "forward", right)
    assert float(job.loss_of(batch, torch.Generator().manual_seed(2))[0]) == 0
    ((x, timestep),) = seen
    assert timestep.shape == (4, 5)
    assert float((timestep.amax(1) - timestep.amin(1)).min()) > 10
    t = (timestep / 1000)[:, None, :, None, None]
    torch.testing.assert_close(x, (1 - t) * batch.x0 + t * batch.noise, atol=1e-5, rtol=1e-4)
    shared = job.times_of_frames(torch.full((400, 5), 0.5), torch.Generator().manual_seed(0))
    assert (shared == 0.5).sum() == 0
    job.objective = Objective(frame_times=0.25)
    some = job.times_of_frames(torch.full((400, 5), 0.5), torch.Generator().manual_seed(0))
    assert 70 < int((some != 0.5).all(1).sum()) < 130
    assert int((some == 0.5).all(1).sum()) == 400 - int((some != 0.5).all(1).sum())


# --- predicting the clean latent -------------------------------------------------------------------------------------


def clean_spec() -> object:
    return replace(TINY, network=replace(TINY.network, prediction="clean"))  # type: ignore[type-var]


def test_a_network_that_says_the_clean_latent_lands_on_it() -> None:
    spec = clean_spec()
    family = STDiTFamily(None, STDiT3Adapter(STDiT3(spec.network)), NANO.sampler)  # type: ignore[arg-type,attr-defined]
    target = torch.randn(1, 16, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(1, 16, 5, 8, 8, generator=torch.Generator().manual_seed(1))

    def velocity(x: Tensor, t: float, index: int, x_mask: Tensor | None) -> Prediction:
        return Prediction(guided=family._velocity(target, x, t))

    *_, last = sample(velocity, noise, (1.0, 0.7, 0.2, 0.0))
    torch.testing.assert_close(last.x, target, atol=1e-5, rtol=1e-4)
    old = STDiTFamily(None, STDiT3Adapter(STDiT3(TINY.network)), NANO.sampler)  # type: ignore[arg-type]
    assert torch.equal(old._velocity(target, noise, 0.5), -target)


def test_the_loss_of_a_clean_latent_is_the_velocitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny_job(tmp_path, spec=clean_spec(), reference_share=0.5)
    batch = job.draw(np.random.default_rng(0), torch.Generator().manual_seed(0), short=False)
    monkeypatch.setattr(job.model.dit, "forward", lambda x, *a, **k: batch.x0)
    assert float(job.loss_of(batch, torch.Generator().manual_seed(2))[0]) == 0
    monkeypatch.setattr(job.model.dit, "forward", lambda x, *a, **k: batch.x0 + 0.1)
    error = float(job.loss_of(batch, torch.Generator().manual_seed(2))[0])
    assert 0.01 < error < 0.01 / 0.05**2  # 0.1^2, over the square of times below 1


# --- the loop's clock and its optimiser ------------------------------------------------------------------------------


def test_a_budget_ends_a_run_and_lowers_its_rate() -> None:
    cfg = LoopConfig(run_dir=Path(), steps=0, cooldown=0, lr=1.0, warmup=1, budget_s=10.0, cooldown_s=4.0)
    assert [learning_rate(cfg, 99, s) for s in (0.0, 6.0, 8.0, 10.0, 11.0)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert not finished(cfg, 10**6, 9.9)
    assert finished(cfg, 0, 10.0)
    by_steps = replace(cfg, budget_s=0.0, steps=5, cooldown=2)
    assert [finished(by_steps, step, 10**6) for step in (4, 5)] == [False, True]


class Busy:
    """A job that takes the processor for a hundredth of a second a step."""

    def __init__(self) -> None:
        self.model = nn.Linear(16, 16)

    def loss(self, rng: np.random.Generator, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
        import time

        until = time.process_time() + 0.01
        while time.process_time() < until:
            pass
        return self.model(torch.ones(1, 16)).square().mean(), {}


def test_a_run_goes_on_within_what_is_left_of_its_budget(tmp_path: Path) -> None:
    cfg = LoopConfig(run_dir=tmp_path, steps=0, cooldown=0, lr=0.01, warmup=1, workers=1, budget_s=0.3, cooldown_s=0.1)
    train(Busy, cfg)
    first = load_ema(tmp_path, Busy().model)["step"]
    assert 5 <= first <= 30
    train(Busy, cfg)
    assert load_ema(tmp_path, Busy().model)["step"] == first  # nothing is left
    train(Busy, replace(cfg, budget_s=0.6))
    assert 5 <= load_ema(tmp_path, Busy().model)["step"] - first <= 30


def test_muon_may_be_for_some_matrices_only() -> None:
    model = nn.ModuleDict({"some_blocks": nn.Linear(32, 32), "head": nn.Linear(32, 32)})
    by_all, by_some = Muon(model.named_parameters(), lr=0.1), Muon(model.named_parameters(), lr=0.1, only="_blocks.")
    assert len(by_all.param_groups[0]["params"]) == 2
    assert [p.shape for p in by_some.param_groups[0]["params"]] == [(32, 32)]
    assert by_some.param_groups[0]["params"][0] is model["some_blocks"].weight


def test_a_head_for_training_is_not_kept(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, objective=Objective(alignment=1.0))
    cfg = LoopConfig(run_dir=tmp_path / "run", steps=2, cooldown=1, lr=0.01, workers=1)
    train(lambda: job, cfg)
    assert any(name.startswith("projector.") for name in job.model.state_dict())
    plain = TextToVideo(TINY, tmp_path / "tokenizer.json")
    assert load_ema(tmp_path / "run", plain)["step"] == 2


# --- the ladder ------------------------------------------------------------------------------------------------------


def test_the_velocitys_error_falls_to_nothing_where_it_is_right(tmp_path: Path) -> None:
    zero, one = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    job = tiny_job(tmp_path)
    untrained = ladder.velocity_error(job.model, TINY, tmp_path, zero, one)
    assert untrained["error, one object"] == pytest.approx(2.0, rel=0.05)  # noise - data, of unit variance each
    clean = tiny_job(tmp_path, spec=clean_spec())
    answers = ladder.velocity_error(clean.model, TINY, tmp_path, zero, one)
    # It says zero: v = x / t = noise + (1 - t) / t x0, off by x0 / t.
    assert answers["error, one object"] == pytest.approx(np.mean([1 / t**2 for t in ladder.CHECK_TIMES]), rel=0.1)


def test_the_table_of_a_ladder_has_a_row_for_each_rung() -> None:
    errors = {"error, one object": 0.25, "error, two objects": 0.5}
    rows = [
        {"date": "2026-11-25", "title": "plain", "minutes": 4.0, "samples": 4800, "two, guidance 4": 0.25} | errors,
        {"date": "2026-11-25", "title": "other", "minutes": 4.0, "samples": 4801, "one, guidance 4": 0.5} | errors,
    ]
    lines = ladder.table(rows).splitlines()
    assert lines[2] == "| 2026-11-25 | plain | 4 | 4,800 | 0.2500 | 0.5000 | – | – | – | 25 % |"
    assert lines[3].endswith("| – | 50 % | – | – |")


def test_every_rung_differs_from_the_plain_one_in_one_thing() -> None:
    plain = asdict(ladder.RUNGS["plain"]) | {"title": ""}
    for name, rung in ladder.RUNGS.items():
        changed = [key for key, value in (asdict(rung) | {"title": ""}).items() if value != plain[key]]
        allowed = 2 if name == "clean" else 0 if name == "plain" else 1  # its control is "head"
        assert len(changed) == allowed, name


@pytest.mark.thorough
def test_a_rung_is_trained_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the networks of the real size: the clips are the renderer's, which the reader finds right."""

    def perfect(bundle: object, count: int, scales: tuple[float, ...], *, pairs: float) -> list[Trial]:
        scenes = held_out_prompts(count, 8, pairs=pairs)
        return [Trial(scene=s, prompt=p, seed=0, clips=dict.fromkeys(scales, render(s)[0])) for s, p in scenes]

    monkeypatch.setattr(ladder, "run_trials", perfect)
    monkeypatch.setattr(ladder, "build_bundle", lambda spec: spec)
    zero, one = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    monkeypatch.setattr(ladder, "normalisation", lambda codec: (zero, one))
    monkeypatch.setattr(ladder, "load_codec", lambda cfg, weights: None)
    for name in ("pool", "check"):
        (tmp_path / name).mkdir()
        job = tiny_job(tmp_path / name)
    monkeypatch.setattr(ladder.Bench, "pools", lambda self: (tmp_path / "pool", tmp_path / "check"))
    names = {"network": "dit-1.safetensors", "text": "text.safetensors"}
    for part, file in names.items():
        save_shards(job.model.parts()[part].state_dict(), [tmp_path / file], {})
    (tmp_path / "pool" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    files = replace(NANO.weights, network=(names["network"],))  # type: ignore[type-var]
    bench = ladder.Bench(
        spec=replace(TINY, weights=files), runs=tmp_path, start=tmp_path, minutes=0.01, lr=1e-3, batch=2, prompts=8
    )
    start = ladder.measure_rung(bench, ladder.START)
    ladder.train_rung(bench, "grounding")
    row = ladder.measure_rung(bench, "grounding")
    assert (start["samples"], start["minutes"]) == (0, 0.0)
    assert row["samples"] >= 2
    assert row["minutes"] >= 0.01
    assert bench.folder("grounding") != replace(bench, scratch=True).folder("grounding")
    assert row["error, one object"] != start["error, one object"]
    assert row["one, guidance 4"] >= 0.75
    assert row["two, guidance 1"] >= 0.75
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "ladder" / "grounding" / "dit-1.safetensors").is_file()
