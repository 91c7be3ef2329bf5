"""The page that plays, in a real browser: from the keyboard alone, and nothing is fetched."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.sync.client import connect

from avenir.errors import AvenirError
from avenir.serving.overlays import Overlays
from avenir.world import World

from ..test_play_server import Running, guarded, hearing, outside, running  # noqa: F401
from ..test_serving import hearing_run, weather_run  # noqa: F401

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.slow


@pytest.fixture
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: the page that plays was not tried in a browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def pause(page):
    """Wait until play, which begins on its own, has come some way, and stop it by a key."""
    page.wait_for_function("latest.step > 3")
    page.keyboard.press("Space")
    page.wait_for_function("latest.paused")


def opened(browser, running: Running, query: str = "", **context):  # noqa: F811
    """Open the page where nothing else may be fetched, and wait for its first frame."""
    page = browser.new_context(bypass_csp=True, **context).new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda m: m.type == "error" and page.faults.append(m.text))
    here = f"http://{running.address}/"
    page.on(
        "request", lambda r: r.url.startswith((here, "data:", "blob:")) or page.faults.append(r.url)
    )
    page.goto(here + query)
    page.wait_for_selector("canvas")
    return page


def seen(page, stage: str = "world") -> str:
    return page.evaluate(f"document.querySelector('[data-picture={stage}] canvas').toDataURL()")


def step_of(page) -> int:
    return page.evaluate("latest.step")


def test_it_plays_from_the_keyboard_alone(browser, running):  # noqa: F811
    page = opened(browser, running)
    pause(page)
    still = seen(page)
    page.keyboard.press("Home")
    page.wait_for_function("latest.step === 0")
    page.keyboard.press("Space")
    page.keyboard.down("ArrowLeft")
    assert page.locator('[data-key="ArrowLeft"].held').count() == 1
    page.wait_for_function("latest.step > 3")
    page.keyboard.up("ArrowLeft")
    for _ in range(5):
        page.keyboard.press("d", delay=60)
    page.wait_for_function("avenir.latencies.length >= 5")
    assert "of" in page.inner_text("#latency")
    page.keyboard.press("Space")
    page.wait_for_function("latest.paused")
    assert seen(page) != still
    before = step_of(page)
    page.keyboard.press("Backspace")
    page.wait_for_function(f"latest.step < {before}")
    for _ in range(12):  # every control is reached with the tabulator, and shows that it is
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert page.faults == []


def test_the_page_of_an_address_with_a_token_plays(browser, guarded):  # noqa: F811
    page = opened(browser, guarded, "?token=a-Token_9")
    page.wait_for_function("latest.step > 3")
    assert page.faults == []


@pytest.mark.parametrize("steers", [True, False])
def test_the_verb_serves_a_world_that_can_be_stepped(steers, tiny_run, tmp_path):
    run = tiny_run
    if not steers:
        run = tmp_path / "unsteered"
        shutil.copytree(tiny_run, run)
        world = World.load(run, "cpu")
        card = world.card.model_copy(update={"conditioner": None, "signals": {}})
        World(card, world.encoder, None, world.predictor).save(run)
    command = [str(Path(sys.executable).with_name("avenir")), "play", str(run), "--port", "0"]
    process = subprocess.Popen([*command, "--clips", "2"], stderr=subprocess.PIPE, text=True)
    try:
        said = next(line for line in process.stderr if line.startswith("play at "))
        address = said.split()[2]
        with connect(address.replace("http", "ws") + "play", origin=address.rstrip("/")) as page:
            hello = json.loads(page.recv(timeout=20))["hello"]
            assert set(hello["keys"]) == set()  # those of the tiny world are on no keys
            assert hello["backends"] == ["world", "recording"]
            assert len(hello["clips"]) == 2 and hello["clips"][0].startswith("data:image/png")
            page.send('{"do":"step"}')
            heads = [page.recv(timeout=20) for _ in range(2)]
            assert b'"step": 1' in heads[-1]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) is not None
        process.stderr.close()


def test_nothing_on_the_page_is_against_its_own_policy(browser, hearing):  # noqa: F811
    page, faults = browser.new_context().new_page(), []
    page.on("console", lambda m: m.type == "error" and faults.append(m.text))
    page.goto(f"http://{hearing.address}/")
    page.wait_for_selector("canvas")
    page.keyboard.press("l")
    page.wait_for_selector("[data-picture=latents]")
    page.fill("#text", "a red plane")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert faults == []


def test_stages_stand_side_by_side_and_a_playthrough_is_saved_and_opened(
    browser,
    running,  # noqa: F811
    tmp_path,
):
    page = opened(browser, running, reduced_motion="reduce")
    page.wait_for_timeout(300)
    assert step_of(page) == 0  # nothing moves for whoever asked for that
    for name in ("simulator", "recording"):
        page.check(f"input[value={name}]")
        page.wait_for_selector(f"[data-picture={name}]")
    page.click("#go")
    page.wait_for_function("latest.step > 4")
    page.click("#go")
    page.wait_for_function("latest.paused")
    with page.expect_download() as download:
        page.click("#save")
    path = tmp_path / "played.json"
    download.value.save_as(path)
    played, picture = step_of(page), seen(page)
    assert len(json.loads(path.read_text())["actions"]) == played
    page.click(".clips button:nth-child(2)")
    page.wait_for_function("latest.clip === 1")
    page.set_input_files("#open", path)
    page.wait_for_function(f"latest.step === {played}")
    assert seen(page) == picture
    path.write_text(path.read_text().replace('"past":"', '"past":"AAAA'))
    page.set_input_files("#open", path)
    page.wait_for_selector("#error:not([hidden])")
    assert "damaged" in page.inner_text("#error")
    assert page.faults == []


def test_the_space_bar_pauses_whatever_the_pointer_pressed_before(browser, running):  # noqa: F811
    page = opened(browser, running)
    page.click(".clips button:nth-child(2)")
    page.wait_for_function("latest.clip === 1 && latest.step > 3")
    page.check("input[value=recording]")
    page.wait_for_selector("[data-picture=recording]")
    page.keyboard.press("Space")
    page.wait_for_function("latest.paused")
    assert step_of(page) > 3 and page.is_checked("input[value=recording]")
    page.keyboard.press("Tab")  # whoever goes from control to control presses them with it
    page.focus(".clips button:nth-child(1)")
    page.keyboard.press("Space")
    page.wait_for_function("latest.clip === 0")
    assert page.faults == []


def test_a_file_that_is_no_playthrough_loses_nothing(browser, running, tmp_path):  # noqa: F811
    page = opened(browser, running)
    pause(page)
    played, path = step_of(page), tmp_path / "other.json"
    path.write_text('"' * 1_900_000)  # twice as long in a message
    for _ in range(2):  # the same file again is another choice
        page.set_input_files("#open", path)
        page.wait_for_selector("#error:not([hidden])")
        assert "too large" in page.inner_text("#error")
        page.keyboard.press("Backspace")  # what is done next takes it away
        page.wait_for_selector("#error", state="hidden")
    assert played > 3 and page.faults == []


def test_of_a_gamepad_that_is_gone_no_key_is_held(browser, running):  # noqa: F811
    page = opened(browser, running)
    page.evaluate("navigator.getGamepads = () => [{ axes: [-1, 0], buttons: [] }]")
    page.wait_for_function("held.has('ArrowLeft')")
    page.evaluate("navigator.getGamepads = () => [null]")
    page.wait_for_function("held.size === 0")


def test_the_bar_leaves_room_on_a_page_that_is_enlarged(browser, running):  # noqa: F811
    page = opened(browser, running, viewport={"width": 320, "height": 256})  # 400 %
    position = "getComputedStyle(document.querySelector('.bar')).position"
    assert page.evaluate(position) == "static"
    page.set_viewport_size({"width": 1280, "height": 1024})
    assert page.evaluate(position) == "sticky"


def test_words_are_typed_without_driving_and_told_to_the_dream(browser, hearing):  # noqa: F811
    page = opened(browser, hearing, reduced_motion="reduce")
    assert page.inner_text("#text-now") == "Text now: nothing."
    page.keyboard.down("ArrowLeft")
    assert page.locator(".held").count() == 1
    page.keyboard.press("t")
    assert page.evaluate("document.activeElement.id") == "text"
    assert page.locator(".held").count() == 0  # whoever begins to write lets go
    page.keyboard.type("a red wasd plane l ")
    for key in ("ArrowLeft", "Home", "End", "Backspace"):
        page.keyboard.down(key)
        assert page.locator(".held").count() == 0
        page.keyboard.up(key)
    assert page.evaluate("latest.paused && latest.step === 0")
    assert not page.is_visible("#inside")
    page.keyboard.press("Enter")
    page.wait_for_function("latest.text === 'a red wasd plane l'")
    assert "a red wasd plane l, to the world alone" in page.inner_text("#text-now")
    page.keyboard.down("ArrowLeft")  # the keys are the player's again
    assert page.locator(".held").count() == 1
    page.keyboard.up("ArrowLeft")
    page.keyboard.press("Space")
    page.wait_for_function("latest.step > 2 && latest.text !== null")
    page.keyboard.press("Home")
    page.fill("#text", 49 * "x")
    page.click("#telling button:not([type])")
    page.wait_for_selector("#error:not([hidden])")
    assert "at most 48" in page.inner_text("#error")
    page.click("#silence")
    page.wait_for_function("latest.text === null")
    assert page.input_value("#text") == "" and page.is_hidden("#error")
    page.focus("#text")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.body")
    assert page.evaluate("[...byId('known').options].map((o) => o.value)") == ["a red plane"]
    assert page.faults == []


def test_latents_are_looked_into_and_moved_from_the_keyboard_alone(browser, hearing):  # noqa: F811
    page = opened(browser, hearing, reduced_motion="reduce")
    assert page.locator("[data-picture=latents]").count() == 0 and page.is_hidden("#inside")
    page.keyboard.press("l")
    page.wait_for_selector("[data-picture=latents]")
    canvas = "document.querySelector('[data-picture=latents] canvas')"
    assert page.evaluate(f"[{canvas}.width, {canvas}.height]") == [8, 8]
    page.wait_for_function("latest.read")
    read = page.inner_text("#factors div:first-child span")
    assert read.removesuffix(" px").replace("−", "-") == page.evaluate("latest.read[0].toFixed(1)")
    # What is hardly read is struck through, and cannot be moved.
    poor = page.evaluate("factors.filter((factor) => factor.r2 < 0.2).length")
    assert page.locator("#factors s").count() == poor
    assert page.locator("#directions button").count() == page.locator("#factors span").count()
    page.focus("#amount")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("latest.edit && latest.edit[0] === 'ego x' && latest.edit[1] === 1")
    assert page.locator(".held").count() == 0  # the slider takes these arrows
    assert "ego x, +1.0 standard deviations" in page.inner_text("#moved")
    page.keyboard.press("Escape")
    page.keyboard.press("Space")
    page.wait_for_function("latest.step > 1")
    page.keyboard.press("Space")
    page.wait_for_function("latest.paused")
    assert page.inner_text("#factors div:first-child span") != read
    page.click("#still")
    page.wait_for_function("latest.edit === null")
    page.keyboard.press("Home")
    page.wait_for_function("latest.step === 0")
    page.fill("#amount", "-2")
    page.wait_for_function("latest.edit !== null")
    page.keyboard.press("Escape")
    page.keyboard.press("l")
    page.wait_for_function("latest.edit === null && !latest.read")  # what is not seen is not moved
    assert page.locator("[data-picture=latents]").count() == 0
    seen = {}
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    for _ in range(24):  # every control is reached with the tabulator, and shows that it is
        page.keyboard.press("Tab")
        seen[page.evaluate("document.activeElement.id || document.activeElement.tagName")] = (
            page.evaluate(outline)
        )
    assert {"text", "silence", "look"} <= seen.keys()
    assert {name for name, line in seen.items() if line == "none"} <= {"BODY"}  # of no control
    assert page.faults == []


def test_signals_are_told_without_driving_from_the_keyboard_alone(browser, outside):  # noqa: F811
    page = opened(browser, outside, reduced_motion="reduce")
    assert page.is_hidden("#words") and page.inner_text("#signals-now") == "Set now: nothing."
    page.keyboard.down("ArrowLeft")
    page.keyboard.press("t")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    assert page.locator(".held").count() == 0  # whoever begins to choose lets go
    page.keyboard.press("f")
    page.wait_for_function("latest.signals.weather?.[2] === 1")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("latest.signals.weather?.[3] === 1")
    assert page.locator(".held").count() == 0
    assert page.inner_text("#signals-now") == "Set now: weather dusk, to the world alone."
    page.keyboard.press("Enter")
    page.keyboard.down("ArrowLeft")  # the keys are the player's again
    assert page.locator(".held").count() == 1
    page.keyboard.up("ArrowLeft")
    speed = page.get_by_role("spinbutton", name="speed")
    speed.focus()
    page.keyboard.type("31")
    page.keyboard.press("Enter")  # more than it was taught
    assert page.evaluate("!latest.signals.speed && document.activeElement.matches(':invalid')")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    page.wait_for_function("latest.signals.speed?.[0] === 3")
    assert page.evaluate("document.activeElement === document.body && latest.step === 0")
    page.keyboard.press("Space")
    page.wait_for_function("latest.step > 1")
    page.keyboard.press("Space")
    page.wait_for_function("latest.paused")
    page.get_by_role("button", name="Clear").click()
    page.wait_for_function("!latest.signals.speed")
    page.get_by_role("combobox", name="weather").select_option("unknown")
    page.wait_for_function("Object.keys(latest.signals).length === 0")
    page.evaluate("send('rewind', { steps: 1 })")  # what was told then is shown again
    page.wait_for_function("latest.signals.speed?.[0] === 3")
    assert speed.input_value() == "3"
    assert page.get_by_role("combobox", name="weather").input_value() == "dusk"
    page.get_by_role("combobox", name="weather").focus()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.body")
    assert page.faults == []


def test_fields_of_signals_are_named_apart_and_keep_what_is_being_typed(browser, outside):  # noqa: F811
    page = opened(browser, outside, reduced_motion="reduce")
    speed = page.get_by_role("spinbutton", name="speed", exact=True)
    assert speed.count() == 1
    for name in ("Set speed", "Clear speed"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    speed.fill("12")
    weather = page.get_by_role("combobox", name="weather")
    weather.select_option("fog")
    page.wait_for_function("latest.signals.weather?.[2] === 1")
    assert speed.input_value() == "12" and page.evaluate("!latest.signals.speed")
    page.get_by_role("button", name="Clear speed").click()
    # Whoever opens a choice with the mouse, and takes what was taken before, drives on.
    weather.dispatch_event("pointerdown")
    weather.focus()
    page.keyboard.down("ArrowDown")
    assert page.locator('[data-key="ArrowDown"].held').count() == 1
    assert page.evaluate("document.activeElement === document.body")
    page.keyboard.up("ArrowDown")
    assert weather.input_value() == "fog" and page.evaluate("latest.signals.weather[2] === 1")
    weather.click()
    page.keyboard.press("Escape")  # what is open is closed
    page.keyboard.down("ArrowDown")
    assert page.locator('[data-key="ArrowDown"].held').count() == 1
    page.keyboard.up("ArrowDown")
    assert weather.input_value() == "fog"
    assert page.faults == []


def pushing(page, tmp_path) -> Path:
    """Play a step with a push, and save it."""
    page.keyboard.press("l")
    page.wait_for_function("latest.read")
    page.fill("#amount", "1.5")
    page.keyboard.press("Escape")
    page.wait_for_function("latest.edit !== null")
    assert page.is_hidden("#edited")  # the panel says so
    page.evaluate("send('step')")
    page.wait_for_function("latest.step === 1")
    with page.expect_download() as download:
        page.click("#save")
    path = tmp_path / "edited.json"
    download.value.save_as(path)
    return path


def test_a_push_that_was_opened_is_said_and_can_be_taken_away(
    browser,
    hearing,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    path = pushing(opened(browser, hearing, reduced_motion="reduce"), tmp_path)
    page = opened(browser, hearing, reduced_motion="reduce")
    page.set_input_files("#open", path)
    page.wait_for_selector("#edited:not([hidden])")
    assert "ego x, +1.5 standard deviations" in page.inner_text("#editing")
    page.click("#unedit")
    page.wait_for_function("latest.edit === null")
    assert page.is_hidden("#edited") and page.is_hidden("#error")
    # With a video of one's own there are colours, and nothing is read.
    page.set_input_files("#open", path)
    page.wait_for_function("latest.edit !== null")
    colours = replace(hearing.server.overlays(), probes=None)
    monkeypatch.setattr(hearing.server, "overlays", lambda: colours)
    page.keyboard.press("l")
    page.wait_for_selector("[data-picture=latents]")
    page.keyboard.press("l")
    page.wait_for_function("!('latents' in latest.backends)")
    assert page.is_hidden("#error") and page.is_visible("#edited")
    page.click("#unedit")
    page.wait_for_function("latest.edit === null")
    assert page.faults == []


def test_whoever_asks_again_while_a_fit_fails_is_shown_the_next(
    browser,
    hearing,  # noqa: F811
    monkeypatch,
):
    page = opened(browser, hearing, reduced_motion="reduce")
    asked, fails, fit = threading.Event(), threading.Event(), hearing.server.overlays

    def failing_first() -> Overlays:
        if asked.is_set():
            return fit()
        asked.set()
        fails.wait(20)
        raise AvenirError("no clip was given")

    monkeypatch.setattr(hearing.server, "overlays", failing_first)
    for _ in range(3):
        page.keyboard.press("l")
    assert asked.wait(20)
    fails.set()
    page.wait_for_function("latest.read")
    assert page.is_visible("#inside") and "R² says" in page.inner_text("#trust")
    assert page.get_attribute("#look", "aria-pressed") == "true"
    page.keyboard.press("l")
    page.wait_for_function("!latest.read")
    assert page.is_hidden("#inside") and page.evaluate("byId('trust').textContent") == ""
    assert page.faults == []


def test_whoever_looks_inside_is_told_that_it_is_prepared_and_why_it_cannot_be(
    browser,
    hearing,  # noqa: F811
    monkeypatch,
):
    page = opened(browser, hearing, reduced_motion="reduce")
    asked, fails = threading.Event(), threading.Event()

    def failing() -> None:
        asked.set()
        fails.wait(20)
        raise AvenirError("no clip was given")

    with monkeypatch.context() as broken:
        broken.setattr(hearing.server, "overlays", failing)
        page.keyboard.press("l")
        assert asked.wait(20)
        assert page.is_visible("#inside") and "a few seconds" in page.inner_text("#trust")
        assert page.is_hidden("#moving") and page.get_attribute("#look", "aria-pressed") == "true"
        fails.set()
        page.wait_for_selector("#error:not([hidden])")
    assert "no clip was given" in page.inner_text("#error")
    assert page.is_hidden("#inside") and page.get_attribute("#look", "aria-pressed") == "false"
    page.keyboard.press("l")
    page.wait_for_selector("[data-picture=latents]")
    assert page.is_hidden("#error") and "R² says" in page.inner_text("#trust")
    assert page.faults == []


def test_a_world_without_words_or_overlays_shows_neither(browser, running):  # noqa: F811
    page = opened(browser, running)
    for name in ("#words", "#signals", "#look", "#heard"):
        assert page.is_hidden(name)
    for key in ("t", "l"):
        page.keyboard.press(key)
    assert page.is_hidden("#inside") and page.evaluate("document.activeElement === document.body")
    assert page.faults == []
