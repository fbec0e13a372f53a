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
from opensora_demo.catalog import MODELS, ModelSpec, WeightFiles
from opensora_demo.catalog.nano import NANO_CROSS
from opensora_demo.catalog.spec import HubFiles
from opensora_demo.cli import main
from opensora_demo.errors import Cancelled, WeightsError
from opensora_demo.messages import render
from opensora_demo.runtime.bundle import build_bundle
from opensora_demo.weights import store
from tests.unit.checkpoints import CPU, clip_of, options_of, published

ROOT = Path(__file__).resolve().parents[2]


def reason(spec: ModelSpec, weights: Path) -> str:
    """Why it cannot run, in English."""
    why = store.unavailable_reason(spec, options_of(weights))
    assert why is not None
    return render(why)


@pytest.mark.parametrize("model", ["debug-1.0", "debug-1.2", "debug-2.0"])
def test_published_files_load_and_run(model: str, weights: Path) -> None:
    """Published names, dtypes and tokenizers; the same from `weights/<repository>/` and from the layout of ./ckpts."""
    spec = published(model)
    assert spec.published
    why = reason(spec, weights)
    assert why.startswith(f"{spec.id} lacks its transformer (hpcai-tech/")
    assert why.endswith(f"python -m opensora_demo download {spec.id}")
    write_checkpoint(spec, weights)
    assert store.unavailable_reason(spec, options_of(weights)) is None
    first = clip_of(spec, options_of(weights))
    assert first.std() > 1
    (file,) = paths(spec.published.network[0], weights)
    if file.name != "model.safetensors":  # a name of its own
        file.rename(weights / file.name)
        assert np.array_equal(clip_of(spec, options_of(weights)), first)
    else:
        file.rename(weights / file.name)  # could be anybody's
        assert "lacks its transformer" in reason(spec, weights)


def test_files_in_the_hubs_cache_are_found(weights: Path, tmp_path: Path) -> None:
    spec = published("debug-1.2")
    assert spec.published
    write_checkpoint(spec, weights)
    place = spec.published.codec[0]
    commit = place.revision
    folder = tmp_path / "cache" / f"models--{place.repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (file,) = paths(place, weights)
    file.rename(folder / "snapshots" / commit / file.name)
    assert store.locate(spec, options_of(weights))["codec"] == (folder / "snapshots" / commit / file.name,)


def test_a_pickle_is_opened_only_where_it_is_allowed(weights: Path) -> None:
    spec = published("debug-1.0")
    assert spec.published
    write_checkpoint(spec, weights)
    wanted = clip_of(spec, options_of(weights))
    (file,) = paths(spec.published.network[0], weights)
    state = {f"module.{name}": value for name, value in load_file(file).items()}
    file.unlink()
    old = weights / "OpenSora-v1-HQ-16x256x256.pth"
    torch.save({"ema": state, "step": 7}, old)
    with pytest.raises(WeightsError, match=r"OpenSora-v1-HQ-16x256x256\.pth is there, but a pickle: --allow-pickle"):
        build_bundle(spec, CPU, options_of(weights))
    allowed = options_of(weights, allow_pickle=True)
    assert np.array_equal(clip_of(spec, allowed), wanted)
    torch.save({"ema": state, "run": Event}, old)  # code in it
    with pytest.raises(WeightsError, match=r"OpenSora-v1-HQ-16x256x256\.pth holds more than tensors"):
        build_bundle(spec, CPU, allowed)


def test_half_precision_becomes_bfloat16(weights: Path) -> None:
    """As stored on a CPU; but T5 does not fit into float16's range."""
    spec = published("debug-1.2")
    assert spec.published
    write_checkpoint(spec, weights)
    bundle = build_bundle(spec, CPU, options_of(weights))
    assert next(bundle.family.network.parameters()).dtype == torch.float32  # type: ignore[attr-defined]
    assert next(bundle.family.text.encoder.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]
    (file,) = paths(spec.published.text[0], weights)
    state = {name: value.half() for name, value in load_file(file).items()}
    state["encoder.embed_tokens.weight"] = state["shared.weight"].clone()  # both names, as one publisher has them
    save_file(state, file)
    bundle = build_bundle(spec, CPU, options_of(weights))
    assert next(bundle.family.text.encoder.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]


# --- a hub of our own


@dataclass
class Hub:
    """Files of repositories by path; what it was asked; and how it should fail."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # path -> status, X-Error-Code
    break_after: int | None = None  # bytes of a body, once
    in_git: bool = False  # small files are, and have git's names for tags
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
            tag = hashlib.sha1(b"blob %d\0" % len(data) + data) if hub.in_git else hashlib.sha256(data)
            self.send_header("ETag", f'"{tag.hexdigest()}"')
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
    assert found.published
    write_checkpoint(found, weights)
    (file,) = paths(found.published.network[0], weights)
    hub.files[f"{found.published.network[0].repo}/model.safetensors"] = file.read_bytes()
    file.unlink()
    return found


def transformer(spec: ModelSpec, weights: Path) -> Path:
    assert spec.published
    return paths(spec.published.network[0], weights)[0]


def test_what_is_missing_is_fetched(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    news = list(store.download(spec, options_of(weights)))
    assert [n.file for n in news][-1] == "model.safetensors"
    assert news[-1].done_bytes == news[-1].total_bytes == transformer(spec, weights).stat().st_size
    assert [n.done_bytes for n in news] == sorted(n.done_bytes for n in news)
    assert clip_of(spec, options_of(weights)).std() > 1
    assert list(store.download(spec, options_of(weights))) == []
    assert not list(weights.rglob("*.part"))
    assert {path for _, path, _ in hub.asked} == {"hpcai-tech/OpenSora-STDiT-v3/model.safetensors"}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(spec: ModelSpec, weights: Path, hub: Hub, ranges: bool) -> None:
    (data,) = hub.files.values()
    hub.break_after, hub.ranges = len(data) // 3, ranges
    with pytest.raises(
        WeightsError, match=r"OpenSora-STDiT-v3/model\.safetensors: the hub cannot be reached|came with"
    ):
        list(store.download(spec, options_of(weights)))
    part = transformer(spec, weights).with_name("model.safetensors.part")
    here = part.stat().st_size
    assert 0 < here < len(data)
    assert "lacks its transformer" in reason(spec, weights)  # half a file is none
    news = list(store.download(spec, options_of(weights)))
    assert news[0].done_bytes == here
    assert [asked for asked in hub.asked if asked[2]] == [
        ("GET", asked[1], f"bytes={here}-") for asked in hub.asked[-1:]
    ]
    assert transformer(spec, weights).read_bytes() == data


def test_a_file_that_changed_meanwhile_begins_anew(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    (name,) = hub.files
    hub.break_after = 1000
    with pytest.raises(WeightsError):
        list(store.download(spec, options_of(weights)))
    hub.files[name] = hub.files[name][:-1] + b"?"
    list(store.download(spec, options_of(weights)))
    assert transformer(spec, weights).read_bytes() == hub.files[name]
    assert not any(asked[2] for asked in hub.asked)


def test_damage_is_noticed(spec: ModelSpec, weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: hashlib.sha256(b"another"))
    with pytest.raises(WeightsError, match="came damaged"):
        list(store.download(spec, options_of(weights)))
    assert not transformer(spec, weights).exists()
    assert not list(weights.rglob("*.part"))


def test_damage_of_a_small_file_is_noticed(
    spec: ModelSpec, weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no SHA-256 on the hub, but a name in git."""
    hub.in_git = True
    list(store.download(spec, options_of(weights)))
    file = transformer(spec, weights)
    about = json.loads(file.with_name(file.name + ".json").read_text())
    assert len(about["git_sha1"]) == 40
    file.unlink()
    (data,) = hub.files.values()
    file.with_name(file.name + ".part").write_bytes(b"?" + data[1:9000])  # what an earlier download left, spoilt
    with pytest.raises(WeightsError, match="came damaged"):
        list(store.download(spec, options_of(weights)))
    list(store.download(spec, options_of(weights)))
    assert file.read_bytes() == data


def test_one_download_at_a_time(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    going = store.download(spec, options_of(weights))
    next(going)
    with pytest.raises(WeightsError, match="another download is going on here"):
        list(store.download(spec, options_of(weights)))
    going.close()  # type: ignore[attr-defined]
    list(store.download(spec, options_of(weights)))


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
            list(store.download(spec, options_of(weights)))
        process.kill()  # it takes its lock with it
    list(store.download(spec, options_of(weights)))
    assert store.unavailable_reason(spec, options_of(weights)) is None


def test_of_several_files_only_the_missing_come(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    assert spec.published
    (place,) = spec.published.network
    shards = replace(place, files=("a.safetensors", "b.safetensors"))
    several = replace(spec, weights=replace(spec.published, network=(shards,)))
    hub.files |= {f"{place.repo}/{name}": name.encode() * 9 for name in shards.files}
    list(store.download(several, options_of(weights)))
    (weights / place.repo.split("/")[1] / "b.safetensors").unlink()
    hub.asked.clear()
    news = list(store.download(several, options_of(weights)))
    assert [path for verb, path, _ in hub.asked if verb == "GET"] == [f"{place.repo}/b.safetensors"]
    assert news[-1].done_bytes == news[-1].total_bytes


def test_stopping_keeps_what_has_come(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    stop = Event()

    def stop_early(news: store.Fetching) -> None:
        if news.done_bytes > 8000:
            stop.set()

    with pytest.raises(Cancelled, match="the next one goes on from here"):
        deque(map(stop_early, store.download(spec, options_of(weights), stop)))
    assert transformer(spec, weights).with_name("model.safetensors.part").stat().st_size > 8000
    list(store.download(spec, options_of(weights)))
    assert store.unavailable_reason(spec, options_of(weights)) is None


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
@pytest.mark.slow
def test_refusals_have_a_sentence(
    spec: ModelSpec, weights: Path, hub: Hub, status: int, code: str, sentence: str
) -> None:
    hub.refuse = dict.fromkeys(hub.files, (status, code))
    with pytest.raises(WeightsError, match=rf"OpenSora-STDiT-v3/model\.safetensors.*({sentence})"):
        list(store.download(spec, options_of(weights)))


def test_offline_asks_nobody(spec: ModelSpec, weights: Path, hub: Hub) -> None:
    with pytest.raises(WeightsError, match="the hub is not asked"):
        list(store.download(spec, options_of(weights, offline=True)))
    assert hub.asked == []


def test_the_command_line_fetches_and_says_where(
    spec: ModelSpec, weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODELS, spec.id, spec)
    assert main(["download", spec.id, "--offline"]) == 2
    assert f"{spec.id} lacks 1 of its files, and the hub is not asked (offline)" in capsys.readouterr().err
    assert main(["download", spec.id]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["files"]["transformer"] == [str(transformer(spec, weights))]
    assert "model.safetensors: 0.00 of 0.00 GB" in captured.err
    assert f"{spec.id} is complete" in captured.err


@pytest.mark.parametrize(("answer", "argv", "fetched"), [("n", [], False), ("", [], True), ("n", ["--yes"], True)])
def test_at_a_terminal_gigabytes_are_confirmed(
    spec: ModelSpec,
    weights: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    argv: list[str],
    fetched: bool,
) -> None:
    monkeypatch.setitem(MODELS, spec.id, spec)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    assert main(["download", spec.id, *argv]) == 0
    assert f"to fetch into {weights}, which has room for" in capsys.readouterr().err
    assert transformer(spec, weights).is_file() == fetched


def test_a_borrowed_file_is_found_before_there_is_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is trained for the first time begins with another one's codec and words."""
    monkeypatch.setattr(store, "ASSETS", tmp_path)
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "text.safetensors").touch()
    weights = NANO_CROSS.weights
    assert isinstance(weights, WeightFiles)
    assert store.asset(weights, weights.text[0]).is_file()
    assert not (tmp_path / "nano-cross").exists()


def test_sizes_of_published_files_are_those_of_their_tensors() -> None:
    """As the recorded manifests count them; T5 and CLIP, which have none, are named for all models alike."""
    recorded = json.loads((ROOT / "tests" / "reference" / "manifests" / "meta.json").read_text())
    for model, manifest, number in (
        ("opensora-1.0-256", "v10_stdit_xl2_16x256x256", 4),
        ("opensora-1.0-512", "v10_stdit_xl2_16x512x512", 4),
        ("opensora-1.1", "v11_stdit2_xl2", 4),
        ("opensora-1.2", "v12_stdit3_xl2", 4),
        ("opensora-1.3", "v13_stdit3_xl2", 4),
        ("opensora-2.0", "v20_mmdit_11b", 2),
        ("opensora-2.0-dcae", "v20_mmdit_11b_dcae", 2),
    ):
        places = MODELS[model].published
        assert places is not None
        assert places.network[0].size_bytes == pytest.approx(
            number * recorded[manifest]["num_state_elements"], rel=0.01
        )
        assert all(place[0].size_bytes > 0 for place in places.parts().values())
    for model, manifest, number in (
        ("opensora-1.2", "v12_vae_pipeline", 4),
        ("opensora-1.3", "v13_vae", 2),
        ("opensora-2.0", "v20_hunyuan_vae", 2),
        ("opensora-2.0-dcae", "v20_dcae_f32t4c128", 2),
    ):
        places = MODELS[model].published
        assert places is not None
        assert places.codec[0].size_bytes == pytest.approx(number * recorded[manifest]["num_state_elements"], rel=0.01)
    places = MODELS["opensora-2.0"].published
    assert places is not None
    both = [place[0].size_bytes for place in places.parts().values()]
    assert store.download_bytes(MODELS["opensora-2.0"], options_of(Path("nowhere"))) == sum(both)


def test_a_full_disk_is_noticed_before(
    spec: ModelSpec, weights: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(WeightsError, match=r"has room for 0\.0 GB; set OPENSORA_WEIGHTS"):
        list(store.download(spec, options_of(weights)))
    assert [method for method, _, _ in hub.asked] == ["HEAD"]


def test_every_published_part_has_a_place_to_download_it_from() -> None:
    for spec in MODELS.values():
        if spec.published:
            for part, places in spec.published.parts().items():
                assert not places[0].files[0].endswith(store.PICKLES), (spec.id, part)
                assert all(place.revision == "main" or len(place.revision) == 40 for place in places)
                assert len({place.repo for place in places} | {place.files for place in places}) > 1
            assert isinstance(spec.published.network[0], HubFiles)
