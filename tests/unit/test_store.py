"""Finding weights where people have them, and fetching them: against a hub of our own on this machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.synthetic import paths, write_checkpoint
from opensora_demo import store
from opensora_demo.bundle import build_bundle
from opensora_demo.catalog import MODELS, ModelSpec
from opensora_demo.catalog.spec import HubFiles, HubWeights
from opensora_demo.cli import main
from opensora_demo.errors import Cancelled, WeightsError
from opensora_demo.pipeline import run
from opensora_demo.types import parse_request

CPU = torch.device("cpu")


def published(model: str) -> ModelSpec:
    """A tiny model whose weights are where its published kin's are."""
    kin = {"debug-1.0": "opensora-1.0-256", "debug-1.2": "opensora-1.2", "debug-2.0": "opensora-2.0"}[model]
    tiny, weights = MODELS[model], MODELS[kin].weights
    text = None if tiny.text is None else replace(tiny.text, vocabulary=256)
    clip = None
    if tiny.clip is not None:
        clip = replace(
            tiny.clip, vocabulary=256, **{k: getattr(MODELS[kin].clip, k) for k in ("bos", "eos", "pad", "unknown")}
        )
    return replace(tiny, weights=weights, text=text, clip=clip)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local folder, and a cache of the hub's that is empty too."""
    monkeypatch.setenv("OPENSORA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("OPENSORA_CACHE", str(tmp_path / "embeddings"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("OPENSORA_ALLOW_PICKLE", "OPENSORA_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "weights"


def clip_of(spec: ModelSpec) -> np.ndarray:
    request = parse_request({"prompt": "a ball", "steps": 2, "seed": 3}, model_id=spec.id, limits=spec.limits)
    return run(build_bundle(spec, CPU), request).clips[0].frames


@pytest.mark.parametrize("model", ["debug-1.0", "debug-1.2", "debug-2.0"])
def test_published_files_load_and_run(model: str, weights: Path) -> None:
    """Published names, dtypes and tokenizers; the same from `weights/<repository>/` and from the layout of ./ckpts."""
    spec = published(model)
    assert isinstance(spec.weights, HubWeights)
    why = store.why_not(spec)
    assert why.startswith(f"{spec.id} lacks its transformer (hpcai-tech/")
    assert why.endswith(f"python -m opensora_demo download {spec.id}")
    write_checkpoint(spec, weights)
    assert store.why_not(spec) == ""
    first = clip_of(spec)
    assert first.std() > 1
    (file,) = paths(spec.weights.network[0], weights)
    if file.name != "model.safetensors":  # a name of its own
        file.rename(weights / file.name)
        assert np.array_equal(clip_of(spec), first)
    else:
        file.rename(weights / file.name)  # could be anybody's
        assert "lacks its transformer" in store.why_not(spec)


def test_files_in_the_hubs_cache_are_found(weights: Path, tmp_path: Path) -> None:
    spec = published("debug-1.2")
    assert isinstance(spec.weights, HubWeights)
    write_checkpoint(spec, weights)
    place = spec.weights.codec[0]
    commit = place.revision
    folder = tmp_path / "cache" / f"models--{place.repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (file,) = paths(place, weights)
    file.rename(folder / "snapshots" / commit / file.name)
    assert store.locate(spec)["codec"] == (folder / "snapshots" / commit / file.name,)


def test_a_pickle_is_opened_only_where_it_is_allowed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = published("debug-1.0")
    assert isinstance(spec.weights, HubWeights)
    write_checkpoint(spec, weights)
    wanted = clip_of(spec)
    (file,) = paths(spec.weights.network[0], weights)
    state = {f"module.{name}": value for name, value in load_file(file).items()}
    file.unlink()
    old = weights / "OpenSora-v1-HQ-16x256x256.pth"
    torch.save({"ema": state, "step": 7}, old)
    with pytest.raises(WeightsError, match=r"OpenSora-v1-HQ-16x256x256\.pth is there, but a pickle: --allow-pickle"):
        build_bundle(spec, CPU)
    monkeypatch.setenv("OPENSORA_ALLOW_PICKLE", "1")
    assert np.array_equal(clip_of(spec), wanted)
    torch.save({"ema": state, "run": Event}, old)  # code in it
    with pytest.raises(WeightsError, match=r"OpenSora-v1-HQ-16x256x256\.pth is no pickle of tensors"):
        build_bundle(spec, CPU)


def test_half_precision_becomes_bfloat16(weights: Path) -> None:
    """As stored on a CPU; but T5 does not fit into float16's range."""
    spec = published("debug-1.2")
    assert isinstance(spec.weights, HubWeights)
    write_checkpoint(spec, weights)
    bundle = build_bundle(spec, CPU)
    assert next(bundle.family.network.parameters()).dtype == torch.float32  # type: ignore[attr-defined]
    assert next(bundle.family.text.encoder.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]
    (file,) = paths(spec.weights.text[0], weights)
    state = {name: value.half() for name, value in load_file(file).items()}
    state["encoder.embed_tokens.weight"] = state["shared.weight"].clone()  # both names, as one publisher has them
    save_file(state, file)
    bundle = build_bundle(spec, CPU)
    assert next(bundle.family.text.encoder.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]


# --- a hub of our own


@dataclass
class Hub:
    """Files of repositories by path; what it was asked; and how it should fail."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # path -> status, X-Error-Code
    break_after: int | None = None  # bytes of a body, once
    ranges: bool = True
    url: str = ""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            repo, _, rest = self.path.lstrip("/").partition("/resolve/")
            path = f"{repo}/{rest.partition('/')[2]}"
            if rest:  # the client asks for other things besides
                hub.asked.append((self.command, path, self.headers["Range"]))
            if path in hub.refuse or path not in hub.files:
                status, code = hub.refuse.get(path, (404, "EntryNotFound"))
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data, first = hub.files[path], 0
            if body and hub.ranges and self.headers["Range"]:
                first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if first else 200)
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", '"' + hashlib.sha256(data).hexdigest() + '"')
            self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            if body and hub.break_after is not None:
                self.wfile.write(data[first : first + hub.break_after])
                hub.break_after = None
                self.close_connection = True
            elif body:
                self.wfile.write(data[first:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr(store, "_BLOCK_BYTES", 4096)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def spec(weights: Path, hub: Hub) -> ModelSpec:
    """A published model whose transformer is on the hub, the rest is here."""
    found = published("debug-1.2")
    assert isinstance(found.weights, HubWeights)
    write_checkpoint(found, weights)
    (file,) = paths(found.weights.network[0], weights)
    hub.files[f"{found.weights.network[0].repo}/model.safetensors"] = file.read_bytes()
    file.unlink()
    return found


def transformer(spec: ModelSpec, weights: Path) -> Path:
    assert isinstance(spec.weights, HubWeights)
    return paths(spec.weights.network[0], weights)[0]


def test_what_is_missing_is_fetched(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    news = list(store.download(spec))
    assert [n.file for n in news][-1] == "model.safetensors"
    assert news[-1].done_bytes == news[-1].total_bytes == transformer(spec, weights).stat().st_size
    assert [n.done_bytes for n in news] == sorted(n.done_bytes for n in news)
    assert clip_of(spec).std() > 1
    assert list(store.download(spec)) == []
    assert not list(weights.rglob("*.part"))
    assert {path for _, path, _ in hub.asked} == {"hpcai-tech/OpenSora-STDiT-v3/model.safetensors"}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(spec: ModelSpec, weights: Path, hub: Hub, ranges: bool) -> None:
    (data,) = hub.files.values()
    hub.break_after, hub.ranges = len(data) // 3, ranges
    with pytest.raises(
        WeightsError, match=r"OpenSora-STDiT-v3/model\.safetensors: the hub cannot be reached|came with"
    ):
        list(store.download(spec))
    part = transformer(spec, weights).with_name("model.safetensors.part")
    here = part.stat().st_size
    assert 0 < here < len(data)
    assert "lacks its transformer" in store.why_not(spec)  # half a file is none
    news = list(store.download(spec))
    assert news[0].done_bytes == here
    assert [asked for asked in hub.asked if asked[2]] == [
        ("GET", asked[1], f"bytes={here}-") for asked in hub.asked[-1:]
    ]
    assert transformer(spec, weights).read_bytes() == data


def test_a_file_that_changed_meanwhile_begins_anew(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    (name,) = hub.files
    hub.break_after = 1000
    with pytest.raises(WeightsError):
        list(store.download(spec))
    hub.files[name] = hub.files[name][:-1] + b"?"
    list(store.download(spec))
    assert transformer(spec, weights).read_bytes() == hub.files[name]
    assert not any(asked[2] for asked in hub.asked)


def test_damage_is_noticed(spec: ModelSpec, weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: hashlib.sha256(b"another"))
    with pytest.raises(WeightsError, match="came damaged"):
        list(store.download(spec))
    assert not transformer(spec, weights).exists()
    assert not list(weights.rglob("*.part"))


def test_one_download_at_a_time(spec: ModelSpec, hub: Hub) -> None:
    going = store.download(spec)
    next(going)
    with pytest.raises(WeightsError, match="another download is going on here"):
        list(store.download(spec))
    going.close()  # type: ignore[attr-defined]
    list(store.download(spec))


def test_two_processes_do_not_write_one_file(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    other = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("mine", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", other, str(weights / ".download.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(WeightsError, match="another download is going on here"):
            list(store.download(spec))
        process.kill()  # it takes its lock with it
    list(store.download(spec))
    assert store.why_not(spec) == ""


def test_of_several_files_only_the_missing_come(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    assert isinstance(spec.weights, HubWeights)
    (place,) = spec.weights.network
    shards = replace(place, files=("a.safetensors", "b.safetensors"))
    several = replace(spec, weights=replace(spec.weights, network=(shards,)))
    hub.files |= {f"{place.repo}/{name}": name.encode() * 9 for name in shards.files}
    list(store.download(several))
    (weights / place.repo.split("/")[1] / "b.safetensors").unlink()
    hub.asked.clear()
    news = list(store.download(several))
    assert [path for verb, path, _ in hub.asked if verb == "GET"] == [f"{place.repo}/b.safetensors"]
    assert news[-1].done_bytes == news[-1].total_bytes


def test_stopping_keeps_what_has_come(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    stop = Event()

    def stop_early(news: store.Fetching) -> None:
        if news.done_bytes > 8000:
            stop.set()

    with pytest.raises(Cancelled, match="the next one goes on from here"):
        deque(map(stop_early, store.download(spec, stop)))
    assert transformer(spec, weights).with_name("model.safetensors.part").stat().st_size > 8000
    list(store.download(spec))
    assert store.why_not(spec) == ""


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "GatedRepo", "is gated: accept its terms on its page"),
        (401, "RepoNotFound", "is not on the hub, or private"),
        (404, "RepoNotFound", "is not on the hub, or private"),
        (404, "RevisionNotFound", "no longer has the commit"),
        (404, "EntryNotFound", "is not in its repository any more"),
        (500, "", "the hub answers|cannot be reached"),
    ],
)
def test_refusals_have_a_sentence(spec: ModelSpec, hub: Hub, status: int, code: str, sentence: str) -> None:
    hub.refuse = dict.fromkeys(hub.files, (status, code))
    with pytest.raises(WeightsError, match=rf"OpenSora-STDiT-v3/model\.safetensors.*({sentence})"):
        list(store.download(spec))


def test_offline_asks_nobody(spec: ModelSpec, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENSORA_OFFLINE", "1")
    with pytest.raises(WeightsError, match="the hub is not asked"):
        list(store.download(spec))
    assert hub.asked == []


def test_the_command_line_fetches_and_says_where(
    spec: ModelSpec, weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODELS, spec.id, spec)
    monkeypatch.setattr(store.os, "environ", dict(store.os.environ))  # the flags below are kept in it
    assert main(["download", spec.id, "--offline"]) == 2
    assert f"{spec.id} lacks 1 of its files, and the hub is not asked (offline)" in capsys.readouterr().err
    del store.os.environ["OPENSORA_OFFLINE"]
    assert main(["download", spec.id]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["files"]["transformer"] == [str(transformer(spec, weights))]
    assert "model.safetensors: 0.00 of 0.00 GB" in captured.err
    assert f"{spec.id} is complete" in captured.err


def test_a_full_disk_is_noticed_before(
    spec: ModelSpec, weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(WeightsError, match=r"has room for 0\.0 GB; set OPENSORA_WEIGHTS"):
        list(store.download(spec))
    assert [method for method, _, _ in hub.asked] == ["HEAD"]


def test_every_published_part_has_a_place_to_download_it_from() -> None:
    for spec in MODELS.values():
        if isinstance(spec.weights, HubWeights):
            for part, places in spec.weights.parts().items():
                assert not places[0].files[0].endswith(store.PICKLES), (spec.id, part)
                assert all(place.revision == "main" or len(place.revision) == 40 for place in places)
                assert len({place.repo for place in places} | {place.files for place in places}) > 1
            assert isinstance(spec.weights.network[0], HubFiles)
