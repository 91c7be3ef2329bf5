"""What an evaluation found, as one table: `results.json`.

Knows how to hold numbers, not how to take or show them.
"""

from avenir.config import Config
from avenir.evaluation.questions.action_control import Control, Counterfactuals
from avenir.evaluation.questions.box_control import BoxControl
from avenir.evaluation.questions.generation import Generation
from avenir.evaluation.questions.latent_actions import Agreement
from avenir.evaluation.questions.likelihood import Likelihood
from avenir.evaluation.questions.novel_views import ImaginedViews
from avenir.evaluation.questions.prediction import Continuation
from avenir.evaluation.questions.reconstruction import Reconstruction
from avenir.evaluation.questions.text_control import Obedience
from avenir.evaluation.readers.readout import ReadoutScore
from avenir.evaluation.settings import EvaluationConfig

FORMAT = 1
"""Version of `results.json`."""


class Evaluation(Config):
    """Everything measured of one world: what `results.json` holds."""

    format: int = FORMAT
    """Version of this table."""
    world: str
    """The world's name."""
    key: str | None
    """The key of the run that made it."""
    source: str
    """Kind of source its test recordings come from."""
    fingerprint: str
    """Of that data."""
    fps: float
    """Frames per second."""
    size: tuple[int, int]
    """Height and width of frames."""
    settings: EvaluationConfig
    """What was asked for, seed included."""
    command: str
    """What was typed."""
    seconds: float
    """How long it took."""
    readout: ReadoutScore | None = None
    """How well the segmenter reads real frames; none when there is no key to the truth."""
    album: int | None = None
    """How many groups of training frames stand in for pictures; none: the encoder decodes."""
    reconstruction: Reconstruction
    """What the encoder keeps."""
    continuation: Continuation | None = None
    """How the continuation ages; none for an encoder alone."""
    generation: Generation | None = None
    """What is imagined as a set of clips; none for an encoder alone and without an evaluator."""
    likelihood: Likelihood | None = None
    """What held-out tokens cost; none for predictors of numbers."""
    control: Control | None = None
    """Whether actions matter; none when nothing steers."""
    counterfactuals: Counterfactuals | None = None
    """Where the ego goes when it is steered to either side; none where nobody can say."""
    agreement: Agreement | None = None
    """Whether discovered actions are the true ones; none where none are discovered, or recorded."""
    obedience: Obedience | None = None
    """Whether what is said comes; none where captions tell of nothing that could."""
    boxes: BoxControl | None = None
    """Whether things come where boxes say; none where nobody says so, or can read what comes."""
    imagined_views: ImaginedViews | None = None
    """What it says of a camera that is not given; none for worlds of one view."""
    left_out: str | None = None
    """Why sets of clips were not compared."""
