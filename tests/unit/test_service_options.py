"""Options: arguments first, then the environment; every bad value is one sentence."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.synthetic import write_checkpoint
from opensora_demo import serve
from opensora_demo.catalog import MODELS
from opensora_demo.cli import main
from opensora_demo.errors import RequestError
from opensora_demo.messages import render
from opensora_demo.pipeline import run
from opensora_demo.request.parse import parse_request
from opensora_demo.runtime.bundle import Bundles
from opensora_demo.service.options import (
    SERVER_OPTIONS,
    WEIGHT_OPTIONS,
    ClusterOptions,
    ServerAddress,
    ServerOptions,
    StorageOptions,
    add_options,
    data_dir,
    read_server_options,
    read_weight_options,
)
from opensora_demo.weights import store
from opensora_demo.weights.lora import LoraFile
from opensora_demo.weights.options import WeightOptions
from opensora_demo.weights.store import unavailable_reason
from tests.unit.checkpoints import options_of, published


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, (*SERVER_OPTIONS, *WEIGHT_OPTIONS))
    return parser.parse_args(argv)


def weight_options(*argv: str, **environment: str) -> WeightOptions:
    return read_weight_options(arguments(*argv), environment)


def server_options(*argv: str, **environment: str) -> ServerOptions:
    return read_server_options(arguments(*argv), environment)


def test_nothing_said_is_the_default() -> None:
    assert weight_options() == WeightOptions(cache_dir=Path.home() / ".cache" / "opensora-demo", precision="auto")
    storage = StorageOptions(folder=Path.home() / ".local" / "share" / "opensora-demo", max_bytes=10**10)
    assert server_options() == ServerOptions(storage=storage)
    assert weight_options(OPENSORA_OFFLINE="", OPENSORA_T5_BITS="") == weight_options()


@pytest.mark.parametrize(
    ("field", "argv", "environment", "from_argument", "from_environment"),
    [
        ("weights_dir", ["--weights", "a"], {"OPENSORA_WEIGHTS": "b"}, Path("a"), Path("b")),
        ("cache_dir", ["--cache", "a"], {"OPENSORA_CACHE": "b"}, Path("a"), Path("b")),
        ("cache_dir", ["--cache", "a"], {"XDG_CACHE_HOME": "/b"}, Path("a"), Path("/b/opensora-demo")),
        ("offline", ["--no-offline"], {"OPENSORA_OFFLINE": "1"}, False, True),
        ("offline", ["--no-offline"], {"HF_HUB_OFFLINE": "TRUE"}, False, True),
        ("offline", ["--offline"], {"OPENSORA_OFFLINE": "0", "HF_HUB_OFFLINE": "1"}, True, False),
        ("allow_pickle", ["--no-allow-pickle"], {"OPENSORA_ALLOW_PICKLE": "1"}, False, True),
        ("t5_bits", ["--t5-bits", "16"], {"OPENSORA_T5_BITS": "8"}, 16, 8),
        ("placement", ["--placement", "together"], {"OPENSORA_PLACEMENT": "in turn"}, "together", "in turn"),
        ("attention", ["--attention", "plain"], {"OPENSORA_ATTENTION": "fused"}, "plain", "fused"),
        ("precision", ["--precision", "float32"], {"OPENSORA_PRECISION": "stored"}, "float32", "stored"),
    ],
)
def test_arguments_come_before_the_environment(
    field: str,
    argv: list[str],
    environment: dict[str, str],
    from_argument: Any,
    from_environment: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # as if every package were installed
    assert getattr(weight_options(**environment), field) == from_environment
    assert getattr(weight_options(*argv, **environment), field) == from_argument


@pytest.mark.parametrize(
    ("field", "argv", "environment", "from_argument", "from_environment"),
    [
        ("host", ["--host", "::1"], {"GRADIO_SERVER_NAME": "0.0.0.0"}, "[::1]", "0.0.0.0"),
        ("host", ["--host", "127.0.0.1"], {"SPACE_ID": "someone/space"}, "127.0.0.1", "0.0.0.0"),
        ("host", ["--host", "[::1]"], {"GRADIO_SERVER_NAME": "::"}, "[::1]", "[::]"),
        ("downloads", ["--host", "::1"], {"GRADIO_SERVER_NAME": "::"}, "alone", "never"),
        ("share", ["--no-share"], {"GRADIO_SHARE": "True"}, False, True),
        ("port", ["--port", "8000"], {"GRADIO_SERVER_PORT": "9000"}, 8000, 9000),
        ("debug_models", ["--no-debug-models"], {"OPENSORA_DEBUG_MODELS": "yes"}, False, True),
        ("models", ["--only", "nano-dit,nano"], {"OPENSORA_ONLY": "nano"}, ("nano", "nano-dit"), ("nano",)),
        (
            "models",
            ["--only", "nano-dit"],
            {"OPENSORA_ONLY": " opensora-1.2 ,"},
            ("nano", "nano-dit"),
            ("nano", "opensora-1.2"),
        ),
        ("public", ["--public"], {"OPENSORA_PUBLIC": "0"}, True, False),
        ("public", ["--share"], {"GRADIO_SERVER_NAME": "0.0.0.0"}, True, True),
        ("public", ["--no-public"], {"GRADIO_SERVER_NAME": "0.0.0.0"}, False, True),
        ("public", ["--no-public"], {"OPENSORA_ALLOW_HOST": "demo.example.org"}, False, True),
        ("metrics", ["--metrics"], {"GRADIO_SERVER_NAME": "0.0.0.0"}, True, False),
        ("metrics", ["--no-metrics"], {"OPENSORA_METRICS": "1"}, False, True),
        (
            "hosts",
            ["--allow-host", "A.example", "--allow-host", "b"],
            {"OPENSORA_ALLOW_HOST": "c, [::1]"},
            ("a.example", "b"),
            ("c", "::1"),
        ),
        ("frames", ["--embed", "https://a.example"], {"OPENSORA_EMBED": "*"}, ("https://a.example",), ("*",)),
        (
            "frames",
            ["--embed", "*"],
            {"OPENSORA_EMBED": "https://a.example, http://b.example:8000"},
            ("*",),
            ("https://a.example", "http://b.example:8000"),
        ),
        ("frames", ["--embed", ""], {"SPACE_ID": "someone/space"}, (), ("*",)),
        ("behind_proxy", ["--share"], {"SPACE_ID": "someone/space"}, True, True),
        ("keep_clips", ["--keep-clips", "7"], {"OPENSORA_KEEP_CLIPS": "9"}, 7, 9),
        ("max_runs", ["--max-runs", "5"], {"OPENSORA_MAX_RUNS": "6"}, 5, 6),
        ("max_runs_each", ["--max-runs-each", "2"], {"OPENSORA_MAX_RUNS_EACH": "3"}, 2, 3),
        ("about", ["--about", " by  me "], {"OPENSORA_ABOUT": "by them"}, "by me", "by them"),
        ("log_format", ["--log-format", "text"], {"OPENSORA_LOG_FORMAT": "json"}, "text", "json"),
        ("log_level", ["--log-level", "error"], {"OPENSORA_LOG_LEVEL": "debug"}, "error", "debug"),
        ("downloads", ["--public"], {"OPENSORA_PUBLIC": "yes"}, "never", "never"),
        ("downloads", ["--downloads"], {"OPENSORA_DOWNLOADS": "0"}, "always", "never"),
        ("downloads", ["--no-downloads"], {"OPENSORA_DOWNLOADS": "1"}, "never", "always"),
        ("downloads", ["--downloads"], {"GRADIO_SERVER_NAME": "0.0.0.0"}, "always", "never"),
        ("downloads", ["--host", "127.0.0.1"], {"GRADIO_SERVER_NAME": "0.0.0.0"}, "alone", "never"),
    ],
)
def test_the_server_too(
    field: str, argv: list[str], environment: dict[str, str], from_argument: Any, from_environment: Any
) -> None:
    assert getattr(server_options(**environment), field) == from_environment
    assert getattr(server_options(*argv, **environment), field) == from_argument


def test_the_user_of_a_container_may_have_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a name: `docker run --user 12345`."""

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(Path, "expanduser", lambda path: nobody())
    found = weight_options("--weights", "~/weights").cache_dir
    assert found is not None
    assert found.parent == Path(tempfile.gettempdir())


def test_a_shared_page_downloads_nothing_by_itself() -> None:
    assert server_options("--share").downloads == "never"


def test_models_that_are_offered() -> None:
    usual = {spec.id for spec in MODELS.values() if not spec.hidden}
    assert server_options().offered == usual
    assert server_options("--debug-models").offered == set(MODELS)
    assert server_options("--only", "nano").offered == {"nano"}
    options = WeightOptions(models=server_options("--only", "nano").offered)
    assert [spec.id for spec in options.listed()] == ["nano"]
    assert options.find_model(None).id == "nano"
    for other in ("nano-dit", "debug-2.0", "opensora-1.2"):
        with pytest.raises(RequestError, match=f"{other} is not offered here"):
            options.find_model(other)
    with pytest.raises(RequestError, match="must be one of nano, not"):
        options.find_model("sora")
    assert WeightOptions().find_model("debug-2.0").hidden  # from Python and the command line everything may be used


def test_a_public_page_names_no_folder_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "weights"
    spec = MODELS["opensora-1.2"]
    for public in (False, True):
        said = unavailable_reason(spec, WeightOptions(weights_dir=folder, public=public))
        assert said is not None
        assert (str(tmp_path) in render(said)) == (not public)
        assert "weights" in render(said)
    monkeypatch.setattr(store, "ASSETS", tmp_path / "assets")
    said = unavailable_reason(MODELS["nano"], WeightOptions())
    assert said is not None
    assert "assets/nano" in render(said)
    assert str(tmp_path) not in render(said)


def test_loras_are_pairs_and_a_path_may_hold_an_equals_sign(tmp_path: Path) -> None:
    odd, ink = tmp_path / "lr=1e-4" / "a=b.safetensors", tmp_path / "ink.safetensors"
    odd.parent.mkdir()
    for file in (odd, ink):
        file.write_bytes(b"")
    found = weight_options("--lora", str(odd), "--lora", f"{odd}=0.5", "--lora", f"{ink}=-1").loras
    assert found == (LoraFile(odd), LoraFile(odd, 0.5), LoraFile(ink, -1))
    named = tmp_path / "epoch=3-step=1000.safetensors"  # as Lightning names them
    separated = tmp_path / "a:b.safetensors"
    for file in (named, separated):
        file.write_bytes(b"")
    found = weight_options("--lora", str(named), "--lora", f"{named}=0.8", "--lora", f"{separated}=2").loras
    assert found == (LoraFile(named), LoraFile(named, 0.8), LoraFile(separated, 2))
    environment = {"OPENSORA_LORA": f"{named}:{separated}=2:{ink}"}
    assert weight_options(**environment).loras == (LoraFile(named), LoraFile(separated, 2), LoraFile(ink))
    environment = {"OPENSORA_LORA": os.pathsep.join([f"{odd}=2", str(ink)])}
    assert weight_options(**environment).loras == (LoraFile(odd, 2), LoraFile(ink))
    assert weight_options("--lora", str(ink), **environment).loras == (LoraFile(ink),)


def test_torchrun_starts_no_page() -> None:
    with pytest.raises(RequestError, match="torchrun: the page runs in one process"):
        serve.parse_options([], {"WORLD_SIZE": "2"})
    serve.parse_options([], {"WORLD_SIZE": "1"})


@pytest.mark.parametrize(
    ("flag", "variable", "text", "sentence"),
    [
        ("--weights", "OPENSORA_WEIGHTS", __file__, "must be a folder"),
        ("--cache", "OPENSORA_CACHE", __file__, "must be a folder"),
        ("", "OPENSORA_OFFLINE", "perhaps", "must be one of 1, 0, not perhaps"),
        ("", "OPENSORA_ALLOW_PICKLE", "2", "must be one of 1, 0, not 2"),
        ("--t5-bits", "OPENSORA_T5_BITS", "5", "must be one of 16, 8, 4, not 5"),
        ("--t5-bits", "OPENSORA_T5_BITS", "8", "T5 in 8 bits needs torchao"),
        ("--lora", "OPENSORA_LORA", "nowhere.safetensors", "there is no LoRA file nowhere.safetensors"),
        ("--lora", "OPENSORA_LORA", "a=3-b=1.safetensors", "there is no LoRA file a=3-b=1.safetensors"),
        ("--lora", "OPENSORA_LORA", "nowhere=much", "the strength of a LoRA must be a number, not much"),
        ("--lora", "OPENSORA_LORA", "nowhere=inf", "the strength of a LoRA must be a number, not inf"),
        ("--lora", "OPENSORA_LORA", __file__, "is no safetensors file"),
        ("--placement", "OPENSORA_PLACEMENT", "upstairs", "must be one of auto, together, in turn, streamed"),
        ("--attention", "OPENSORA_ATTENTION", "flash", "must be one of auto, fused, plain, not flash"),
        ("--precision", "OPENSORA_PRECISION", "half", "must be one of auto, stored, float32, bfloat16, not half"),
        ("--host", "GRADIO_SERVER_NAME", "http://here", "must be an address or the name of a machine"),
        ("--host", "GRADIO_SERVER_NAME", " ", "must be an address or the name of a machine"),
        ("--host", "GRADIO_SERVER_NAME", "localhost:7860", "must be an address or the name of a machine"),
        ("--port", "GRADIO_SERVER_PORT", "many", "must be a whole number, not many"),
        ("--port", "GRADIO_SERVER_PORT", "65536", "must lie between 1 and 65535, not 65536"),
        ("--port", "GRADIO_SERVER_PORT", "0", "must lie between 1 and 65535, not 0"),
        ("--port", "GRADIO_SERVER_PORT", "9" * 5000, "must be a whole number, not "),
        ("--port", "GRADIO_SERVER_PORT", "-1", "must be a whole number, not "),
        ("--port", "GRADIO_SERVER_PORT", "²", "must be a whole number, not "),
        ("", "OPENSORA_DEBUG_MODELS", "some", "must be one of 1, 0, not some"),
        ("", "OPENSORA_DOWNLOADS", "some", "must be one of 1, 0, not some"),
        ("--only", "OPENSORA_ONLY", "nano,sora", "must be one of nano, nano-dit"),
        ("--allow-host", "OPENSORA_ALLOW_HOST", "https://here", "must be an address or the name of a machine"),
        ("--embed", "OPENSORA_EMBED", "https://a.example/page", "must be an address such as https://example.org"),
        ("--embed", "OPENSORA_EMBED", "'self'; script-src *", "must be an address such as https://example.org"),
        ("--keep-clips", "OPENSORA_KEEP_CLIPS", "0", "must lie between 1 and 100000, not 0"),
        ("--max-runs", "OPENSORA_MAX_RUNS", "1001", "must lie between 1 and 1000, not 1001"),
        ("--max-runs-each", "OPENSORA_MAX_RUNS_EACH", "none", "must be a whole number, not none"),
        ("--about", "OPENSORA_ABOUT", "x" * 301, "must have at most 300 characters, not 301"),
        ("--log-format", "OPENSORA_LOG_FORMAT", "xml", "must be one of text, json, not xml"),
        ("--log-level", "OPENSORA_LOG_LEVEL", "all", "must be one of debug, info, warning, error, not all"),
    ],
)
def test_a_bad_value_is_one_sentence_and_exit_status_2(
    flag: str,
    variable: str,
    text: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as if no package were installed
    cases = [([], {variable: text}, variable), *([([f"{flag}={text}"], {}, flag)] if flag else [])]
    for argv, environment, name in cases:
        with pytest.raises(RequestError) as caught:
            serve.parse_options(argv, environment)
        assert caught.value.field == name
        assert sentence in str(caught.value)
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            assert serve.main(argv) == 2
            printed = capsys.readouterr()
            assert printed.err.startswith(f"error: {name}: ")
            assert printed.err.count("\n") == 1
            if name in {o.flag for o in WEIGHT_OPTIONS} | {v for o in WEIGHT_OPTIONS for v in o.variables}:
                assert main(["models", *argv]) == 2
                assert capsys.readouterr() == printed


def test_two_configurations_live_in_one_process(
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has its own weights, LoRA, cache and way to hold them, and what one does leaves the other alone."""
    spec = published("debug-2.0")
    monkeypatch.setitem(MODELS, spec.id, spec)
    for folder in (first := weights, second := weights.parent / "others"):
        write_checkpoint(spec, folder)
    (network,) = second.rglob("Open_Sora_v2.safetensors")
    data = bytearray(network.read_bytes())
    data[-4000:] = data[-8000:-4000]  # another model
    network.write_bytes(data)
    one = Bundles(options_of(first))
    two = Bundles(replace(options_of(second), cache_dir=None, placement="streamed"))
    request = parse_request({"prompt": "a ball", "steps": 1, "seed": 3}, model_id=spec.id, limits=spec.limits)
    before = run(one.get(spec.id), request).clips[0].frames
    other = run(two.get(spec.id), request).clips[0].frames
    assert not np.array_equal(before, other)
    assert np.array_equal(run(one.get(spec.id), request).clips[0].frames, before)
    assert np.array_equal(run(Bundles(options_of(second)).get(spec.id), request).clips[0].frames, other)
    kept = first.parent / "embeddings" / "text"
    assert len(list(kept.iterdir())) == 8  # of the two that have a folder, each for its own files


def test_a_page_that_others_can_reach_keeps_nothing_unless_asked() -> None:
    """And without a home there is no place to keep it."""
    assert server_options("--host", "0.0.0.0").storage is None
    assert server_options("--share").storage is None
    assert server_options("--gallery", "off").storage is None
    assert server_options(OPENSORA_GALLERY="0").storage is None
    asked = server_options("--host", "0.0.0.0", "--gallery", "kept", "--gallery-gb", "0.5").storage
    assert asked == StorageOptions(folder=Path("kept"), max_bytes=500_000_000, who="always")
    assert server_options(OPENSORA_GALLERY="kept").storage == StorageOptions(folder=Path("kept"))
    assert server_options(XDG_DATA_HOME="/data").storage == StorageOptions(folder=Path("/data/opensora-demo"))
    for size in ("0", "-1", "nan", "inf", "much"):
        with pytest.raises(RequestError, match="--gallery-gb"):
            server_options("--gallery-gb", size)


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert data_dir({}) is None
    assert data_dir({"XDG_DATA_HOME": "/data"}) == Path("/data/opensora-demo")


def test_who_makes_the_clips() -> None:
    assert server_options().engine is None
    assert server_options("--engine", "local").engine is None
    url = "https://gpu.example:8000/below"
    for given in ("/", "/v1", "/v1/", ""):
        found = server_options("--engine", "videos", "--engine-url", url + given, "--engine-token", "hush")
        assert found.engine == ServerAddress(url=url, token="hush")
    by_variables = server_options(OPENSORA_ENGINE="videos", OPENSORA_ENGINE_URL="http://[::1]:80")
    assert by_variables.engine == ServerAddress(url="http://[::1]:80")
    assert server_options("--engine", "ray").engine == ClusterOptions()
    assert server_options("--engine", "ray", "--replicas", "2").engine == ClusterOptions(least=2, most=2)
    assert server_options("--engine", "ray", "--autoscale", "1", "4").engine == ClusterOptions(least=1, most=4)
    for address in ("auto", "10.0.0.5:6379", "head.example:6379", "[fd00::1]:6379"):
        assert server_options("--engine", "ray", "--address", address).engine == ClusterOptions(address=address)
    by_variables = server_options(OPENSORA_ENGINE="ray", OPENSORA_AUTOSCALE="2 8", OPENSORA_ADDRESS="auto")
    assert by_variables.engine == ClusterOptions(least=2, most=8, address="auto")
    assert server_options("--api-token", "letmein").api_token == "letmein"
    assert "letmein" not in repr(server_options("--api-token", "letmein"))
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    ("argv", "field", "problem"),
    [
        (["--engine", "mine"], "--engine", "must be one of local, videos, ray, zerogpu, not mine"),
        (["--gpu-seconds", "60"], "--gpu-seconds", "goes with --engine zerogpu"),
        (["--engine", "zerogpu", "--gpu-seconds", "5"], "--gpu-seconds", "must lie between 10 and 3600"),
        (["--replicas", "2"], "--replicas", "goes with --engine ray"),
        (["--autoscale", "1", "2"], "--autoscale", "goes with --engine ray"),
        (
            ["--engine", "videos", "--engine-url", "http://a", "--address", "auto"],
            "--address",
            "goes with --engine ray",
        ),
        (["--engine", "ray", "--engine-url", "http://a"], "--engine-url", "goes with --engine videos"),
        (["--engine", "ray", "--replicas", "0"], "--replicas", "must lie between 1 and 1000"),
        (["--engine", "ray", "--replicas", "two"], "--replicas", "must be a whole number"),
        (["--engine", "ray", "--autoscale", "3", "2"], "--autoscale", "the fewest replicas and then the most, not 3 2"),
        (["--engine", "ray", "--autoscale", "0", "2"], "--autoscale", "not 0 2"),
        (["--engine", "ray", "--autoscale", "1", "many"], "--autoscale", "not 1 many"),
        (["--engine", "ray", "--replicas", "2", "--autoscale", "1", "2"], "--autoscale", "together with --replicas"),
        (["--engine", "ray", "--address", "ray://head:10001"], "--address", "must be auto or the host:port"),
        (["--engine", "ray", "--address", "head"], "--address", "must be auto or the host:port"),
        (["--engine", "videos"], "--engine-url", "is missing"),
        (["--engine-url", "http://a"], "--engine-url", "goes with --engine videos"),
        (["--engine-token", "a"], "--engine-token", "goes with --engine videos"),
        (["--engine", "videos", "--engine-url", "gpu:8000"], "--engine-url", "must be the address of a server"),
        (["--engine", "videos", "--engine-url", "file:///etc/passwd"], "--engine-url", "must be the address"),
        (["--engine", "videos", "--engine-url", "http://a@b"], "--engine-url", "must be the address"),
        (["--engine", "videos", "--engine-url", "http://a", "--only", "nano"], "--only", "the server at --engine-url"),
        (["--api-token", "two words"], "--api-token", "must be a word of ASCII characters"),
        (["--api-token", "schl\u00fcssel"], "--api-token", "must be a word"),
    ],
)
def test_engines_that_cannot_be(argv: list[str], field: str, problem: str) -> None:
    with pytest.raises(RequestError) as refused:
        server_options(*argv)
    assert refused.value.field == field
    assert problem in render(refused.value.problem)
