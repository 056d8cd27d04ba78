"""The page that lets a person try the models, in a real browser: headless Chromium without a way to other machines."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image
from sklearn.datasets import load_digits

from service.store import open_store
from serving.http.keys import new_key
from serving.http.settings import Http, Models, ServeSettings
from serving.http.uploads import to_png
from tests.jobs.sonification.tones import CLASSES
from tests.ports import free_port
from tests.serving import in_process
from tests.serving.models import DIGITS, put, put_classifier, put_recogniser, put_segmenter
from tests.serving.songs import RATE as SONG_RATE
from tests.serving.songs import excerpt, put_songs
from tests.serving.squares import blue_patch, put_patch, put_squares, scene

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip(f"there is no browser at {CHROMIUM}", allow_module_level=True)

NARROW = {"width": 390, "height": 800}
HOSTILE = "<img src=x onerror=\"document.title='run'\">"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("browser") / "store")
    folder = open_store(uri)
    put_classifier(folder, "digits", description=HOSTILE)
    put_classifier(folder, "photos", channels=3, settings={"classes": DIGITS, "resize": 11})
    put_segmenter(folder, "ground")
    put_recogniser(folder, "words")
    put_songs(folder, "tunes")
    put(folder, "sums")
    put(folder, "mazes", "dt_net_2d")
    put(folder, "walk", task="walking")
    put_squares(folder, "squares")
    put_patch(folder, "blue", blue_patch())
    return uri


@pytest.fixture(scope="module")
def url(store: str) -> Iterator[str]:
    settings = ServeSettings(http=Http(port=free_port()), models=Models(trusted=("tests",)))
    with in_process.listening(settings, store) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """A page that must not complain, and that must ask nothing but its own server."""
    context = browser.new_context(viewport=NARROW, color_scheme="dark", reduced_motion="reduce", accept_downloads=True)
    made = context.new_page()
    complaints: list[str] = []
    made.on("console", lambda each: None if "status of 400" in each.text else complaints.append(each.text))
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("request", lambda each: None if each.url.startswith((url, "blob:")) else complaints.append(each.url))
    made.set_default_timeout(20_000)
    yield made
    assert not complaints
    assert made.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    context.close()


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    Image.fromarray((load_digits().images[0] * 255 / 16).astype("uint8")).save(path)
    return path


def attack(page: Any, epsilon: str) -> str:
    """Attack what was uploaded. The sentence about the result."""
    page.get_by_label("Radius epsilon, as a number").fill(epsilon)
    page.get_by_role("button", name="Attack", exact=True).click()
    return str(page.locator(".attacked:not(.stale) .verdict").inner_text())


def code(page: Any, language: str) -> str:
    page.get_by_role("tab", name=language, exact=True).click()
    return str(page.locator("pre code").inner_text())


def run_python(folder: Path, text: str) -> str:
    return subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_digit_is_uploaded_predicted_and_attacked(page: Any, url: str, digit: Path, tmp_path: Path) -> None:
    """What the page shows is what the server answers, and the code on it does the same again."""
    page.goto(url)
    page.get_by_role("link", name="digits").click()
    page.get_by_text("walking: not served").wait_for()
    assert page.locator("h1 + * + p").inner_text() == HOSTILE
    page.set_input_files("input[type=file]", digit)
    shown = page.locator(".answer").inner_text().split()[0]
    sent = {"content": digit.read_bytes(), "headers": {"Content-Type": "image/png"}}
    answer = httpx.post(f"{url}/v2/models/digits/infer?outputs=prediction", **sent).json()
    names = httpx.get(f"{url}/v2/models/digits").json()["parameters"]["settings"]["classes"]
    assert shown == names[answer["outputs"][0]["data"][0]]

    with page.expect_download() as download:
        page.locator("a.download").click()
    download.value.save_as(tmp_path / "image.png")
    assert (np.asarray(Image.open(tmp_path / "image.png").convert("L")) == np.asarray(Image.open(digit))).all()
    assert f"prediction {answer['outputs'][0]['data']}" in run_python(tmp_path, code(page, "tritonclient"))

    sentence = attack(page, "0.4")
    assert re.fullmatch(rf"{shown} → \w+(, but not .*)?", sentence)
    assert page.locator(".triple canvas").count() == 3
    number = names.index(sentence.split()[2].rstrip(","))
    printed = run_python(tmp_path, code(page, "Python"))
    assert f"adversarial_prediction [1] [{number}]" in printed
    done = subprocess.run(code(page, "curl"), shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"name":"adversarial_prediction"' in done.stdout


def test_what_is_shown_is_what_the_model_gets(page: Any, url: str, tmp_path: Path) -> None:
    """A model that cuts out the centre: the perturbation, measured against what is shown, is as large as was asked."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 37, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    page.goto(f"{url}/#/photos")
    page.get_by_label("Radius epsilon, as a number").fill("0.0125")  # before there is a picture: it stays
    page.set_input_files("input[type=file]", tmp_path / "noise.png")
    page.get_by_role("button", name="Attack", exact=True).click()
    page.locator(".attacked:not(.stale) .verdict").wait_for()
    assert "±0.0125. L∞ norm 0.0125." in page.locator(".triple").inner_text()


def test_the_keyboard_is_enough(page: Any, url: str) -> None:
    """A stroke on the sheet with the arrow keys, and an attack from its number and button."""
    page.goto(f"{url}/#/digits")
    page.locator(".sheet").focus()
    for key in (" ", *["ArrowDown"] * 5, *["ArrowRight"] * 5, " "):
        page.keyboard.press(key)
    assert page.locator(".answer").inner_text()
    page.get_by_label("Radius epsilon, as a number").focus()
    page.keyboard.type("0")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".attacked:not(.stale) .verdict").inner_text()


def test_the_options_of_an_attack_are_those_that_the_server_names(
    page: Any, url: str, digit: Path, tmp_path: Path
) -> None:
    """Every attack with every option; set with the keyboard, they are sent, and the code has them."""
    page.goto(f"{url}/#/digits")
    page.set_input_files("input[type=file]", digit)
    attacks = httpx.get(f"{url}/v2/models/digits").json()["parameters"]["attacks"]
    for name, described in attacks.items():
        page.get_by_label("Attack", exact=True).select_option(name)
        assert page.locator(".options label").all_text_contents() == list(described["parameters"])
    page.get_by_label("Attack", exact=True).select_option("pgd")
    page.locator(".options summary").focus()
    page.keyboard.press("Enter")
    for key in ("Tab", "4", "0", "Tab", "0", ".", "1", "Tab", "2", "Tab", "Space", "Tab", "m", *["Tab"] * 3, "7"):
        page.keyboard.press(key)
    assert attack(page, "0.3")
    values = {"steps": 40, "step_size": 0.1, "restarts": 2, "random_start": False, "loss": "margin", "seed": 7}
    sentence = ", ".join(f"{name} {str(value).lower()}" for name, value in values.items())
    assert page.locator(".options summary").inner_text() == f"Options of pgd: {sentence}"
    assert all(f"{name}={str(value).lower()}" in code(page, "curl") for name, value in values.items())
    (tmp_path / "image.png").write_bytes(digit.read_bytes())
    printed = [run_python(tmp_path, code(page, language)) for language in ("Python", "tritonclient")]
    assert all(repr(name)[1:-1] in code(page, "tritonclient") for name in values)
    for text in printed:
        assert "adversarial_prediction" in text
    assert page.locator(".bars th").first.bounding_box()["height"] < 40, "the name of a class stands in one line"
    page.get_by_label("steps", exact=True).fill("0")
    page.get_by_role("button", name="Attack", exact=True).click()
    assert not page.evaluate("document.activeElement.checkValidity()"), "the field that is wrong is shown"


def test_what_the_server_refuses_is_said_in_its_words(page: Any, url: str, digit: Path) -> None:
    page.goto(f"{url}/#/digits")
    page.set_input_files("input[type=file]", digit)
    page.locator(".answer").wait_for()
    page.get_by_label("Radius epsilon, as a number").fill("0")
    page.get_by_role("button", name="Attack", exact=True).click()
    assert re.match("epsilon must be", page.locator(".error").inner_text())


def test_pixels_get_their_classes(page: Any, url: str, digit: Path) -> None:
    page.goto(f"{url}/#/ground")
    page.set_input_files("input[type=file]", digit)
    page.locator(".legend td").first.wait_for()
    shares = page.locator(".legend .number:nth-child(2)").all_inner_texts()
    assert sum(float(share.removesuffix(" %")) for share in shares) == pytest.approx(100, abs=0.2)
    assert "of the pixels changed their class" in attack(page, "0.1")
    page.locator(".options summary").click()
    page.get_by_label("region").fill("0,0,4,4")
    page.get_by_label("To be taken for").select_option("1")
    assert attack(page, "0.2") and "region=0,0,4,4&target=1" in code(page, "curl")
    assert "'region': '0,0,4,4'" in code(page, "tritonclient").replace('"', "'")


@pytest.mark.parametrize("model", ["sums", "mazes"])
def test_steps_of_thought_come_one_by_one(page: Any, url: str, model: str) -> None:
    page.goto(f"{url}/#/{model}")
    page.get_by_label("Iterations").fill("7")
    page.get_by_role("button", name="Think", exact=True).click()
    page.get_by_text("Iteration 7 of 7").wait_for()
    page.get_by_role("slider", name="Iteration").focus()
    page.keyboard.press("Home")
    assert "Iteration 1 of 7" in page.locator(".verdict").inner_text()
    assert "infer_stream" in code(page, "curl")


def test_a_key_is_asked_for_and_stays_in_the_tab(browser: Any, store: str) -> None:
    token, key = new_key("alice")
    settings = ServeSettings(http=Http(port=free_port()), keys=(key,))
    with in_process.listening(settings, store) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_label("Key").fill("assay-wrong")
        page.keyboard.press("Enter")
        assert "key" in page.get_by_role("alert").inner_text()
        page.get_by_label("Key").fill(token)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="sums").click()
        page.get_by_role("button", name="Think", exact=True).click()
        page.get_by_text("Iteration").first.wait_for()
        assert "$ASSAY_KEY" in code(page, "curl") and token not in page.content()
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.get_by_role("button", name="Forget the key").click()
        page.get_by_label("Key").wait_for()
        page.close()


def test_the_requests_are_listed(page: Any, url: str) -> None:
    page.goto(f"{url}/docs")
    page.locator("#infer summary").click()
    assert "binary_data_output" in page.locator("#infer").inner_text()
    assert "left, top, right, bottom" in page.locator("#infer").inner_text(), "one of two answers in JSON"


def test_a_sound_is_uploaded_played_and_recognised(page: Any, url: str, tmp_path: Path) -> None:
    sound = tmp_path / "tone.wav"
    soundfile.write(sound, np.sin(np.arange(16_000) * 2 * np.pi * 400 / 8000) / 2, 8000)
    page.goto(url)
    page.get_by_role("link", name="words").click()
    page.get_by_label("A sound").set_input_files(sound)
    shown = page.locator(".answer").inner_text().split()[0]
    sent = {"content": sound.read_bytes(), "headers": {"Content-Type": "audio/wav"}}
    answer = httpx.post(f"{url}/v2/models/words/infer?outputs=prediction", **sent).json()
    assert shown.startswith(list(CLASSES)[answer["outputs"][0]["data"][0]])
    play(page, ".try audio")
    assert "Content-Type: audio/" in code(page, "curl")
    with page.expect_download() as download:
        page.locator("a.download").click()
    download.value.save_as(tmp_path / "sound.wav")
    assert f"prediction [1] {answer['outputs'][0]['data']}" in run_python(tmp_path, code(page, "Python"))


def test_a_channel_is_sonified_heard_and_seen(page: Any, url: str, tmp_path: Path) -> None:
    """With the keyboard; what is shown is what the code on the page gets again; a clip may be what it begins with."""
    page.goto(f"{url}/#/words")
    page.get_by_label("Layer").select_option("conv2")
    page.get_by_label("Channel").fill("9")
    page.get_by_role("button", name="Sonify").click()
    assert not page.evaluate("document.activeElement.checkValidity()"), "there are 8 channels"
    page.get_by_label("Channel").fill("5")
    page.locator(".sonification summary").focus()
    page.keyboard.press("Enter")
    page.get_by_label("seconds", exact=True).fill("0.25")
    page.get_by_label("steps", exact=True).fill("20")
    page.get_by_role("button", name="Sonify").focus()
    page.keyboard.press("Enter")
    shown = page.locator(".sonified:not(.stale) .verdict").inner_text()
    start, final = map(float, re.findall(r"-?[0-9.]+", shown))
    assert final > start and "of 8 by this sound" in page.locator(".sonified dl").inner_text()
    box = page.locator(".spectrogram").bounding_box()
    assert box["width"] > 250 and page.locator(".sonified .curve polyline").count() == 1
    play(page, ".sonified audio")
    done = subprocess.run(code(page, "curl"), shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    outputs = {each["name"]: each["data"] for each in json.loads(done.stdout)["outputs"]}
    assert outputs["final"][0] == pytest.approx(final, rel=1e-3)
    assert "rank [1]" in run_python(tmp_path, code(page, "Python"))

    sound = tmp_path / "tone.wav"
    soundfile.write(sound, np.sin(np.arange(2000) * 2 * np.pi * 400 / 8000) / 2, 8000)
    assert page.get_by_label("Begin with").is_disabled()
    page.get_by_label("A sound").set_input_files(sound)
    page.get_by_label("Begin with").select_option("clip")
    page.get_by_label("Excite").select_option("class")
    page.get_by_label("Class").select_option("high")
    page.get_by_role("button", name="Sonify").click()
    page.locator(".sonified:not(.stale) .verdict", has_text="log-probability").wait_for()
    assert re.search(r"sonify\?objective=class&class=high&.*--data-binary @sound.wav", code(page, "curl"), re.S)


def play(page: Any, player: str) -> None:
    page.evaluate(f"document.querySelector('{player}').play()")
    deadline = time.monotonic() + 20
    while not page.evaluate(f"document.querySelector('{player}').currentTime > 0"):
        assert time.monotonic() < deadline, "the sound does not play"
        page.wait_for_timeout(20)


def test_a_song_is_identified_attacked_and_played(page: Any, url: str, tmp_path: Path) -> None:
    """With the keyboard; what comes back is what the server says of the file that the code on the page fetches."""
    sound = tmp_path / "sound.wav"
    soundfile.write(sound, excerpt(3, 8_000).numpy(), SONG_RATE)
    page.goto(f"{url}/#/tunes")
    page.get_by_label("A sound").set_input_files(sound)
    assert page.locator(".answer").inner_text().startswith("tune 3")
    assert "It begins 1.0 s into the song." in page.get_by_role("region", name="Match").inner_text()
    picture = page.locator("canvas.spectrogram")
    described = r"The sound: spectrogram from 0 to 4,000 hertz\. \d+ peaks\."
    assert re.fullmatch(described, picture.get_attribute("aria-label"))
    assert page.evaluate(INK, picture.element_handle()) > 100, "many colours are drawn"
    page.get_by_label("Size epsilon, as a number").fill("0.2")
    page.locator(".options summary").click()
    page.get_by_label("steps", exact=True).fill("20")
    page.get_by_role("button", name="Attack", exact=True).focus()
    page.keyboard.press("Enter")
    verdict = page.locator(".attacked:not(.stale) .verdict")
    verdict.wait_for(timeout=60_000)
    assert re.fullmatch("tune 3 → .+", verdict.inner_text())
    assert page.locator(".pair canvas").count() == page.locator(".pair audio").count() == 2
    assert "white are the" in page.locator(".pair").inner_text()
    page.evaluate("document.querySelectorAll('.pair audio')[1].play()")
    deadline = time.monotonic() + 20
    while not page.evaluate("document.querySelectorAll('.pair audio')[1].currentTime > 0"):
        assert time.monotonic() < deadline, "the changed sound does not play"
        page.wait_for_timeout(20)
    subprocess.run(code(page, "curl"), shell=True, cwd=tmp_path, check=True)
    from_curl = (tmp_path / "answer.wav").read_bytes()
    assert "'assay-successful': 'true'" in run_python(tmp_path, code(page, "Python"))
    assert (tmp_path / "answer.wav").read_bytes() == from_curl
    sent = {"content": from_curl, "headers": {"Content-Type": "audio/wav"}}
    answer = httpx.post(f"{url}/v2/models/tunes/infer?outputs=song", **sent).json()
    assert answer["outputs"][0]["data"] != [3]


def test_objects_are_boxed_and_hidden_by_a_patch(page: Any, url: str, tmp_path: Path) -> None:
    """With the keyboard; what is drawn, told and written as code is what the server says of the changed picture."""
    photo = tmp_path / "scene.png"
    photo.write_bytes(to_png(scene(160, 240, [(16, 24), (120, 80)], [(40, 100)]).numpy()))
    page.goto(f"{url}/#/squares")
    page.set_input_files("input[type=file]", photo)
    objects = page.get_by_role("region", name="Objects")
    page.locator(".legend td").first.wait_for()
    assert objects.locator(".verdict").inner_text() == "person 2, tree 1"
    assert sorted(objects.locator("tbody th").all_inner_texts()) == ["person", "person", "tree"]
    view = objects.locator("canvas.boxed")
    assert view.get_attribute("aria-label") == "The picture: person 2, tree 1"
    colours = page.evaluate(INK, view.element_handle())
    assert colours > 10, "boxes and words are drawn"
    (tmp_path / "image.png").write_bytes(photo.read_bytes())
    assert "count [3]" in run_python(tmp_path, code(page, "tritonclient"))
    page.get_by_label("Least score").focus()
    page.keyboard.press("Home")
    objects.get_by_text("more").wait_for()
    assert "confidence=0.01" in code(page, "curl")
    page.get_by_label("Least score").fill("0.3")
    objects.get_by_text("person 2, tree 1").wait_for()

    assert page.get_by_label("Hide").input_value() == "person"
    assert not page.get_by_label("Patch of the store").is_visible()
    page.locator(".options summary").click()
    for name, value in (("iterations", "30"), ("height", "20"), ("width", "12"), ("scale", "0.6")):
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name="Attack", exact=True).focus()
    page.keyboard.press("Enter")
    verdict = page.locator(".attacked:not(.stale) .verdict")
    verdict.wait_for(timeout=60_000)
    assert verdict.inner_text() == "person: 2 of 2 hidden"
    before, after = page.locator(".pair canvas").all()
    assert before.get_attribute("aria-label") == "Before: person 2, tree 1"
    assert after.get_attribute("aria-label") == "After: tree 1"
    assert page.locator(".patch canvas").evaluate("(canvas) => canvas.width") == pytest.approx(27, abs=3)
    subprocess.run(code(page, "curl"), shell=True, cwd=tmp_path, check=True)
    from_curl = (tmp_path / "answer.png").read_bytes()
    assert "'assay-hidden': '2'" in run_python(tmp_path, code(page, "Python"))
    assert (tmp_path / "answer.png").read_bytes() == from_curl
    sent = {"content": from_curl, "headers": {"Content-Type": "image/png"}}
    told = httpx.post(f"{url}/v2/models/squares/infer?view=objects", **sent).json()
    assert [each["class"] for each in told["objects"]] == ["tree"]

    page.get_by_label("A patch", exact=True).select_option("stored_patch")
    assert page.get_by_label("Patch of the store").input_value() == "blue"
    page.get_by_role("button", name="Attack", exact=True).click()
    page.get_by_text("2 passes through the detector.").wait_for()
    assert "patch=blue" in code(page, "curl") and "iterations" not in code(page, "curl")


INK = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
}"""
