"""What an evaluation measures, on how much, and how it reports progress."""

from typing import Annotated

from pydantic import Field

from avenir.config import Config


class EvaluationConfig(Config):
    """Settings of `avenir evaluate`."""

    num_clips: int = Field(256, ge=1)
    """Held-out windows, spread over the test recordings."""
    past_seconds: float | None = Field(None, gt=0)
    """How much is observed; none: a third of what the world was trained on at once."""
    horizon_seconds: float | None = Field(None, gt=0)
    """How far ahead is imagined, also the length of windows when only an encoder is measured; none:
    4 seconds, and of text as much as is predicted at once."""
    num_samples: int = Field(8, ge=1)
    """Futures of each clip in the mean of samples."""
    num_train_windows: int = Field(4000, ge=1)
    """Training pasts among which the nearest is sought, and frames in the mean image."""
    steps: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Numbers of steps in which sets of clips are drawn as well."""
    questions: tuple[str, ...] = ()
    """Questions of your own, asked after ours: modules by their dotted path."""
    num_examples: int = Field(6, ge=0)
    """Clips shown on the page."""
    seed: int = 0
    """Everything random derives from it."""
