"""The DiT of the articles: what it starts training from, positions in time, class labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from opensora_demo.models.dit import DiT, DiTConfig, LabelEmbedder
from opensora_demo.models.stdit3 import STDiT3, STDiT3Config

CONFIG = DiTConfig(input_size=(4, 4, 4), width=96, depth=2, heads=4, text_channels=64)


def build(cfg: DiTConfig = CONFIG, *, noisy: bool = False) -> DiT:
    """Ready to be trained; `noisy` moves every weight, as training would."""
    torch.manual_seed(0)
    network = DiT(cfg).requires_grad_(False)
    network.initialise()
    if noisy:
        for p in network.parameters():
            p += 0.1 * torch.randn_like(p)
    return network


def inputs(cfg: DiTConfig = CONFIG) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.tensor([1, 3]) if cfg.classes else torch.randn(2, cfg.text_channels)
    return torch.randn(2, 4, *cfg.input_size), torch.tensor([10.0, 700.0]), y


@pytest.mark.parametrize("classes", [0, 5])
def test_training_starts_from_blocks_that_change_nothing_and_an_output_of_zero(classes: int) -> None:
    network = build(replace(CONFIG, classes=classes))
    tokens, c = torch.randn(2, 4, 4, 96), torch.randn(2, 96)
    for block in network.blocks:
        assert torch.equal(block(tokens, c, "all"), tokens)  # adaLN-Zero: the gates are closed
    assert bool((network(*inputs(network.cfg)) == 0).all())
    final = network.final_layer
    for p in (*final.adaLN_modulation[1].parameters(), *final.linear.parameters()):
        assert bool((p == 0).all())


def test_embedders_start_from_a_normal_of_a_fiftieth() -> None:
    network = build()
    weights = [network.t_embedder.mlp[0].weight, network.t_embedder.mlp[2].weight]
    assert not isinstance(network.y_embedder, LabelEmbedder)
    weights += [network.y_embedder.y_proj.fc1.weight, network.y_embedder.y_proj.fc2.weight]
    for weight in weights:
        assert float(weight.std()) == pytest.approx(0.02, rel=0.05)
        assert abs(float(weight.mean())) < 0.001
    labels = build(replace(CONFIG, classes=300)).y_embedder
    assert isinstance(labels, LabelEmbedder)
    assert float(labels.embedding_table.weight.std()) == pytest.approx(0.02, rel=0.05)


def test_other_layers_start_from_xavier_with_biases_of_zero() -> None:
    network = build()
    block = network.blocks[0]
    assert isinstance(block.mlp.fc1, nn.Linear)  # type: ignore[union-attr]
    for weight in (block.attn.qkv.weight, block.mlp.fc1.weight, network.x_embedder.proj.weight.flatten(1)):  # type: ignore[union-attr]
        bound = (6 / (weight.shape[0] + weight.shape[1])) ** 0.5
        assert 0.97 * bound < float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    for name, value in network.named_parameters():
        assert not name.endswith("bias") or bool((value == 0).all()), name


def test_stdit3_starts_with_an_output_of_zero_and_deaf_to_the_text() -> None:
    torch.manual_seed(0)
    cfg = STDiT3Config(width=96, depth=1, heads=4, text_channels=64, max_tokens=8)
    network = STDiT3(cfg).requires_grad_(False)
    network.initialise()
    x, t, fps = torch.randn(1, 4, 2, 4, 4), torch.tensor([500.0]), torch.tensor([8.0])
    text = network.project_text(torch.randn(1, 5, 64))
    assert bool((network(x, t, text, fps=fps, height_px=32, width_px=32) == 0).all())
    for block in (network.spatial_blocks[0], network.temporal_blocks[0]):
        assert bool((block.cross_attn.proj.weight == 0).all())  # type: ignore[union-attr]
    for part in (network.t_embedder.mlp[0], network.fps_embedder.mlp[2], network.t_block[1]):
        assert float(part.weight.std()) == pytest.approx(0.02, rel=0.05)


def test_without_positions_in_time_frames_can_be_exchanged() -> None:
    order = [2, 0, 3, 1]
    for on in (True, False):
        network = build(replace(CONFIG, temporal_positions=on), noisy=True)
        x, t, y = inputs()
        exchanged = network(x[:, :, order], t, y)
        same = torch.allclose(exchanged, network(x, t, y)[:, :, order], atol=1e-4)
        assert same == (not on)


def test_the_table_of_positions_in_time_is_added_once() -> None:
    """On, the network is the one without whose tokens were moved by the table."""
    on, off = (build(replace(CONFIG, temporal_positions=value), noisy=True) for value in (True, False))
    off.load_state_dict(on.state_dict())
    x, t, y = inputs()
    off.x_embedder.register_forward_hook(lambda module, args, tokens: tokens + on.pos_embed_temporal[:, :, None])
    torch.testing.assert_close(off(x, t, y), on(x, t, y))


def test_a_label_is_a_row_of_the_table_and_none_the_last() -> None:
    network = build(replace(CONFIG, classes=5), noisy=True)
    embedder = network.y_embedder
    assert isinstance(embedder, LabelEmbedder)
    table = embedder.embedding_table.weight
    assert table.shape == (6, 96)
    labels = torch.tensor([4, 0, 2, 5])
    assert torch.equal(embedder(labels), table[[4, 0, 2, 5]])
    assert int(network.null_condition()) == embedder.none == 5
    dropped = embedder.token_drop(labels, torch.tensor([True, False, True, False]))
    assert dropped.tolist() == [5, 0, 5, 5]
    assert torch.equal(embedder(dropped)[0], table[5])


def test_classes_change_what_the_network_says() -> None:
    network = build(replace(CONFIG, classes=5), noisy=True)
    x, t, _ = inputs()
    a, b, none = (network(x, t, torch.tensor([label, 5])) for label in (1, 2, 5))
    assert not torch.allclose(a[0], b[0], atol=1e-3)
    assert not torch.allclose(a[0], none[0], atol=1e-3)
    assert torch.equal(a[1], b[1])
