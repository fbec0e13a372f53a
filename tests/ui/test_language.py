"""The page in two languages: one table, no text left out."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Iterator

import gradio as gr
import pytest

from opensora_demo.catalog import MODELS, NANO
from opensora_demo.errors import RequestError
from opensora_demo.types import parse_request
from opensora_demo.ui.components import UI_ASSETS
from opensora_demo.ui.handlers import Handlers
from opensora_demo.ui.language import WRITTEN, chinese, head, marked, say, texts_of, translated
from opensora_demo.ui.layout import build_page
from tests.ui.conftest import FakeBundles

# Building a page leaves an event loop to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SAME = {"APG", "CFG-Zero*", "1, 2, 4, 7", "64px", "mp4", "Run"}  # the same in Chinese, or never seen


@pytest.fixture
def page() -> Iterator[gr.Blocks]:
    handlers = Handlers(FakeBundles())
    yield build_page(handlers)
    handlers.files.close()


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What a page leaves to the collector is collected here, where its warnings are expected."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def is_chinese(text: str) -> bool:
    return bool(re.search("[\u4e00-\u9fff]", text))


def test_every_text_of_the_form_is_in_both_languages(page: gr.Blocks) -> None:
    left: list[str] = []
    for block in page.blocks.values():
        if getattr(block, "visible", True) is False and isinstance(block, gr.JSON | gr.File | gr.Image):
            continue  # the parameters of the API
        texts = [getattr(block, name, None) for name in ("label", "info", "placeholder")]
        texts += [block.value] if isinstance(block, WRITTEN) else []  # type: ignore[attr-defined]
        texts += [title for title, _ in getattr(block, "choices", None) or []]
        left += [t for t in texts if isinstance(t, str) and re.search("[A-Za-z]", t) and "__i18n__" not in t]
    titles = {spec.title for spec in MODELS.values()}
    assert set(left) - SAME - titles - {t for t in left if t.startswith("|")} == set()


def test_what_is_said_of_a_model_is_chinese() -> None:
    for spec in MODELS.values():
        for text in texts_of(spec)[:3]:
            found = say(text, "zh-CN,zh;q=0.9,en;q=0.8")
            assert is_chinese(found), text
            assert say(text, "en-GB,zh;q=0.5") == text


def test_numbers_keep_their_order() -> None:
    plan = "4 by 2: 8 clips from one noise for each row, 32 steps of up to 4 clips at once."
    assert re.findall(r"\d+", say(plan, "zh")) == ["4", "2", "8", "32", "4"]
    assert say("unknown words 3", "zh") == "unknown words 3"
    for english, words in chinese().items():
        assert english.count("#") == words.count("#"), english


def test_updates_are_marked_and_keep_their_values() -> None:
    update = translated(gr.update(label="First frame", value="Settings", choices=[("plain", "plain"), ("z", 1)]))
    assert update["label"] == marked("First frame") != "First frame"
    assert update["value"] == "Settings"
    assert update["choices"] == [(marked("plain"), "plain"), ("z", 1)]
    assert translated(gr.skip()) == gr.skip()


def test_the_script_carries_the_table_and_cannot_be_left() -> None:
    script = head()
    assert script.count("</script") == 1  # its own end, and nothing that hides it
    assert "<!--" not in script
    assert "WORDS" not in script
    assert "\u53bb\u566a" in script


def test_what_the_scripts_say_is_in_the_table() -> None:
    """Texts handed to say() as they stand."""
    for name in ("stage", "compare"):
        script = (UI_ASSETS / f"{name}.js").read_text("utf-8")
        for text in re.findall(r'say\("([^"]+)"\)', script):
            assert text in chinese(), (name, text)


WRONG: tuple[dict[str, object], ...] = (
    {"prompt": ""},
    {"prompt": 3},
    {"prompt": "x" * 5000},
    {"prompt": "a", "steps": 1000},
    {"prompt": "a", "steps": "many"},
    {"prompt": "a", "steps": 2.5},
    {"prompt": "a", "fps": 0},
    {"prompt": "a", "frames": 18},
    {"prompt": "a", "seed": -5},
    {"prompt": "a", "seed": 10**400},
    {"prompt": "a", "guidance": float("nan")},
    {"prompt": "a", "guidance": [1, 1]},
    {"prompt": "a", "guidance": list(range(9))},
    {"prompt": "a", "guidance": [1, 2, 3, 4], "rule": ["plain", "apg", "cfg-zero"]},
    {"prompt": "a", "rule": "magic"},
    {"prompt": "a", "rule": []},
    {"prompt": "a", "edit": "x"},
    {"prompt": "a", "sampler": "x"},
)


@pytest.mark.parametrize("raw", WRONG, ids=str)
def test_an_error_is_chinese_and_names_its_field(raw: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(raw, model_id="nano", limits=NANO.limits)
    found = say(str(caught.value), "zh-CN")
    field, rest = found.split("：", 1)
    assert is_chinese(field) or field in ("sampler", "image_guidance")
    assert is_chinese(rest), found
    own = {"plain", "interval", "oscillating", "rescale", "apg", "cfg", "zero", "magic", "nan", "none"}
    assert set(re.findall("[a-z]{3,}", rest)) <= own, found


def test_anything_between_fixed_words_is_kept_and_said_by_itself() -> None:
    told = "Ignored in this link: steps: must lie between 1 and 100, not 999; model: nemo is not offered here."
    assert say(told, "zh") == "链接中被忽略的内容：步数：须在 1 与 100 之间，而不是 999；模型：这里不提供 nemo。"
    told = (
        "**Does not fit here:** this needs about 34.2 GB, and this machine has 25.3; no clip of opensora-2.0 fits here."
    )
    assert say(told, "zh") == "**此处放不下：**约需 34.2 GB，而本机有 25.3 GB；opensora-2.0 的任何视频都放不下。"
    assert say(f"Reads both.\n\n{told}", "zh").endswith(f"\n\n{say(told, 'zh')}")
    assert say("rows: must be at most 4, not 9", "zh") == "行：最多 4 个，而不是 9 个"
    assert say("a (b) {c}: \\1 {}", "zh") == "a (b) {c}: \\1 {}"
    for english, words in chinese().items():
        assert english.count("{}") == words.count("{}"), english
