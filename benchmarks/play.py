"""How a world answers a player: a browser presses keys, and looks at what it is shown.

    python benchmarks/play.py RUN [PRESSES] [PASTS] [--onnx]

Serves the world and opens the page in chromium, on the same cores, as somebody at home would.

How fast: PRESSES (500) keys go down at random moments. A press counts from the key's going down to
the drawing of the first frame that knows of it.

Which way: after each of PASTS (32; at most 64, 0: not asked) left is held, then right, from the
same noise. The reader that ships with the package says where the ego is in the pictures that the
page has drawn, of the world and of the simulator beside it. Of pairs that the simulator brings more
than 2 px apart, those count as right that the world brings apart the same way.
"""

import random
import shutil
import subprocess
import sys
import time

import torch
from playwright.sync_api import Page, sync_playwright
from torch import Tensor

from avenir.clip import to_video
from avenir.evaluation.metrics.bootstrap import interval
from avenir.evaluation.questions.action_control import APART
from avenir.evaluation.readers.readout import FOLDER, Readout
from avenir.world import World

SECONDS = (0.5, 1.0)
"""How long a key has been held when the ego is looked for."""
BACKENDS = ("world", "simulator")

_PIXELS = """(stage) => {
  const canvas = document.querySelector(`[data-picture=${stage}] canvas`);
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  return [height, width, ...data];
}"""


def served(run: str, clips: int, *options: str) -> tuple[subprocess.Popen[str], str, float]:
    """Start `avenir play` on a free port; return it, its address, and seconds until it answers."""
    began = time.perf_counter()
    command = [shutil.which("avenir") or "avenir", "play", run, "--port", "0"]
    command += ["--clips", str(clips), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("play at"):
            return process, line.split()[2], time.perf_counter() - began
    raise SystemExit(f"{run} cannot be played")


def pressed(page: Page, presses: int) -> None:
    """Press arrow keys for 60 to 400 ms each, at moments that know nothing of frames."""
    chance = random.Random(0)
    for _ in range(presses):
        key = chance.choice(["ArrowLeft", "ArrowRight", "ArrowUp"])
        page.keyboard.down(key)
        page.wait_for_timeout(chance.uniform(60, 400))
        page.keyboard.up(key)
        page.wait_for_timeout(chance.uniform(20, 120))
        if page.evaluate("latest.step") > 100:  # far from any truth a world may stand still
            page.click("#other")


def how_fast(page: Page, presses: int) -> None:
    """Press, and print how long answers took."""
    page.wait_for_function("latest.step > 10")
    before, began = page.evaluate("avenir.frames"), time.perf_counter()
    pressed(page, presses)
    frames = page.evaluate("avenir.frames") - before
    seconds = time.perf_counter() - began
    times = sorted(page.evaluate("avenir.latencies"))
    at = [times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.95, 0.99)]
    rate = page.evaluate("world.steps_per_second")
    print(f"steps a second: {frames / seconds:.1f} of {rate:.1f}")
    print(f"key to frame, of {len(times)} presses: " + ", ".join(f"{t:.0f} ms" for t in at), end="")
    print(" (half, 95 %, 99 % are faster)")


def drawn(page: Page, stage: str) -> Tensor:
    """Take the picture that the page shows of a stage, uint8 `C H W`."""
    height, width, *pixels = page.evaluate(_PIXELS, stage)
    picture = torch.tensor(pixels, dtype=torch.uint8).view(height, width, 4)
    return picture[..., :3].permute(2, 0, 1)


def held(page: Page, past: int, key: str, steps: list[int]) -> list[Tensor]:
    """Hold a key from the end of a past on; return the pictures of the backends at some steps."""
    page.click(f".clips button:nth-child({past + 1})")
    page.wait_for_function(f"latest.clip === {past} && latest.step === 0")
    page.keyboard.down(key)
    page.click("#go")
    page.wait_for_function(f"latest.step >= {steps[-1]}")
    page.click("#go")
    page.wait_for_function("latest.paused")
    page.keyboard.up(key)
    pictures = []
    for step in reversed(steps):  # it has gone on while it was stopped
        page.evaluate(f"send('rewind', {{ steps: latest.step - {step} }})")
        page.wait_for_function(f"latest.step === {step}")
        pictures.insert(0, torch.stack([drawn(page, stage) for stage in BACKENDS]))
    return pictures


def which_way(page: Page, pasts: int) -> None:
    """Hold left and right after the same pasts, and print how often the ego goes there."""
    if not page.query_selector("input[value=simulator]"):
        print("no simulator knows which way is right: that is not asked")
        return
    page.check("input[value=simulator]")
    if not page.evaluate("latest.paused"):
        page.click("#go")
    page.wait_for_function("latest.paused && 'simulator' in latest.backends")
    steps = [round(s * page.evaluate("world.steps_per_second")) for s in SECONDS]
    left, right = [], []
    for past in range(pasts):
        left.append(torch.stack(held(page, past, "ArrowLeft", steps)))
        right.append(torch.stack(held(page, past, "ArrowRight", steps)))
    reader = Readout(World.load(FOLDER, "cpu").encoder)
    sides = torch.stack([torch.stack(left), torch.stack(right)])  # side past horizon stage C H W
    ego = reader.read(to_video(sides.flatten(0, 3)[:, None])).ego
    where = ego[:, 0].unflatten(0, sides.shape[:4])
    apart = where[1] - where[0]
    for number, seconds in enumerate(SECONDS):
        made, true = apart[:, number].unbind(1)
        counts = true.norm(dim=1) > APART
        same = ((made * true).sum(1) > 0)[counts].float()
        if len(same) < 2:
            print(f"after {seconds:g} s {len(same)} pairs are apart: give more pasts")
            continue
        share = interval(same, [str(past) for past in counts.nonzero()[:, 0].tolist()])
        lost = made.isnan().any(1)[counts].float().mean()
        print(
            f"the right way after {seconds:g} s: {share.mean:.2f} [{share.low:.2f}, "
            f"{share.high:.2f}] of {len(same)} pairs; the ego is lost in {lost:.2f}"
        )


def main(run: str, presses: int, pasts: int, *options: str) -> None:
    """Serve, press, look, print."""
    process, address, loading = served(run, max(4, pasts), *options)
    try:
        with sync_playwright() as driver:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_context(bypass_csp=True).new_page()
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("canvas")
            first = time.perf_counter() - began
            print(f"{run}: loaded in {loading:.1f} s, first frame after {first:.2f} s more")
            if presses:
                how_fast(page, presses)
            if pasts:
                which_way(page, pasts)
            browser.close()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    options = [word for word in sys.argv[2:] if word.startswith("--")]
    numbers = [int(word) for word in sys.argv[2:] if word not in options]
    main(sys.argv[1], *(numbers + [500, 32][len(numbers) :]), *options)
