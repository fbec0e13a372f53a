"""The page in two languages: one table, no text left out."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.helpers import special_args

from opensora_demo.catalog import MODELS, NANO
from opensora_demo.errors import DeviceError, NumericsError, RequestError, WeightsError
from opensora_demo.messages import LANGUAGES, catalog, from_json, listed, message, plain, render
from opensora_demo.request import settings as table
from opensora_demo.request.limits import ALL_RULES
from opensora_demo.request.parse import parse_request
from opensora_demo.service.local import LocalEngine
from opensora_demo.ui.actions.all import Actions
from opensora_demo.ui.context import PageContext
from opensora_demo.ui.controls import compare_note, extras_label, frame_hint, limit_updates, model_note
from opensora_demo.ui.language import SpokenPage, answering, head, mark, speak, spoken_answer, spoken_page
from opensora_demo.ui.page import build_page
from opensora_demo.weights.options import DEFAULT_OPTIONS
from tests.ui.conftest import FakeBundles, FakePipeline

WRITTEN = (gr.Button, gr.Markdown, gr.UploadButton)  # whose value is a text of ours


@pytest.fixture(scope="module")
def page() -> Iterator[gr.Blocks]:
    context = PageContext(LocalEngine(FakeBundles()))
    yield build_page(context)
    context.files.close()


def is_chinese(text: str) -> bool:
    return bool(re.search("[\u4e00-\u9fff]", text))


def texts(page: gr.Blocks) -> Iterator[str]:
    """What the page says before anything happens."""
    for block in page.blocks.values():
        if getattr(block, "visible", True) is False and getattr(block, "label", None) in API:
            continue
        said = [getattr(block, name, None) for name in ("label", "info", "placeholder")]
        said += [block.value] if isinstance(block, WRITTEN) else []  # type: ignore[attr-defined]
        said += [title for title, _ in getattr(block, "choices", None) or []]
        yield from (text for text in said if isinstance(text, str) and text)


API = {*table.names(), "mp4", "settings", "held"}  # labels of hidden parameters, as programs name them
RULE_NAMES = {"APG", "CFG-Zero*", "MAMBO-G", "TCFG", "FDG"}
NAMES = {spec.title for spec in MODELS.values()} | RULE_NAMES | {"Run"}  # Run: of a button nobody sees


def test_every_text_of_the_form_is_in_both_languages(page: gr.Blocks) -> None:
    said = [text for text in texts(page) if re.search("[A-Za-z]", text)]
    assert len(said) > 60
    for text in said:
        english, chinese = speak(text, "en"), speak(text, "zh")
        assert "\ue000" not in english + chinese
        assert is_chinese(chinese) != is_chinese(english) or english in NAMES or re.fullmatch(r"\d+\D+", english), text
        assert not is_chinese(english)


def test_what_is_said_of_a_model_is_chinese() -> None:
    for spec in MODELS.values():
        notes = (model_note(spec), compare_note(spec), frame_hint(spec.limits), extras_label(spec.limits))
        for said in notes:
            assert is_chinese(render(said, "zh"))
            assert not is_chinese(render(said, "en"))
        for update in limit_updates(spec.id).values():
            assert "\ue000" not in str(spoken_answer(update, "zh"))


def test_updates_are_said_and_keep_their_values() -> None:
    title = mark(message("label.reference"))
    update = gr.update(label=title, value="Settings", choices=[(mark(message("label.rule.plain")), "plain"), ("z", 1)])
    (said, told), skipped = spoken_answer(([update, message("ui.settings")], gr.skip()), "zh")
    assert (said["label"], told) == ("首帧", "设置")
    assert said["value"] == "Settings"
    assert said["choices"] == [("普通", "plain"), ("z", 1)]
    assert skipped == gr.skip()
    assert spoken_answer(update, "en")["label"] == "First frame"


def test_a_visitor_s_words_are_no_markdown() -> None:
    typed = "![](//x.io/a) [b](c) <i>1</i> `2` *3* $4$ # 5 | ~6~ &lt; \\7 _8_"
    reason = message("request.numbers_not", got=typed)
    (told,) = spoken_answer([message("note.not_yet", reason=listed(reason, plain("*9*")))], "en")
    assert told.startswith("**Not yet:** ")  # ours is
    theirs = told.removeprefix("**Not yet:** ")
    assert not re.search(r"(?<!\\)(\\\\)*[`*_\[\]<>#|~$&]", theirs)
    assert re.sub(r"\\(.)", r"\1", theirs) == f"{render(reason)}, *9*."


@pytest.mark.parametrize(
    "text", ["\ue000eA==\ue001", "\ue000bnVsbA==\ue001", "\ue000e30=\ue001", "\ue000x\ue001", "\ue000"]
)
def test_what_only_looks_like_a_mark_stays(text: str) -> None:
    assert speak(text, "zh") == text


STEPS = mark(message("label.steps"))


def test_functions_answer_in_the_language_of_the_visitor() -> None:
    def one(event: gr.EventData, *values: str) -> dict[str, Any]:
        return gr.update(label=values[0], value=event)

    def several(request: gr.Request, value: str) -> Iterator[dict[str, Any]]:
        yield gr.update(label=value, value=request)

    visitor = SimpleNamespace(headers={"accept-language": "zh-Hant-TW"})
    assert answering(one)(visitor, "event", STEPS) == gr.update(label="步数", value="event")
    assert list(answering(several)(visitor, "request", STEPS)) == [gr.update(label="步数", value="request")]
    given, *_ = special_args(answering(several), ["Steps"], "request")  # type: ignore[arg-type]
    assert given == ["request", "request", "Steps"]


@pytest.mark.parametrize(("accept", "locale"), [("zh-TW,zh;q=0.9,en;q=0.8", "zh-CN"), ("zh-HK", "zh-CN"), ("de", "en")])
def test_the_page_is_sent_in_the_language_of_the_visitor(accept: str, locale: str) -> None:
    """Between an app that answers in pieces and a browser that asks for it."""
    marks = [STEPS, mark(plain("a <b> & 'q'"))]
    text = f'<html lang="en"><head><title>x</title></head>"{marks[0]}", "{marks[1]}"</html>'

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        for i, piece in enumerate((text.encode()[:61], text.encode()[61:])):
            await send({"type": "http.response.body", "body": piece, "more_body": i == 0})

    async def ask(path: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []

        async def send(event: dict[str, Any]) -> None:
            events.append(event)

        headers = [(b"accept-language", accept.encode())]
        await SpokenPage(app)({"type": "http", "method": "GET", "path": path, "headers": headers}, None, send)
        return events

    start, body = asyncio.run(ask("/demo/"))
    page = body["body"].decode()
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert page.startswith(f'<html lang="{locale}"><head><script>')
    assert f'get: () => "{locale}"' in page
    assert ('"步数",' in page) == (locale == "zh-CN")
    assert r'"a \u003cb\u003e \u0026 \u0027q\u0027"' in page
    assert "".join(event.get("body", b"").decode() for event in asyncio.run(ask("/file=x"))) == text


def test_the_page_carries_the_words_of_its_language_and_they_cannot_be_left() -> None:
    config = json.dumps({"head": head()}, ensure_ascii=False)  # as Gradio hands it to the browser
    for language in LANGUAGES:
        sent = spoken_page(f"<script>window.config = {config}</script>", language)
        assert sent.count("</script") == config.count("</script") + 1  # its own end, and nothing that hides it
        assert "<!--" not in sent
        found = json.loads(sent.removeprefix("<script>window.config = ").removesuffix("</script>"))["head"]
        words = re.search('<script type="application/json" id="messages">(.*?)</script>', found)
        assert words is not None
        assert json.loads(words[1]) == dict(catalog(language))


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
    found = render(caught.value.message, "zh")
    field, rest = found.split("：", 1)
    assert is_chinese(field) or field in ("sampler", "image_guidance")
    assert is_chinese(rest), found
    own = {*re.findall("[a-z]{3,}", " ".join(ALL_RULES)), "magic", "nan", "none"}
    assert set(re.findall("[a-z]{3,}", rest)) <= own, found


CHINESE_VISITOR: Any = SimpleNamespace(session_hash="a", query_params={}, headers={"accept-language": "zh-TW"})
NEEDS: dict[str, Any] = {"need": 34.2, "machine": message("device.this_machine"), "have": 25.3}
FAILURES: tuple[tuple[Exception, str], ...] = (
    (
        WeightsError(message("weights.misfit", what="nano", wrong=message("weights.tensor_missing", tensor="x"))),
        "nano 的权重不匹配：缺少 x",
    ),
    (
        DeviceError(message("device.needs_none", model="nano", **NEEDS)),
        "约需 34.2 GB，而本机有 25.3 GB；nano 的任何视频都放不下",
    ),
    (DeviceError(message("device.out_of_memory")), "设备内存不足；请减少帧数或同时生成的段数"),
    (
        NumericsError(message("run.not_finite", step=2, total=4)),
        "模型在第 2 步（共 4 步）的输出不是有限的数；请换一个引导强度",
    ),
    (OSError(28, "No space left on device"), "服务器磁盘已满，无法写入文件，请稍后重试"),
    (ZeroDivisionError("division by zero"), "出了点问题；详情见服务器日志。"),
)


def spoken(actions: Actions, **changes: Any) -> tuple[list[dict[str, Any]], gr.Error | None]:
    """Values of the stage of a run for a Chinese visitor, and what it raises."""
    form = dict.fromkeys(table.names()) | {"prompt": "a ball", "steps": 4, "seed": 3, "model": "nano"} | changes
    stages: list[dict[str, Any]] = []
    try:
        for stage, _ in answering(actions.clips.make_clip)(CHINESE_VISITOR, CHINESE_VISITOR, *form.values()):
            stages.append(stage)
    except gr.Error as error:
        return stages, error
    return stages, None


def in_chinese(stage: dict[str, Any]) -> str:
    return render(from_json(stage["text"]), "zh")


@pytest.mark.parametrize(("error", "sentence"), FAILURES, ids=lambda value: type(value).__name__)
def test_a_run_that_fails_says_why_in_chinese(
    actions: Actions, pipeline: FakePipeline, error: Exception, sentence: str
) -> None:
    pipeline.error = error
    stages, raised = spoken(actions)
    assert raised is not None
    assert (raised.title, raised.message) == ("未完成", sentence)
    assert (stages[-1]["phase"], in_chinese(stages[-1])) == ("failed", sentence)


def test_a_run_that_is_stopped_says_so_in_chinese(actions: Actions, pipeline: FakePipeline) -> None:
    pipeline.at_step = lambda index: actions.clips.stop(CHINESE_VISITOR) if index == 1 else None
    stages, raised = spoken(actions)
    assert raised is None
    assert stages[-1]["phase"] == "stopped"
    assert re.fullmatch("在第 [12] / 4 步停止", in_chinese(stages[-1]))


def test_a_model_whose_weights_are_not_here_says_so_in_chinese(actions: Actions) -> None:
    _, raised = spoken(actions, model="opensora-1.2")
    assert raised is not None
    assert raised.title == "未运行"
    command = "python -m opensora_demo download opensora-1.2"
    assert command in raised.message
    own = {"Open", "Sora", "VAE", "T5", "hpcai", "tech", "OpenSora", "STDiT", "STDiT3", "v3", "model", "safetensors"}
    left = raised.message.replace(command, "").replace("opensora-1.2", "").replace(str(DEFAULT_OPTIONS.weights_dir), "")
    assert set(re.findall("[A-Za-z][A-Za-z0-9]+", left)) <= own, raised.message


def test_a_visitor_reads_labels_and_a_program_names_of_parameters(page: gr.Blocks, actions: Actions) -> None:
    bad = dict.fromkeys(table.names()) | {"prompt": "a ball", "steps": 1000}
    visitor: Any = SimpleNamespace(session_hash="a", headers={"accept-language": "en-GB"})
    with pytest.raises(gr.Error) as caught:
        next(answering(actions.clips.make_clip)(visitor, visitor, *bad.values()))
    assert caught.value.message == "Steps: must lie between 1 and 100, not 1000"
    public = {function.name: function for function in page.fns.values() if function.api_visibility == "public"}
    assert set(public) == {"generate", "compare"}
    for function in public.values():
        assert function.fn is not None
        with pytest.raises(gr.Error) as caught:
            next(function.fn(visitor, *bad.values()))
        assert caught.value.message == "steps: must lie between 1 and 100, not 1000"


def test_what_a_run_takes_and_why_it_cannot_is_one_sentence_in_each_language() -> None:
    memory: dict[str, Any] = {"need": 34.2, "machine": message("device.this_machine"), "have": 25.3}
    told = message("note.no_fit", reason=message("device.needs_none", model="opensora-2.0", **memory))
    assert render(told, "zh") == "**此处放不下：**约需 34.2 GB，而本机有 25.3 GB；opensora-2.0 的任何视频都放不下。"
    assert render(told).startswith(
        "**Does not fit here:** this needs about 34.2 GB, and this machine has 25.3; no clip"
    )
