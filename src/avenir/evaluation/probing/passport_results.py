"""What passports hold, what follows from them, and how they are shown side by side.

Knows how to hold numbers and lay them out, not how to take them.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pydantic import Field

from avenir.config import Config
from avenir.degradation import shift_of
from avenir.evaluation.metrics.bootstrap import Interval

FORMAT = 1
"""Version of `passport.json`."""

_MANY_NUMBERS = 32
"""Numbers of a token from which noise and velocity are hard to predict and data is not."""


class PassportConfig(Config):
    """On how much passports are made out."""

    num_clips: int = Field(256, ge=2)
    """Held-out clips, spread over the test recordings, and as many training clips for what is
    regressed."""
    num_frames: int = Field(16, ge=2)
    """Frames of each; whole groups of every encoder."""
    seed: int = 0
    """Everything random derives from it."""


class Distance(Config):
    """How far decoded clips are from the real ones in the evaluator's eyes."""

    frechet: float
    """Fréchet distance; compare at equal numbers of clips only."""
    kernel: Interval
    """Unbiased kernel distance, which may be negative."""


class StepAhead(Config):
    """Linear dynamics over some latent frames."""

    step: int
    """Latent frames ahead."""
    seconds: float
    """The same in seconds."""
    r2: Interval
    """What a linear map of one latent frame, and of the actions between, tells of the later one."""
    held: Interval
    """What holding the known latent frame tells: the baseline."""


class NoiseBorne(Config):
    """Decoding under noise on the latents."""

    noise: float
    """Its deviation, in deviations of the latents."""
    drop: Interval
    """PSNR lost to it in dB, clip by clip."""


class Recommendation(Config):
    """A setting that follows from the latent."""

    setting: str
    """What to set."""
    value: int | float | str
    """To what."""
    reason: str
    """Why."""


class Passport(Config):
    """One encoder's latents; what needs decoding, an evaluator or actions is none without it."""

    name: str
    """As given."""
    key: str | None
    """The key of the run that made the encoder."""
    kind: str
    """The encoder's kind."""
    compression: tuple[int, int, int]
    """Frames, rows and columns per latent."""
    latent_shape: tuple[int, int, int, int]
    """`t c h w` of a clip."""
    deviation: float
    """Standard deviation of held-out latents, as predictors get them."""
    active_channels: int
    """Channels that vary, and by more than their own doubt."""
    effective_rank: float
    """Exp of the entropy of the channels' covariance spectrum: 1 to the number of channels."""
    spectrum: tuple[float, ...]
    """Eigenvalues of that covariance, largest first."""
    high_frequencies: Interval
    """Share of spectral energy in the upper half of frequencies in space (SEC)."""
    local_similarity: Interval
    """How much more alike neighbouring tokens are than distant ones (LDS)."""
    temporal_distance: Interval
    """Mean squared change between successive latent frames, over the variance (LTD)."""
    velocity_variance: float
    """Ambiguity of flow matching's velocity, nothing given (VIV): π/2 of white noise."""
    velocity_variance_given_past: float
    """The same when the latent frame before, and actions, are given, by linear dynamics."""
    regressed_shape: tuple[int, int, int]
    """`c h w` of the latent frames that dynamics, and the number above, were measured on."""
    linear_dynamics: tuple[StepAhead, ...]
    """One, two and four latent frames ahead, as far as clips reach."""
    inverse_dynamics: Interval | None
    """R² of the actions between two latent frames, read linearly from both."""
    psnr: Interval | None
    """Of encoding and decoding, in dB."""
    noise_borne: tuple[NoiseBorne, ...]
    """What noise on the latents costs."""
    reconstructed: Distance | None
    """Decoded as they are: the floor of the next two."""
    interpolated: Distance | None
    """Decoded halfway to the nearest latents of another recording (iFID)."""
    between: Distance | None
    """Inner latent frames replaced by the mean of the two beside them (tFVD)."""
    recommendations: tuple[Recommendation, ...]
    """What follows for a predictor."""


class Passports(Config):
    """Several encoders on the same clips: what `passport.json` holds."""

    format: int = FORMAT
    """Version of this table."""
    source: str
    """Kind of source."""
    fingerprint: str
    """Of that data."""
    fps: float
    """Frames per second."""
    settings: PassportConfig
    """What was asked for."""
    num_clips: int
    """Test clips there were."""
    num_recordings: int
    """Test recordings they come from."""
    evaluator: str | None
    """Whose eyes distances are measured in; none: no distances."""
    passports: tuple[Passport, ...]
    """In the order given."""
    seconds: float
    """How long it took."""


def recommendations(t: int, c: int, h: int, w: int, deviation: float) -> Iterator[Recommendation]:
    """Say what follows from the latents of a clip for a predictor of windows as long."""
    size = t * c * h * w
    yield Recommendation(
        setting="predictor.shift",
        value=round(shift_of(size), 2),
        reason=f"√({size:,} numbers of a window / 4096), never below 1 (RAE, 2510.11690)",
    )
    near = 0.9 <= deviation <= 1.1
    yield Recommendation(
        setting="scale",
        value=1.0 if near else round(1 / max(deviation, 1e-4), 3),
        reason=f"held-out latents deviate by {deviation:.3f}; predictors expect 1, within 0.1",
    )
    many = c >= _MANY_NUMBERS
    yield Recommendation(
        setting="predictor.predicts",
        value="data" if many else "velocity",
        reason=f"a token holds {c} numbers (patch 1; p² times as many in patches of p); from "
        f"{_MANY_NUMBERS} on, noise and velocity are hard to predict (JiT, 2511.13720)",
    )
    yield Recommendation(
        setting="predictor.width",
        value=max(16, 2 * c),
        reason=f"or more: twice the {c} numbers of a token; below {c} the loss has a floor (RAE)",
    )


class Line(NamedTuple):
    """One line of the table."""

    label: str
    better: str
    """Which way is better: ↑, ↓, or nothing."""
    show: Callable[[Passport], str]
    meaning: str


LINES = (
    Line("latents of a clip, t c h w", "", lambda p: "×".join(map(str, p.latent_shape)), ""),
    Line(
        "frames × rows × columns per latent",
        "",
        lambda p: "×".join(map(str, p.compression)),
        "",
    ),
    Line(
        "PSNR, dB",
        "↑",
        lambda p: _interval(p.psnr, 2),
        "of encoding and decoding; it does not tell how well latents can be imagined",
    ),
    Line(
        "reconstructed: kernel distance",
        "↓",
        lambda p: _kernel(p.reconstructed),
        "decoded clips against real ones in the evaluator's eyes: the floor of the next two; "
        "unbiased, so it may be negative",
    ),
    Line("reconstructed: Fréchet distance", "↓", lambda p: _frechet(p.reconstructed), ""),
    Line(
        "interpolated: kernel distance",
        "↓",
        lambda p: _kernel(p.interpolated),
        "decoded halfway to the nearest latents of another recording (as iFID, 2603.05630)",
    ),
    Line("interpolated: Fréchet distance", "↓", lambda p: _frechet(p.interpolated), ""),
    Line(
        "between: kernel distance",
        "↓",
        lambda p: _kernel(p.between),
        "inner latent frames replaced by the mean of the two beside them (as tFVD, 2608.13556)",
    ),
    Line("between: Fréchet distance", "↓", lambda p: _frechet(p.between), ""),
    Line(
        "velocity variance",
        "↓",
        lambda p: f"{p.velocity_variance:.3f}",
        "of flow matching, whatever the network, for Gaussian latents of this covariance (VIV, "
        "2606.03578): 1.571 for white noise; compare at equal latent shapes",
    ),
    Line(
        "velocity variance, past given",
        "↓",
        lambda p: f"{p.velocity_variance_given_past:.3f}",
        "the same of what linear dynamics cannot tell from the latent frame before",
    ),
    Line(
        "high frequencies",
        "↓",
        lambda p: _interval(p.high_frequencies),
        "share of energy in the upper half of frequencies in space (SEC, 2606.03578)",
    ),
    Line(
        "local similarity",
        "↑",
        lambda p: _interval(p.local_similarity),
        "cosine of neighbouring tokens minus that of distant ones (LDS, 2512.10794)",
    ),
    Line(
        "temporal distance",
        "↓",
        lambda p: _interval(p.temporal_distance),
        "mean squared change to the next latent frame, over the variance (LTD, 2605.02134): 2 for "
        "white noise; falls with fewer frames per latent",
    ),
    Line(
        "linear dynamics R²",
        "↑",
        lambda p: _steps(p, held=False),
        "what a linear map of a latent frame, and of the actions between, tells of the one after "
        "so many seconds (2603.09241)",
    ),
    Line("· holding the latent", "", lambda p: _steps(p, held=True), "what that baseline tells"),
    Line(
        "inverse dynamics R²",
        "↑",
        lambda p: _interval(p.inverse_dynamics),
        "the actions between two successive latent frames, read linearly from both",
    ),
    Line(
        "PSNR lost to noise, dB",
        "↓",
        lambda p: ", ".join(f"{n.drop.mean:.1f} at {n.noise:g}" for n in p.noise_borne) or "–",
        "on the latents, in their deviations",
    ),
    Line(
        "effective rank",
        "↑",
        lambda p: f"{p.effective_rank:.1f} of {p.latent_shape[1]}",
        "exp of the entropy of the channels' spectrum",
    ),
    Line(
        "active channels",
        "↑",
        lambda p: f"{p.active_channels} of {p.latent_shape[1]}",
        "those that vary, and by more than the encoder's own doubt",
    ),
)


def table(found: Passports) -> str:
    """Lay passports out side by side in Markdown, with what follows and what each number means."""
    names = [p.name for p in found.passports]
    rows = [["", *names], ["---"] * (1 + len(names))]
    rows += [
        [f"{line.label} {line.better}".strip(), *(line.show(p) for p in found.passports)]
        for line in LINES
    ]
    judge = found.evaluator or "no evaluator, so no distances"
    lines = [
        f"# Latent passports of {', '.join(names)}",
        "",
        f"{found.num_clips:,} clips of {found.settings.num_frames} frames from "
        f"{found.num_recordings:,} held-out recordings ({found.source}, {found.fps:g} fps); "
        f"distances: {judge}. Brackets are 95 % intervals by recording.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "## What follows for a predictor",
    ]
    for passport in found.passports:
        lines += ["", f"**{passport.name}**", ""]
        lines += [f"- {r.setting} = {r.value}: {r.reason}" for r in passport.recommendations]
    lines += ["", "## What the numbers mean", ""]
    lines += [f"- **{line.label}**: {line.meaning}." for line in LINES if line.meaning]
    return "\n".join(lines) + "\n"


def _interval(value: Interval | None, digits: int = 3) -> str:
    if value is None or value.mean is None:
        return "–"
    if value.low is None or value.high is None:
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _kernel(distance: Distance | None) -> str:
    return "–" if distance is None else _interval(distance.kernel)


def _frechet(distance: Distance | None) -> str:
    return "–" if distance is None else f"{distance.frechet:.2f}"


def _steps(passport: Passport, held: bool) -> str:
    parts = []
    for ahead in passport.linear_dynamics:
        value = (ahead.held if held else ahead.r2).mean
        parts.append(f"{'–' if value is None else f'{value:.3f}'} at {ahead.seconds:g} s")
    return ", ".join(parts)
