"""The tab "Gallery" as functions and over HTTP: what it shows, who may see it, what leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.datastructures import Headers
from fastapi.testclient import TestClient

from opensora_demo.media import write_mp4
from opensora_demo.request import settings as table
from opensora_demo.service.forms import compare_names
from opensora_demo.service.local import LocalEngine
from opensora_demo.service.options import StorageOptions
from opensora_demo.service.storage import Storage
from opensora_demo.ui.actions.all import Actions, actions_of
from opensora_demo.ui.context import PageContext, may
from opensora_demo.ui.controls import restored_names
from opensora_demo.ui.gallery_files import GalleryFiles
from tests.ui.conftest import FakeBundles, FakePipeline, read

FORM: dict[str, Any] = {
    "model": "nano",
    "prompt": "a red ball",
    "fps": 8,
    "frames": 17,
    "steps": 2,
    "guidance": 4.0,
    "rule": "plain",
}
PROXIED = {"x-forwarded-for": "10.0.0.7"}


@pytest.fixture
def storage(pipeline: FakePipeline, tmp_path: Path) -> Storage:
    engine = LocalEngine(FakeBundles(), generate=pipeline)
    return Storage.open(StorageOptions(folder=tmp_path / "storage"), engine)


@pytest.fixture
def kept(pipeline: FakePipeline, storage: Storage) -> Iterator[Actions]:
    """The functions of a page that keeps what is made."""
    context = PageContext(LocalEngine(FakeBundles(), generate=pipeline), storage=storage)
    yield actions_of(context)
    context.files.close()


def visitor(**headers: str) -> Any:
    return SimpleNamespace(session_hash="a", headers={name.replace("_", "-"): value for name, value in headers.items()})


def event(**data: Any) -> Any:
    return gr.EventData(None, data)


def values(**changes: Any) -> list[Any]:
    form = dict.fromkeys(table.names()) | FORM | changes
    return [form[name] for name in table.names()]


def test_what_is_made_on_the_page_is_kept_and_comes_back(kept: Actions) -> None:
    empty = kept.gallery.look(visitor(), event())
    assert (empty["clips"], empty["count"], empty["runs"], read(empty["queue"])) == ([], 0, [], "nothing waits")
    list(kept.clips.make_clip(visitor(), *values(seed="7")))
    form = dict.fromkeys(compare_names()) | FORM | {"scales": "1, 4", "axis": "none", "rows": ""}
    list(kept.comparison.make_comparison(visitor(), *(form[name] for name in compare_names())))
    table_clip, clip = kept.gallery.look(visitor(), event())["clips"]
    assert clip["prompt"] == "a red ball"
    assert {read(c["name"]): read(c["value"]) for c in clip["chips"]}["seed"] == "7"
    assert table_clip["name"].startswith("compare-")
    back = dict(zip(restored_names(), kept.gallery.use(visitor(), event(name=clip["name"])), strict=True))
    assert (back["seed"]["value"], back["steps"]["value"], back["tabs"]["selected"]) == ("7", 2, "generate")
    again = dict(zip(restored_names(), kept.gallery.use(visitor(), event(name=table_clip["name"])), strict=True))
    assert (again["tabs"]["selected"], again["scales"]["value"]) == ("compare", "1, 4")
    left = kept.gallery.discard(visitor(), event(name=clip["name"]))
    assert [c["name"] for c in left["clips"]] == [table_clip["name"]]
    with pytest.raises(gr.Error, match="no longer here"):
        kept.gallery.use(visitor(), event(name=clip["name"]))


def test_several_prompts_go_into_the_queue_and_out_of_it(kept: Actions, storage: Storage) -> None:
    asked = event(prompts="a red ball\n\na blue star\na green cube", each="1")
    value = kept.gallery.enqueue(visitor(), asked, *values(seed=""))
    assert (value["added"], value["going"], read(value["queue"])) == (3, 3, "3 to make")
    assert [(run["prompt"], run["state"]) for run in value["runs"]] == [
        ("a red ball", "queued"),
        ("a blue star", "queued"),
        ("a green cube", "queued"),
    ]
    assert kept.gallery.look(visitor(), event())["added"] == 0
    value = kept.gallery.stop(visitor(), event(stop=True))
    assert (value["paused"], read(value["queue"])) == (True, "stopped, 3 wait")
    assert not kept.gallery.stop(visitor(), event(stop=False))["paused"]
    value = kept.gallery.remove(visitor(), event(which=value["runs"][1]["id"]))
    assert [run["prompt"] for run in value["runs"]] == ["a red ball", "a green cube"]
    storage.worker.run_all()
    value = kept.gallery.look(visitor(), event())
    assert read(value["queue"]) == "2 done, 0 failed"
    assert [run["prompt"] for run in value["runs"]] == ["a green cube", "a red ball"]  # the newest first
    assert {run["clip"] for run in value["runs"]} == {clip["name"] for clip in value["clips"]}
    assert kept.gallery.remove(visitor(), event(which="ended"))["runs"] == []
    assert kept.gallery.look(visitor(), event())["count"] == 2  # clips stay


def test_a_failed_run_says_why_and_may_try_again(kept: Actions, storage: Storage, pipeline: FakePipeline) -> None:
    kept.gallery.enqueue(visitor(), event(prompts="a red ball"), *values())
    pipeline.error = RuntimeError("a secret of the server")
    storage.worker.run_all()
    (run,) = kept.gallery.look(visitor(), event())["runs"]
    assert run["reason"] is not None
    assert (run["state"], "secret" in read(run["reason"])) == ("failed", False)
    pipeline.error = None
    kept.gallery.retry(visitor(), event(id=run["id"]))
    storage.worker.run_all()
    assert kept.gallery.look(visitor(), event())["runs"][0]["state"] == "done"


def test_a_refusal_names_the_line_and_adds_nothing(kept: Actions, storage: Storage) -> None:
    long = "x" * 10_000
    for data, said in (
        ({"prompts": f"a ball\n{long}"}, "line 2"),
        ({"prompts": " \n# only a comment"}, "at least one line"),
        ({"prompts": 7}, "must be text"),
        ({"prompts": "a ball", "each": "99"}, "between 1 and 16"),
        ({}, "must be text"),
    ):
        with pytest.raises(gr.Error, match=said):
            kept.gallery.enqueue(visitor(), event(**data), *values())
    assert storage.queue.runs() == []


def test_nothing_is_shown_or_kept_behind_a_proxy_unless_asked(kept: Actions, storage: Storage) -> None:
    """Where "alone" was meant: anybody may be behind one."""
    behind = visitor(x_forwarded_for="10.0.0.7")
    for act in (kept.gallery.look, kept.gallery.remove, kept.gallery.stop, kept.gallery.discard, kept.gallery.use):
        with pytest.raises(gr.Error, match="cannot be seen from here"):
            act(behind, event(which="waiting"))
    with pytest.raises(gr.Error, match="cannot be seen from here"):
        kept.gallery.enqueue(behind, event(prompts="a ball"), *values())
    list(kept.clips.make_clip(behind, *values()))
    assert storage.gallery.names() == []


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via", "CF-Connecting-IP", "Fly-Client-IP"],
)
def test_a_proxy_is_known_by_what_it_sends(header: str) -> None:
    own = {"Host": "127.0.0.1:7860", "User-Agent": "a browser", "Accept": "*/*"}
    assert may("alone", own)
    assert not may("alone", own | {header: "192.0.2.1"})
    assert not may("alone", Headers(own | {header: "192.0.2.1"}))
    assert may("always", {header: "192.0.2.1"})
    assert not may("never", own)


def test_a_page_without_storage_has_none(actions: Actions) -> None:
    with pytest.raises(gr.Error, match="cannot be seen from here"):
        actions.gallery.look(visitor(), event())


def test_files_are_served_to_whoever_may_see_them(storage: Storage) -> None:
    storage.gallery.clips.mkdir(parents=True)
    write_mp4(storage.gallery.clips / "nano-a-3-ff.mp4", np.zeros((3, 64, 64, 3), np.uint8), 8, {"prompt": "a ball"})
    (storage.gallery.folder / "secret.mp4").write_bytes(b"of the owner")
    app = FastAPI()
    app.add_middleware(GalleryFiles, storage=storage)
    with TestClient(app, root_path="/behind/a/proxy") as client:
        clip = client.get("/gallery/nano-a-3-ff.mp4", headers={"range": "bytes=4-7"})
        assert (clip.status_code, clip.content, clip.headers["content-type"]) == (206, b"ftyp", "video/mp4")
        assert client.get("/gallery/nano-a-3-ff.webp").headers["content-type"] == "image/webp"
        for name in ("other.mp4", "other.webp", "..%2Fsecret.mp4", "../secret.mp4", "queue/x.json", "nano-a-3-ff.png"):
            assert client.get(f"/gallery/{name}").status_code == 404
        for name in ("nano-a-3-ff.mp4", "nano-a-3-ff.webp"):
            assert client.get(f"/gallery/{name}", headers=PROXIED).status_code == 404
