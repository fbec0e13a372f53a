"""Messages: two catalogs of the same codes, one renderer, one question about the reader's language."""

from __future__ import annotations

import ast
import copy
import json
import pickle
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from opensora_demo.errors import DemoError, RequestError, WeightsError
from opensora_demo.messages import (
    LANGUAGES,
    PLACE,
    Language,
    Message,
    Param,
    catalog,
    from_json,
    language_of,
    message,
    render,
    to_json,
)

CHINESE = re.compile("[\u4e00-\u9fff]")
NAMES = {
    "LoRA", "APG", "CFG", "Zero", "MAMBO", "TCFG", "FDG", "MLP", "VAE", "FPS", "px", "mp", "exp",
}  # fmt: skip # the same in both languages


def test_both_catalogs_have_the_same_codes_in_order() -> None:
    en, zh = catalog("en"), catalog("zh")
    assert list(en) == sorted(en)
    assert list(zh) == sorted(zh)
    assert set(en) == set(zh)
    assert {code.split(".")[0] for code in en} <= {
        "plain", "join", "request", "weights", "device", "run", "note", "label", "ui",
    }  # fmt: skip


def test_both_catalogs_have_the_same_places() -> None:
    for code, template in catalog("en").items():
        assert sorted(PLACE.findall(template)) == sorted(PLACE.findall(catalog("zh")[code])), code


def test_every_chinese_template_is_chinese() -> None:
    for code, template in catalog("zh").items():
        if set(re.findall("[A-Za-z]{2,}", PLACE.sub("", catalog("en")[code]))) - NAMES:
            assert CHINESE.search(template), code


# What the page's scripts make of the same messages is tested by node: tests/js/messages.test.js.
TABLE = json.loads((Path(__file__).parents[1] / "js" / "messages.json").read_text("utf-8"))
NUMBERS: list[tuple[float, str]] = [
    (0, "0"), (-0.0, "0"), (7.0, "7"), (2.5, "2.5"), (-1.25, "-1.25"), (4294967295, "4294967295"),
    (1e15, "1" + 15 * "0"),
    (0.1 + 0.2, "0.3"), (1234567.8, "1234570"), (99999.96, "100000"), (3.14159265, "3.14159"), (0.00001, "0.00001"),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["en"][:40])
def test_a_message_is_rendered_in_both_languages(row: dict[str, Any]) -> None:
    said = from_json(row["said"])
    assert (render(said, "en"), render(said, "zh")) == (row["en"], row["zh"])
    assert to_json(said) == row["said"]


@pytest.mark.parametrize(("value", "written"), NUMBERS)
def test_a_number_is_written_as_one_expects(value: float, written: str) -> None:
    assert render(message("plain", text=value)) == written


@pytest.mark.parametrize(
    ("said", "wrong"),
    [(message("request.nothing"), "no message"), (message("request.of_field", field="x"), "lacks problem")],
)
def test_a_wrong_message_is_an_error_here_and_still_a_text_for_a_reader(said: Message, wrong: str) -> None:
    with pytest.warns(UserWarning, match=wrong):
        assert render(said)


def test_a_message_is_a_value() -> None:
    one, two = (message("request.between", low=1, high=2, got=message("request.that")) for _ in range(2))
    assert one == two
    assert len({one, two}) == 1
    assert one != message("request.between", low=1, high=2, got=3)
    assert pickle.loads(pickle.dumps(one)) == one
    assert json.loads(json.dumps(to_json(one)))["params"]["got"] == {"code": "request.that", "params": {}}
    listed: tuple[Param, ...] = ("a", 1)
    assert to_json(message("plain", text=listed))["params"] == {"text": ["a", 1]}


TAGS: list[tuple[str | None, Language]] = [
    *((tag, "zh") for tag in (
        "zh", "zh-CN", "zh-TW", "zh-HK", "zh-MO", "zh-SG", "zh-Hans", "zh-Hant", "zh-Hans-CN", "zh-Hant-TW", "ZH_cn",
        "zh_TW", "zh-TW,zh;q=0.9,en-US;q=0.8,en;q=0.7", "en;q=0.5, zh-HK", "de;q=0.2, zh-Hant-TW;q=0.9, en;q=0.3",
        " zh-CN ; q=1",
    )),
    *((tag, "en") for tag in (
        None, "", "*", "en", "en-GB,zh;q=0.5", "de", "de-DE,de;q=0.9,zh;q=0.8", "zhx", "za-CN", "zh;q=0", "zh;q=x, en",
        ";;,,=",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("accepted", "language"), TAGS)
def test_one_question_decides_the_language(accepted: str | None, language: Language) -> None:
    assert language_of(accepted) == language


def test_an_error_carries_its_message() -> None:
    error = RequestError("steps", message("request.between", low=1, high=100, got=999))
    assert str(error) == "steps: must lie between 1 and 100, not 999"
    assert [render(error.message, language) for language in LANGUAGES] == [
        "Steps: must lie between 1 and 100, not 999",
        "步数：须在 1 与 100 之间，而不是 999",
    ]
    assert render(RequestError("sampler", message("request.unknown")).message, "zh") == "sampler：不是本演示的设置"
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (again.field, again.message, str(again)) == (error.field, error.message, str(error))
    assert str(WeightsError(message("request.missing"))) == "is missing"
    assert pickle.loads(pickle.dumps(DemoError(message("request.missing")))).message == message("request.missing")


# --- every code that is used exists, and the other way round

ROOT = Path(__file__).resolve().parents[2]
GROUPS = "request|weights|device|run|note|label|ui|join"
CODE = re.compile(rf"(?:{GROUPS})\.[\w.*-]+")  # * stands for what is put in when it runs


def codes_of_python(file: Path) -> set[str]:
    found: set[str] = set()
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            found.add(node.value)
    return {text for text in found if CODE.fullmatch(text)}


def codes_of_page(file: Path) -> set[str]:
    """Of a script or a template of the page: quoted texts, with an open end where something is added to them."""
    text = file.read_text("utf-8")
    filled = re.sub(r"\$\{[^}]*\}", "*", text)
    quoted = set(re.findall("[\"'`]((?:" + GROUPS + r")\.[\w.*-]+)[\"'`]", text + filled))
    return {code + "*" if code.endswith(".") else code for code in quoted}


@cache
def used_codes() -> dict[str, str]:
    """Code, or pattern of codes -> where it is used."""
    files = [(file, codes_of_python) for file in (ROOT / "opensora_demo").rglob("*.py")]
    pages = [f for kind in ("js", "html") for f in (ROOT / "assets" / "ui").rglob(f"*.{kind}")]
    files += [(file, codes_of_page) for file in pages]
    return {code: str(file.relative_to(ROOT)) for file, codes in files for code in codes(file)}


def test_every_code_that_is_used_is_in_the_catalogs() -> None:
    known, used = catalog("en"), used_codes()
    assert len(used) > 300
    for code, where in used.items():
        assert [known_code for known_code in known if fnmatchcase(known_code, code)], (code, where)


def test_every_code_of_the_catalogs_is_used() -> None:
    used = used_codes()
    left = [code for code in catalog("en") if not any(fnmatchcase(code, pattern) for pattern in used)]
    assert left == ["plain"]
