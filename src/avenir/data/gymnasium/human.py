"""Somebody acts while an environment is recorded: in a window, with keys, as fast as frames go by.

What a person does follows from no settings: it is played once, for `avenir import` to write down.
"""

import math
import time
from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete

from avenir.data.gymnasium.pictures import drawn
from avenir.data.gymnasium.policies import Act
from avenir.errors import AvenirError, Stopped
from avenir.signals import Signal

_KEYS = {
    **{"left": "ArrowLeft", "right": "ArrowRight", "up": "ArrowUp", "down": "ArrowDown"},
    **{"a": "ArrowLeft", "d": "ArrowRight", "w": "ArrowUp", "s": "ArrowDown"},
}
"""Keys of a signal, where pygame calls them otherwise."""
_MOST_PIXELS = (720, 1280)
"""Height and width of the window; pictures are enlarged a whole number of times, as far as fits."""


class Human:
    """A policy that asks the person at the keyboard; one window serves all episodes.

    `num_frames` frames are an episode and `fps` go by in a second. Raises AvenirError when actions
    are on no keys.
    """

    def __init__(self, signal: Signal, fps: float, num_frames: int) -> None:
        if not signal.keys:
            raise AvenirError(
                "policy 'human' was asked for; actions without bounds are on no keys: ask for "
                "another policy, or wrap the environment so that its actions have bounds"
            )
        self.signal, self.fps, self.num_frames = signal, fps, num_frames
        self.left = 0
        """Frames that are still to come."""
        self.held: list[str] = []
        self.tapped: list[str] = []
        """Keys that went down since the frame before: a key may be down for less than a frame."""
        self.environment: gymnasium.Env[Any, Any] | None = None
        """The latest; each recording has one of its own, for all its tries."""

    def __call__(self, environment: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Act:
        """Show where an episode begins, and wait for a key.

        Raises Stopped where no window can be opened, and when somebody closes it.
        """
        pygame = _pygame()
        again = environment is self.environment
        soon = "It ended too soon and is played again. " if again else ""
        self.environment, self.left = environment, self.num_frames
        self.held, self.tapped = [], []
        _show(pygame, environment, f"{soon}Press a key to begin, Escape to stop")
        pygame.event.clear((pygame.KEYDOWN, pygame.KEYUP))  # of before, which begin nothing
        while not self.tapped:
            self._hear(pygame, [pygame.event.wait(100)])  # in between Ctrl-C is heard
        due = time.monotonic()

        def act(observation: Any) -> Any:
            nonlocal due
            _show(pygame, environment, f"{math.ceil(self.left / self.fps)} s left")
            self.left -= 1
            due = max(due + 1 / self.fps, time.monotonic())  # what is late is not made up for
            time.sleep(max(0.0, due - time.monotonic()))
            self._hear(pygame, pygame.event.get())
            pressed, self.tapped = [*self.held, *self.tapped], []
            return self._action(environment.action_space, pressed)

        return act

    def _hear(self, pygame: Any, events: Iterable[Any]) -> None:
        """Keep which keys are down, in the order in which they went down."""
        for event in events:
            if event.type in (pygame.KEYDOWN, pygame.KEYUP):
                name: str = pygame.key.name(event.key)
                key = _KEYS.get(name, name)
                down = [key] if event.type == pygame.KEYDOWN else []
                self.held = [*(other for other in self.held if other != key), *down]
                self.tapped += down
            if event.type == pygame.QUIT or "escape" in self.tapped:
                pygame.display.quit()
                raise Stopped("the window was closed: import again to go on from here")

    def _action(self, space: gymnasium.Space[Any], pressed: list[str]) -> Any:
        """Return what keys stand for; where none is down, the first choice, or zeros."""
        row = self.signal.of_keys(list(dict.fromkeys(reversed(pressed)))[::-1])
        if isinstance(space, Discrete):
            return int(space.start) + (int(np.argmax(row)) if row else 0)
        return np.array(row, space.dtype)


def _pygame() -> Any:
    try:
        import pygame
    except ModuleNotFoundError:
        raise Stopped(
            "policy 'human' needs the module 'pygame', which is not installed: "
            "pip install 'avenir[envs]'"
        ) from None
    return pygame


def _show(pygame: Any, environment: gymnasium.Env[Any, Any], title: str) -> None:
    """Draw the environment, enlarged, in a window that is opened where there is none."""
    picture = drawn(environment)
    height, width = picture.shape[:2]
    times = max(1, min(_MOST_PIXELS[0] // height, _MOST_PIXELS[1] // width))
    size = (times * width, times * height)
    try:
        # Some environments close every window there is when they are closed themselves.
        pygame.display.init()
        if pygame.display.get_driver() == "offscreen":  # where there is nothing else
            raise pygame.error("there is no screen")
        window = pygame.display.get_surface()
        if window is None or window.get_size() != size:
            window = pygame.display.set_mode(size)
    except pygame.error as error:
        raise Stopped(
            f"policy 'human' was asked for, and no window can be opened: {error}; play where there "
            "is a screen, or ask for another policy"
        ) from None
    pygame.display.set_caption(title)
    pygame.transform.scale(pygame.surfarray.make_surface(picture.swapaxes(0, 1)), size, window)
    pygame.display.flip()
