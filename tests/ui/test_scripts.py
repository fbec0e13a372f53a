"""The scripts as Python sees them: their types, their words, their address."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from opensora_demo.messages import LANGUAGES, catalog
from opensora_demo.ui import scripts
from opensora_demo.ui.scripts import UI_ASSETS, content_hash, modules
from opensora_demo.ui.values import types

PYTHON = UI_ASSETS.parents[1] / "opensora_demo"
OF_SCRIPTS = (
    "ui.about.", "ui.chips.", "ui.compare.", "ui.explain.", "ui.gallery.", "ui.queue.", "ui.scope.", "ui.stage.",
    "ui.time.", "ui.toast.",
)  # fmt: skip
SIGNS = {"u + s (c − u)", "¼", "½", "¼×", "½×", "1×", "2×", "?"}  # the same in every language


def sources() -> list[Path]:
    return [UI_ASSETS / module for module in modules()] + sorted(UI_ASSETS.rglob("*.html"))


def codes(files: list[Path]) -> set[str]:
    return {code for file in files for code in re.findall(r'"(ui\.[a-z0-9_.]+)"', file.read_text("utf-8"))}


def test_the_types_of_the_scripts_are_current() -> None:
    """If not: `python -m opensora_demo.ui.values.types`."""
    assert types.FILE.read_text("utf-8") == types.declarations()


def test_a_type_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        types.type_script(list[bytes])


def test_every_word_of_the_scripts_is_in_the_catalogs_and_none_is_left_over() -> None:
    said = codes(sources())
    assert len(said) > 150
    for language in LANGUAGES:
        assert said - set(catalog(language)) == set()
    by_python = codes(sorted(PYTHON.rglob("*.py")))
    assert {code for code in catalog("en") if code.startswith(OF_SCRIPTS)} - said - by_python == set()
    for file in sources():  # a code that is put together cannot be found here
        assert not re.search(r'[`"\']ui\.[a-z0-9_.]*(?:\$\{|["\'] *\+)', file.read_text("utf-8")), file


class Texts(HTMLParser):
    """What a template says by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found += [data.strip()] if data.strip() else []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("aria-label", "title", "placeholder", "alt")]


def test_templates_have_no_words_of_their_own() -> None:
    texts = Texts()
    for file in UI_ASSETS.rglob("*.html"):
        texts.feed(file.read_text("utf-8"))
    assert {text for text in texts.found if not text.isdigit()} == SIGNS


def test_the_address_changes_with_any_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "OF_SAVED_PAGES", ("a/a.css",))
    for name in ("a/a.js", "lib/b.js", "a/a.css"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("export const x = 1;")
    monkeypatch.setattr(scripts, "UI_ASSETS", tmp_path)
    first = content_hash()
    assert re.fullmatch("[0-9a-f]{12}", first)
    (tmp_path / "lib/b.js").write_text("export const x = 2;")
    second = content_hash()
    (tmp_path / "lib/b.js").rename(tmp_path / "lib/c.js")
    third = content_hash()
    (tmp_path / "a/a.css").write_text("p { color: red }")
    assert len({first, second, third, content_hash()}) == 4


def test_every_import_is_of_a_module_that_is_served() -> None:
    for module in modules():
        text = (UI_ASSETS / module).read_text("utf-8")
        for address in re.findall(r'^(?:import|export)\b[^;]*?from "([^"]+)"', text, re.MULTILINE):
            assert address.startswith("."), (module, address)
            assert (UI_ASSETS / module).parent.joinpath(address).resolve().is_file(), (module, address)


def test_modules_of_a_tab_that_is_opened_later_are_not_fetched_with_the_page() -> None:
    tags = scripts.preloads()
    for module in modules():
        later = module.parts[0] in scripts.LATER
        assert (f"/{module.as_posix()}" in tags) != later, module
        if later:
            continue
        text = (UI_ASSETS / module).read_text("utf-8")
        for address in re.findall(r'^(?:import|export)\b[^;]*?from "([^"]+)"', text, re.MULTILINE):
            imported = (UI_ASSETS / module).parent.joinpath(address).resolve().relative_to(UI_ASSETS.resolve())
            assert imported.parts[0] not in scripts.LATER, (module, address)  # it would be fetched all the same
    assert {module.parts[0] for module in modules()} >= set(scripts.LATER)
