"""The player of sonified channels, in a real browser: headless Chromium, from a file, without any server."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.sonification.player import Tab, player

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip(f"there is no browser at {CHROMIUM}", allow_module_level=True)

RATE = 16_000
HOSTILE = "</script><img src=x onerror=\"document.title='run'\">"
SECONDS = 4
TIME = "document.getElementById('sound').currentTime"
PAUSED = "document.getElementById('sound').paused"


def tab(layer: str, channel: int, hertz: float, clip: bool = True) -> Tab:
    """A tone that rises, far too loud."""
    place = torch.arange(SECONDS * RATE) / RATE
    sound = 50 * torch.sin(2 * torch.pi * hertz * (1 + place / SECONDS) * place)
    facts = {"rank among channels": "1 of 64", "nearest clip": HOSTILE}
    curve = torch.linspace(-1, channel, 40)
    return Tab(layer, f"channel {channel}", str(channel), sound, curve, facts, sound.flip(0) if clip else None)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    tabs = [tab("conv1", 3, 200), tab("conv1", 8, 400), tab("conv2", 5, 800, clip=False), tab("output", 1, 1600)]
    path = tmp_path_factory.mktemp("player") / "player.html"
    path.write_text(player(f"What the network hears {HOSTILE}", RATE, tabs, ["Sounds are of constant loudness."]))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A page that must not complain, and that must ask for nothing but itself."""
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    made = context.new_page()
    complaints: list[str] = []
    made.on("console", lambda each: complaints.append(each.text))
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("request", lambda each: None if each.url.startswith((address, "data:")) else complaints.append(each.url))
    made.set_default_timeout(20_000)
    made.goto(address)
    yield made
    assert not complaints
    context.close()


def chosen(page: Any) -> str:
    return str(page.locator("[role=tab][aria-selected=true]").get_attribute("title"))


def wait(page: Any, condition: str) -> None:
    """Until it is true. What the page may run does not allow what Playwright has for it."""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def test_a_tab_is_opened_and_its_sound_plays(page: Any) -> None:
    page.get_by_role("tab", name="8", exact=True).click()
    assert page.locator("h2").inner_text() == "conv1 · channel 8"
    page.get_by_role("button", name="Play", exact=True).click()
    wait(page, f"{TIME} > 0.05")
    assert page.locator(".playing").inner_text() == "8"
    assert page.evaluate("document.getElementById('sound').duration") == pytest.approx(SECONDS, abs=0.01)
    page.evaluate(f"{TIME} = {SECONDS} - 0.1")
    wait(page, "document.querySelector('.playing') === null")  # it ends by itself
    page.get_by_role("button", name="Real clip").click()
    wait(page, f"{TIME} > 0.05 && !{PAUSED}")
    page.get_by_role("button", name="Stop the clip").click()
    assert page.evaluate(PAUSED)


def test_the_keyboard_is_enough(page: Any) -> None:
    assert chosen(page) == "conv1 · channel 3"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # there is no third
    assert chosen(page) == "conv1 · channel 8"
    page.keyboard.press("ArrowDown")  # the nearest of a shorter row
    assert chosen(page) == "conv2 · channel 5" and page.get_by_role("button", name="Real clip").is_disabled()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    wait(page, f"{TIME} > 0.05")
    for _ in range(20):
        page.keyboard.press("+")
    assert page.evaluate("document.getElementById('sound').volume") <= 0.8
    page.keyboard.press("Space")
    assert page.evaluate(PAUSED)
    page.keyboard.press("ArrowUp")
    assert chosen(page) == "conv2 · channel 5"


def test_names_are_text(page: Any) -> None:
    assert page.locator("h1").inner_text() == f"What the network hears {HOSTILE}"
    assert page.locator("dd").nth(1).inner_text() == HOSTILE


def test_the_pictures_are_drawn(page: Any) -> None:
    """The spectrogram of a rising tone: its loudest band rises; the curve crosses its whole height."""
    rows = page.evaluate(
        """() => {
          const { width, height } = document.getElementById('picture');
          const { data } = document.getElementById('picture').getContext('2d').getImageData(0, 0, width, height);
          const loudest = column => {
            const values = Array.from({ length: height }, (_, row) => data[4 * (row * width + column) + 1]);
            return values.indexOf(Math.max(...values));
          };
          return [loudest(Math.floor(0.2 * width)), loudest(Math.floor(0.8 * width))];
        }"""
    )
    assert rows[1] < rows[0]
    assert page.locator("#curve path").get_attribute("d").count("L") == 39


def test_it_fits_a_phone(page: Any) -> None:
    """Nothing sticks out, and a fact has the width of the page, not of what is left beside its name."""
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("dd").first.bounding_box()["width"] > 300
