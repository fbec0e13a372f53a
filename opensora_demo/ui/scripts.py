"""The scripts of `assets/ui` as the browser gets them: plain ES modules, under an address that names their content.

Modules import each other by relative addresses, so a hash in the folder's name is in every one of them: a browser
never runs an old module beside a new one. They are served from a copy, for the same reason: files that change under a
running server must not meet the values of the code it has loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import FileResponse, Response

from opensora_demo.locations import assets_dir
from opensora_demo.service.folders import process_folder
from opensora_demo.ui.served_files import ServedFiles

UI_ASSETS = assets_dir() / "ui"
# What a comparison that is saved as a page takes along beside modules.
KEPT = {"cache-control": "public, max-age=31536000, immutable"}
PICTURES = (Path("card.jpg"), Path("favicon.svg"))
OF_SAVED_PAGES = ("compare/compare.css", "compare/compare.html", "compare/saved.css", "page/page.css")


def modules() -> list[Path]:
    """Every script, relative to `UI_ASSETS`."""
    return sorted(file.relative_to(UI_ASSETS) for file in UI_ASSETS.rglob("*.js"))


def stored() -> list[Path]:
    """The files of `stored_runs` and `make_modes`, relative to `UI_ASSETS`."""
    folders = (UI_ASSETS / name for name in ("stored", "modes"))
    return sorted(file.relative_to(UI_ASSETS) for folder in folders for file in folder.rglob("*.*"))


def examples() -> list[Path]:
    """Clips that came with the demo, and their posters, relative to `UI_ASSETS`."""
    found = (file for ending in ("mp4", "webp") for file in (UI_ASSETS / "examples").rglob(f"*.{ending}"))
    return sorted(file.relative_to(UI_ASSETS) for file in found)


def served() -> list[Path]:
    """All files of the folder that is served, relative to `UI_ASSETS`."""
    pictures = [name for name in PICTURES if (UI_ASSETS / name).is_file()]
    return [*modules(), *map(Path, OF_SAVED_PAGES), *stored(), *examples(), *pictures]


def content_hash() -> str:
    """12 hex digits that change with the name or content of any script, or of what else is served with them."""
    digest = hashlib.sha256()
    for module in served():
        content = (UI_ASSETS / module).read_bytes()
        digest.update(f"{module.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


@cache
def served_at() -> str:
    """The address of the scripts' folder (`PageFiles`), relative to the page's base, as the addresses of Gradio's own
    scripts are: right behind any proxy where the page itself is."""
    return f"ui/{served_folder().name}"


@cache
def served_folder() -> Path:
    """The copy of the files that are served, named by `content_hash`."""
    folder = process_folder() / "ui" / content_hash()
    for module in served():
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(UI_ASSETS / module, folder / module)
    return folder


class PageFiles(ServedFiles):
    """The files of `served_folder`, at "ui/HASH/...". Their address is their content's, so that a browser may keep
    them."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.folder = served_folder()
        self.names = {file.as_posix() for file in served()}
        self.address = re.compile(rf"/{re.escape(served_at())}/(.+)$")

    async def answer(self, found: re.Match[str], scope: Any) -> Response | None:
        return FileResponse(self.folder / found[1], headers=KEPT) if found[1] in self.names else None


def start_line(name: str, events: tuple[str, ...] = (), first: Mapping[str, Any] | None = None) -> str:
    """The body of Gradio's `js_on_load` that starts the module `name`; `events` are what it triggers, which Gradio
    offers on the component if it reads their names here in quotes. `first` are the component's own properties at
    first: an update that comes before its tab was opened takes them away, even one that changes nothing."""
    address = f"{served_at()}/{name}/{name}.js"
    return (
        f"const first = {json.dumps(first or {})};"
        "const known = new Proxy(props, { get: (of, name) => of[name] ?? first[name] });"
        f"import(new URL({json.dumps(address)}, document.baseURI)).then((module) => "
        f"module.start({{ element, trigger, props: known, watch, events: {json.dumps(events)} }}));"
    )


def call_js(script: str, function: str, *given: Any) -> str:
    """The `js` of a listener of Gradio's: a function of a module ("lib/form.js"), called with what is given here and
    then with the listener's inputs."""
    address = json.dumps(f"{served_at()}/{script}")
    first = "".join(f"{json.dumps(value)}, " for value in given)
    return (
        f"(...values) => import(new URL({address}, document.baseURI)).then("
        f"(module) => module.{function}({first}...values))"
    )


LATER = ("compare", "explain", "gallery", "scope")  # folders of modules that are fetched when their tab is first opened


def preloads() -> str:
    """Tags for the page's head that fetch all modules at once rather than import by import."""
    first = [module for module in modules() if module.parts[0] not in LATER]
    return "".join(f'<link rel="modulepreload" href="{served_at()}/{module.as_posix()}">' for module in first)
