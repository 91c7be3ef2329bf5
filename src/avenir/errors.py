"""The errors a user can meet. Each says what was given, what was expected, and the cure.

AvenirError
├── Stopped         somebody ended what they were asked to do, or cannot do it
├── VideoError      a file that is no video, or a broken one
└── TrainingError   a run that had to stop: loss not finite, folder of another recipe
"""


class AvenirError(Exception):
    """A mistake the user can cure."""


class Stopped(AvenirError):
    """Somebody who was asked to go on would or could not: what is done stays, no more is asked."""


class VideoError(AvenirError):
    """A video file that cannot be read; the message names the file and the reason."""


class TrainingError(AvenirError):
    """A run that had to stop."""
