// Plays every example in step: one video holds them all, and is the only clock. Knows no numbers.
(function () {
  "use strict";
  const player = document.getElementById("player");
  const { fps, past, frames, height, width } = JSON.parse(player.dataset.layout);
  const video = player.querySelector("video");
  const button = player.querySelector("button");
  const scrubber = player.querySelector("input");
  const shown = player.querySelector("output");
  const panels = [...player.querySelectorAll("canvas")];
  let frame = -1;
  document.documentElement.classList.add("scripted");

  function draw(seconds) {
    frame = Math.min(frames - 1, Math.max(0, Math.floor(seconds * fps + 0.01)));
    const ahead = frame - past + 1;
    panels.forEach((panel) => {
      const column = Number(panel.dataset.column), row = Number(panel.dataset.row);
      panel.getContext("2d").drawImage(
        video, column * width, row * height, width, height, 0, 0, width, height);
      panel.classList.toggle("held", column === 0 && ahead > 0);
      panel.classList.toggle("imagining", column === 1 && ahead > 0);
    });
    const seen = past < frames ? ", observed" : ", " + (frame / fps).toFixed(1) + " s";
    const words = "frame " + (frame + 1) + " of " + frames
      + (ahead > 0 ? ", +" + (ahead / fps).toFixed(1) + " s imagined" : seen);
    scrubber.value = String(frame);
    scrubber.setAttribute("aria-valuetext", words);
    shown.textContent = words;
  }
  // The clock of a playing video runs ahead of its picture: ask which frame is really shown.
  function follow() {
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback((now, picture) => { draw(picture.mediaTime); follow(); });
    } else {
      requestAnimationFrame(() => { draw(video.currentTime); follow(); });
    }
  }
  function goTo(target) {
    video.pause();
    const wrapped = (target + frames) % frames;
    // The middle of the frame, so that no rounding shows its neighbour.
    video.currentTime = (wrapped + 0.5) / fps;
  }
  function toggle() {
    if (video.paused) {
      video.play();
    } else {
      video.pause();
    }
  }
  button.addEventListener("click", toggle);
  video.addEventListener("play", () => { button.textContent = "Pause"; });
  video.addEventListener("pause", () => { button.textContent = "Play"; });
  video.addEventListener("seeked", () => draw(video.currentTime));
  scrubber.addEventListener("input", () => goTo(Number(scrubber.value)));
  document.addEventListener("keydown", (event) => {
    if (event.target !== document.body || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const actions = {
      " ": toggle,
      ArrowLeft: () => goTo(frame - 1),
      ArrowRight: () => goTo(frame + 1),
      Home: () => goTo(0),
      End: () => goTo(frames - 1),
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  });
  video.addEventListener("loadeddata", () => {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (still) {
      goTo(Math.min(frames - 1, past + Math.round(fps) - 1));
    } else {
      video.play().catch(() => goTo(past));
    }
  }, { once: true });
  follow();
  video.load();
})();
