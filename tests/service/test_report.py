"""The report: one file that needs nothing else and that no label can break."""

from html.parser import HTMLParser

from service.report import ReportPage, render, value_text

HOSTILE = "<script>alert('x')</script>\"&"


class Tags(HTMLParser):
    """The tags of a page, and everything that it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def page(**changes: object) -> ReportPage:
    fields: dict[str, object] = {
        "title": HOSTILE,
        "run_id": HOSTILE,
        "status": "partial",
        "spec_yaml": f"name: {HOSTILE}\n",
        "facts": [("job", HOSTILE)],
        "figures": [(HOSTILE, "image/png", b"\x89PNG")],
        "tables": [(HOSTILE, [HOSTILE, "n"], [[HOSTILE, 0.123456], [None, True]])],
        "trials": [
            (HOSTILE, "finished", True, "3 s", {"height": 1 / 3, HOSTILE: 2.0}),
            ("b", "failed", False, "1 s", {}),
        ],
        "errors": [(HOSTILE, HOSTILE, f"Traceback {HOSTILE}")],
        "provenance": {"cpu": HOSTILE, "packages": {"torch": "2"}},
    }
    return ReportPage(**{**fields, **changes})  # type: ignore[arg-type]


def test_nothing_is_loaded_and_nothing_is_run() -> None:
    tags = Tags(render(page()).decode())
    assert "script" not in tags.tags and "iframe" not in tags.tags
    assert tags.loads and all(each.startswith(("data:image/png;base64,", "#")) for each in tags.loads)
    assert tags.text.count(HOSTILE) >= 10, "labels are shown as they are"


def test_the_numbers_are_there() -> None:
    text = Tags(render(page()).decode()).text
    for shown in ("0.3333", "0.1235", "finished", "failed", "Some trials failed"):
        assert shown in text


def test_a_run_that_has_nothing_yet() -> None:
    empty = page(figures=[], tables=[], trials=[], errors=[], facts=[], provenance={}, status="running")
    assert b"going on" in render(empty)


def test_values() -> None:
    values = [None, True, False, 1.0, 1 / 3, 1e-9, float("nan"), 12_345, "x"]
    assert [value_text(each) for each in values] == ["", "yes", "", "1", "0.3333", "1e-09", "nan", "12345", "x"]
