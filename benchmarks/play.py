"""How fast a world answers a player: a browser presses keys at random moments and counts.

    python benchmarks/play.py RUN [PRESSES]

Serves the world and opens the page in chromium, on the same cores, as somebody at home would. A
press counts from the key's going down to the drawing of the first frame that knows of it.
"""

import random
import shutil
import subprocess
import sys
import time

from playwright.sync_api import Page, sync_playwright


def served(run: str) -> tuple[subprocess.Popen[str], str, float]:
    """Start `avenir play` on a free port; return it, its address, and seconds until it answers."""
    began = time.perf_counter()
    command = [shutil.which("avenir") or "avenir", "play", run, "--port", "0", "--clips", "4"]
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
            page.keyboard.press("n")


def main(run: str, presses: int) -> None:
    """Serve, press, print."""
    process, address, loading = served(run)
    try:
        with sync_playwright() as driver:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_context(bypass_csp=True).new_page()
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("canvas")
            first = time.perf_counter() - began
            page.wait_for_function("latest.step > 10")
            before, began = page.evaluate("avenir.frames"), time.perf_counter()
            pressed(page, presses)
            frames = page.evaluate("avenir.frames") - before
            seconds = time.perf_counter() - began
            times = sorted(page.evaluate("avenir.latencies"))
            period = 1000 / page.evaluate("world.steps_per_second")
            browser.close()
    finally:
        process.terminate()
        process.wait()
    at = [times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.95, 0.99)]
    print(f"{run}: loaded in {loading:.1f} s, first frame after {first:.2f} s more")
    print(f"steps a second: {frames / seconds:.1f} of {1000 / period:.1f}")
    print(f"key to frame, of {len(times)} presses: " + ", ".join(f"{t:.0f} ms" for t in at), end="")
    print(" (half, 95 %, 99 % are faster)")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 500)
