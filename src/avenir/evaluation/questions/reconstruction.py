"""What an encoder keeps: PSNR and SSIM of held-out video after a round trip, and its latents.

The floor of everything a world can do: no imagination decodes better than the truth encoded.
Knows no predictor.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from avenir.config import Config
from avenir.console import Report
from avenir.data import Source, Window
from avenir.encoders import Encoder
from avenir.evaluation.baselines import frames_of, reconstructed
from avenir.evaluation.metrics.bootstrap import Interval, interval
from avenir.evaluation.metrics.frames import psnr, ssim
from avenir.evaluation.question import About, Measured, Question, QuestionInputs
from avenir.evaluation.report.findings import Finding, minus
from avenir.evaluation.report.html import details, section
from avenir.evaluation.report.tables import count, facts_list, with_bounds
from avenir.nn.quantize import perplexity, usage
from avenir.shapes import Video


class LatentChannel(Config):
    """One channel of the latents, over all clips and positions; normalised as predictors see it."""

    mean: float
    """0 when held-out video looks like training video."""
    std: float
    """1 likewise."""
    kl: float | None = None
    """Divergence of its posterior from N(0, 1) in nats per latent, when the encoder doubts."""


class CodesUsed(Config):
    """Which codes a discrete encoder chooses on held-out video, and how evenly."""

    num_tokens: int
    """Tokens counted; with fewer than ten for each code, rare ones may have had no chance."""
    vocabulary: int
    """Codes there are."""
    usage: float
    """Share of them chosen at least a hundredth as often as on average."""
    perplexity: float
    """As many codes, chosen equally, would say as much."""


class Reconstruction(Config):
    """An encoder on held-out windows."""

    num_clips: int
    """Windows measured."""
    num_recordings: int
    """Recordings they come from."""
    num_frames: int
    """Frames of each."""
    compression: tuple[int, int, int]
    """Frames, rows and columns per latent."""
    latent_shape: tuple[int, int, int, int]
    """`t c h w` of one window."""
    numbers_ratio: float
    """Numbers of a window's pixels for one number of its latents."""
    bits_per_pixel: float | None
    """Upper bound on what the latents tell: tokens at log2(vocabulary), or the posterior's
    divergence. 24 is raw video; none when the latents have no finite rate."""
    psnr: Interval | None
    """In dB; none when the encoder cannot decode."""
    ssim: Interval | None
    """Structural similarity; none likewise."""
    latents: tuple[LatentChannel, ...]
    """Every channel."""
    codes: CodesUsed | None = None
    """None of latents that are numbers."""


@torch.no_grad()
def measure_reconstruction(
    encoder: Encoder,
    source: Source,
    windows: Sequence[Window],
    batch_size: int,
    seed: int,
    report: Report,
) -> Reconstruction:
    """Send held-out windows of equal length through the encoder and back."""
    psnrs, ssims, moments = [], [], _Moments(encoder)
    for start in range(0, len(windows), batch_size):
        report("reconstruction", start, len(windows))
        video = frames_of(source.read(windows[start : start + batch_size]))
        moments.add(video)
        if encoder.can_decode:
            made = reconstructed(encoder, video)
            psnrs.append(psnr(made, video).mean(1))
            ssims.append(ssim(made, video).mean(1))
    report("reconstruction", len(windows), len(windows))
    groups = [window.recording.name for window in windows]
    num_frames = windows[0].num_frames
    t, h, w = encoder.compression.latent_shape(num_frames, *source.size)
    pixels = num_frames * source.size[0] * source.size[1]
    channels = moments.channels()
    return Reconstruction(
        num_clips=len(windows),
        num_recordings=len(set(groups)),
        num_frames=num_frames,
        compression=(encoder.compression.t, encoder.compression.h, encoder.compression.w),
        latent_shape=(t, encoder.channels, h, w),
        numbers_ratio=3 * pixels / (t * encoder.channels * h * w),
        bits_per_pixel=_bits(encoder, channels, t * h * w / pixels),
        psnr=interval(torch.cat(psnrs), groups, seed) if psnrs else None,
        ssim=interval(torch.cat(ssims), groups, seed) if ssims else None,
        latents=channels,
        codes=moments.codes(),
    )


class _Moments:
    """Sums over latents, and counts of codes, batch by batch."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder, self.count = encoder, 0
        self.sums = torch.zeros(3, encoder.channels, dtype=torch.float64)
        self.doubts = False
        self.chosen = torch.zeros(encoder.vocabulary or 0, dtype=torch.long)

    def add(self, video: Video) -> None:
        posterior = self.encoder.posterior(video.to(self.encoder.latent_mean.device))
        mean, axes = posterior.mean.double(), (0, 1, 3, 4)
        self.count += mean.numel() // self.encoder.channels
        self.sums[0] += mean.sum(axes).cpu()
        self.sums[1] += mean.square().sum(axes).cpu()
        if self.encoder.vocabulary is not None:
            tokens = self.encoder.tokens(posterior.mean).flatten()
            self.chosen += tokens.bincount(minlength=len(self.chosen)).cpu()
        if posterior.log_variance is not None:
            self.doubts = True
            log_variance = posterior.log_variance.double()
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
            self.sums[2] += kl.sum(axes).cpu()

    def codes(self) -> CodesUsed | None:
        if not len(self.chosen):
            return None
        shares = self.chosen / self.chosen.sum()
        return CodesUsed(
            num_tokens=int(self.chosen.sum()),
            vocabulary=len(self.chosen),
            usage=float(usage(shares)),
            perplexity=float(perplexity(shares)),
        )

    def channels(self) -> tuple[LatentChannel, ...]:
        mean, square, kl = (self.sums / self.count).unbind(0)
        std = (square - mean.square()).clamp(min=0).sqrt()
        return tuple(
            LatentChannel(mean=_float(m), std=_float(s), kl=_float(k) if self.doubts else None)
            for m, s, k in zip(mean, std, kl, strict=True)
        )


def _bits(
    encoder: Encoder, channels: Sequence[LatentChannel], positions_per_pixel: float
) -> float | None:
    if encoder.vocabulary is not None:
        return math.log2(encoder.vocabulary) * positions_per_pixel
    nats = [channel.kl for channel in channels if channel.kl is not None]
    return sum(nats) / math.log(2) * positions_per_pixel if nats else None


def _float(value: Tensor) -> float:
    return round(float(value), 6)


class ReconstructionQuestion(Question):
    """What the encoder keeps."""

    Answer = Reconstruction
    order = 90

    def measure(self, asked: QuestionInputs) -> Measured:
        """Send held-out windows through the encoder and back."""
        held_out = asked.held_out
        return Measured(
            measure_reconstruction(
                asked.world.encoder,
                held_out.source,
                held_out.windows,
                held_out.batch_size,
                held_out.seed,
                asked.report,
            )
        )

    def findings(self, answer: Reconstruction, about: About) -> list[Finding]:
        """Say how near reconstructions come, of encoders that decode."""
        if about.nearest_decoder is not None or answer.psnr is None or answer.psnr.mean is None:
            return []
        sentence = (
            f"PSNR of held-out clips through the encoder and back, {answer.numbers_ratio:,.1f} "
            "times fewer numbers than pixels hold."
        )
        return [Finding(f"{answer.psnr.mean:.1f} dB", sentence)]

    def section(self, measured: Measured, about: About) -> str:
        """List what is kept, and the statistics of every channel."""
        assert isinstance(measured.answer, Reconstruction)
        return section(
            "keeps",
            "What the encoder keeps",
            "Held-out clips sent through the encoder and back.",
            f'<div class="card">{reconstruction_facts(measured.answer)}</div>'
            + details("Every latent channel", channel_table(measured.answer)),
        )


def reconstruction_facts(reconstruction: Reconstruction) -> str:
    """List what an encoder does to a clip."""
    f_t, f_h, f_w = reconstruction.compression
    t, c, h, w = reconstruction.latent_shape
    facts = {
        "One latent stands for": f"{count(f_t, 'frame')} of {f_h}×{f_w} pixels",
        "Latents of a clip": f"{t}×{c}×{h}×{w} (t c h w) for {reconstruction.num_frames} frames",
        "Fewer numbers": f"{reconstruction.numbers_ratio:.1f} times",
    }
    if reconstruction.bits_per_pixel is not None:
        facts["Rate"] = f"at most {reconstruction.bits_per_pixel:.3f} bits per pixel (raw: 24)"
    codes = reconstruction.codes
    if codes is not None:
        facts["Codes in use"] = (
            f"{codes.usage:.1%} of {codes.vocabulary:,} on {codes.num_tokens:,} tokens; as many "
            f"as {codes.perplexity:,.0f} chosen equally"
        )
    if reconstruction.psnr is not None:
        facts["PSNR"] = f"{with_bounds(reconstruction.psnr, 2)} dB"
    if reconstruction.ssim is not None:
        facts["SSIM"] = with_bounds(reconstruction.ssim, 3)
    facts["Measured on"] = (
        f"{reconstruction.num_clips:,} clips of {reconstruction.num_recordings:,} recordings"
    )
    return facts_list(facts)


def channel_table(reconstruction: Reconstruction) -> str:
    """Lay out the statistics of every latent channel."""
    body = "".join(
        f'<tr><th scope="row">{number}</th><td>{minus(f"{channel.mean:.3f}")}</td>'
        f"<td>{channel.std:.3f}</td>"
        f"<td>{'–' if channel.kl is None else f'{channel.kl:.3f}'}</td></tr>"
        for number, channel in enumerate(reconstruction.latents)
    )
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">channel</th>'
        '<th scope="col">mean</th><th scope="col">deviation</th>'
        '<th scope="col">divergence, nats</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
