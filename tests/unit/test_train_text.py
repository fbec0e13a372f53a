"""The text encoder learns to read before there is anything to see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from opensora_demo.catalog.nano import TEXT
from opensora_demo.text.t5 import T5TextEncoder
from opensora_demo.toy.captions import build_tokenizer, usual_room
from opensora_demo.toy.spans import mark, read_marks
from opensora_demo.toy.worlds import SHAPES, Scene
from opensora_demo.training.muon import Muon
from opensora_demo.training.train_network import object_words
from opensora_demo.training.train_text import (
    NOBODY,
    OF_OBJECT,
    OF_SCENE,
    Start,
    TextJob,
    accuracy,
    labels_of,
    look_around,
)

TINY = replace(TEXT, width=32, layers=1, heads=2, head_width=16, hidden=32)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    build_tokenizer(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def scene_of_two() -> Scene:
    shared = {"background": "sea", "size": "medium", "speed": "normal"}
    blue = Scene(shape="star", colour="blue", motion="spin", room="right", **shared)
    return Scene(shape="ball", colour="red", motion="up", room="left", companion=blue, **shared)


def test_every_word_of_a_phrase_says_all_of_its_object(tokenizer: Path) -> None:
    text = T5TextEncoder(TINY, tokenizer)
    marked = mark("a blue star", "right") + " right of " + mark("a red ball", "left") + " " + mark("rising", "left")
    prompt, spans = read_marks(marked)
    ids, lengths, _, _ = text.tokenize([prompt])
    labels = labels_of([scene_of_two()], object_words(text, [prompt], [spans], ids.shape[1]), lengths)
    star, ball = SHAPES.index("star"), SHAPES.index("ball")
    assert labels["shape"][0].tolist() == [star] * 3 + [NOBODY] * 2 + [ball] * 4 + [NOBODY]
    assert labels["mention"][0].tolist() == [0] * 3 + [NOBODY] * 2 + [1] * 4 + [NOBODY]
    assert labels["background"][0].unique().numel() == 1
    lone = replace(scene_of_two(), companion=None, room="all")
    prompt, spans = read_marks(mark("a red ball", "all") + " at the sea")
    ids, lengths, _, _ = text.tokenize([prompt])
    labels = labels_of([lone], object_words(text, [prompt], [spans], ids.shape[1]), lengths)
    assert labels["shape"][0].tolist() == [ball] * 3 + [NOBODY] * 3 + [ball]  # the end mark speaks for a lone object


def test_words_about_both_objects_say_what_both_share(tokenizer: Path) -> None:
    text = T5TextEncoder(TINY, tokenizer)
    scene = scene_of_two()
    assert scene.companion is not None
    scene = replace(scene, companion=replace(scene.companion, shape="ball"))
    prompt, spans = read_marks("two " + mark("balls", "left", both=True))
    ids, lengths, _, _ = text.tokenize([prompt])
    labels = labels_of([scene], object_words(text, [prompt], [spans], ids.shape[1]), lengths)
    assert labels["shape"][0].tolist() == [NOBODY, SHAPES.index("ball"), NOBODY]
    assert labels["colour"][0].tolist() == [NOBODY] * 3


def job_from_an_earlier_one(folder: Path, tokenizer: Path) -> TextJob:
    torch.manual_seed(0)
    state = T5TextEncoder(TINY, tokenizer).state_dict()
    save_file({k: v for k, v in state.items() if k not in T5TextEncoder.aliases}, folder / "text.safetensors")
    start = Start(TINY, (folder / "text.safetensors",), tokenizer)
    return TextJob(replace(TINY, layers=2), tokenizer, start, batch=300)


def test_a_phrase_alone_does_not_depend_on_the_other_one(tokenizer: Path, tmp_path: Path) -> None:
    job = job_from_an_earlier_one(tmp_path, tokenizer)
    said = []
    for colour in ("blue", "green"):
        prompt, spans = read_marks(mark("a red ball", "left") + " left of " + mark(f"a {colour} star", "right"))
        ids, lengths, _, _ = job.model.tokenize([prompt])
        said.append(job.alone([prompt], object_words(job.model, [prompt], [spans], ids.shape[1]), lengths)[0])
    other = slice(5, 8)
    assert torch.allclose(said[0][:5], said[1][:5], atol=1e-5)
    assert not torch.allclose(said[0][other], said[1][other], atol=1e-2)


def test_new_layers_begin_as_the_identity(tokenizer: Path, tmp_path: Path) -> None:
    job = job_from_an_earlier_one(tmp_path, tokenizer)
    blocks = job.model.model.encoder.block
    assert blocks[0].layer[0].SelfAttention.o.weight.abs().max() > 0
    assert blocks[1].layer[0].SelfAttention.o.weight.abs().max() == 0
    assert blocks[1].layer[1].DenseReluDense.wo.weight.abs().max() == 0


def test_reading_is_learnt(tokenizer: Path) -> None:
    """The same captions again and again: in the end each word says what its object is."""
    torch.manual_seed(0)
    job = TextJob(TINY, tokenizer, batch=150, pairs=1.0, chinese=0.0, omit=0.0)
    optimiser = Muon(job.model.named_parameters(), lr=2e-2)
    for step in range(40):
        loss, metrics = job.loss(np.random.default_rng(0), torch.Generator(), step)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert set(metrics) == {*OF_OBJECT, *OF_SCENE}
    assert metrics["shape"] > 0.8
    assert metrics["room"] > 0.8
    assert metrics["background"] > 0.8
    read = accuracy(job, 20, pairs=0, chinese=1)
    assert set(read) == set(metrics)
    assert all(0 <= share <= 1 for share in read.values())


def test_heads_look_back_near_and_ahead() -> None:
    back, near, before, ahead = look_around(4).T
    assert back[16:].max() < back[:16].min()
    assert near[1] > near[6]
    assert torch.equal(near[:16], near[16:])
    assert before[1] > before[17]
    assert ahead[17] > ahead[1]
    assert look_around(4)[0].tolist() == [0, 0, 0, 0]


def test_where_nobody_says_where_the_first_is_left_or_above() -> None:
    assert usual_room("spin", "still") == "left"
    assert usual_room("right", "spin") == "top"  # two that stand beside each other leave no room to go right
    assert usual_room("down", "zigzag") is None
    assert usual_room("up", None) == "left"
