"""A world's step as ONNX: the next frames from latents, signals and noise, without PyTorch.

Two graphs and what is to be known of them. `encode.onnx` takes observed frames to latents, and
`step.onnx` the last latents to what comes next, its sampler's steps unrolled. It remembers nothing:
a caller that keeps latents and signals can rewind and branch. Randomness comes in as noise. The
only file that needs onnx, onnxscript and onnxruntime, which the extra `onnx` brings.
"""

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import onnxscript  # noqa: F401  a missing module is noticed at once
import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from avenir.clip import Clip
from avenir.config import Config
from avenir.controls import Controls, build_step_signals, given_by_name
from avenir.device import generator
from avenir.errors import AvenirError
from avenir.files import beside, make_folder, move_together, write_whole
from avenir.finite import finite
from avenir.predictors import Memory
from avenir.predictors.flow import Flow
from avenir.rollout import RolloutState
from avenir.shapes import Latents, Video
from avenir.signals import Signal, name_of, with_role
from avenir.world import World

CLOSE = 1e-4
"""Most by which a number of an exported frame, in [-1, 1], may differ from PyTorch's."""

_COMPARED = 4
"""Steps, each from the last, that are compared before an export is believed."""


class Exported(Config):
    """What `world.json` says beside the graphs, which take one clip, `b = 1`."""

    format: Literal["avenir onnx 1"] = "avenir onnx 1"
    """Version of the file."""
    name: str
    """Name of the world."""
    key: str
    """What tells its training from others, and how far that had come."""
    fps: float = Field(gt=0)
    """Frames per second; their values are in [-1, 1]."""
    f_t: PositiveInt
    """Frames of one latent: as many as a step makes."""
    size: tuple[PositiveInt, PositiveInt]
    """`(H, W)` of a frame."""
    latent: tuple[PositiveInt, PositiveInt, PositiveInt]
    """`c h w` of a latent, and of the noise that a step is given."""
    num_latents: PositiveInt
    """How many latents a step is given, the last ones."""
    num_steps: PositiveInt
    """From noise to data."""
    signals: dict[str, Signal]
    """What steers it. Of each a step is given rows for `num_latents + 2` latent frames, of which
    the last is to come; NaN is unknown. The action at a frame leads to the next."""

    @property
    def num_frames(self) -> int:
        """Frames that a world begins from."""
        return self.num_latents * self.f_t


@dataclass(frozen=True)
class OnnxState(RolloutState):
    """Where a future stands, and the signals that led to it."""

    rows: Mapping[str, Float[Tensor, "1 T s"]] | None = None
    """Signals of the last `num_latents + 1` latent frames."""


class OnnxWorld:
    """An exported world: `start` and `imagine_step` as `World` has them, of one clip at a time.

    Raises AvenirError for a folder that holds none.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        path = folder / "world.json"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.about = Exported.model_validate_json(path.read_text())
            self._encode, self._step = (
                onnxruntime.InferenceSession(
                    folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
                )
                for name in ("encode", "step")
            )
        except Exception as error:  # onnxruntime's own errors have no class in common
            raise AvenirError(
                f"{str(folder)!r} holds no exported world, or a damaged one "
                f"({type(error).__name__}): write it with `avenir export RUN`"
            ) from None

    @property
    def takes(self) -> dict[str, Signal]:
        """What steers it."""
        return self.about.signals

    def start(self, past: Video, signals: Mapping[str, Tensor]) -> OnnxState:
        """Stand at the end of a past `1 P C H W`, of which `signals` are known.

        Raises AvenirError when it is shorter than what a step is given, or of another size.
        """
        about = self.about
        if len(past) != 1 or past.shape[2:] != (3, *about.size):
            raise AvenirError(
                f"a past of shape {tuple(past.shape)} was given; this exported world begins from "
                f"one clip at a time, `1 P 3 {about.size[0]} {about.size[1]}`"
            )
        needed = about.num_frames
        if past.shape[1] < needed:
            raise AvenirError(
                f"{past.shape[1]} observed frames; this exported world begins from {needed} "
                f"({needed / about.fps:.2f} s at {about.fps:g} fps): give a longer clip"
            )
        (latents,) = self._encode.run(None, {"video": past[:, -needed:].numpy()})
        kept, rows = (about.num_latents + 1) * about.f_t, {}
        for name, signal in about.signals.items():
            rows[name] = torch.full((1, kept, signal.size), torch.nan)
            if name in signals:
                # Groups end at the last frame, so that the oldest frames go, as in `World.start`.
                known = signals[name][:, past.shape[1] % about.f_t :][:, -kept:]
                rows[name][:, -known.shape[1] :] = known
        if (name := name_of(about.signals, "action")) is not None:
            rows[name][:, -1] = torch.nan  # what leads out of the past comes with the step
        memory = Memory(torch.from_numpy(latents), None)
        return OnnxState(memory, memory.latents[:, :0], past[:, -about.f_t :], rows=rows)

    def imagine_step(self, state: OnnxState, controls: Controls | None, seed: int) -> OnnxState:
        """Step with randomness that follows from the seed and the number of the step."""
        about, past = self.about, state.memory.latents
        drawn = generator("dream", seed, state.num_imagined)  # as `World.imagine_step` draws
        noise = torch.randn((1, 1, *about.latent), generator=drawn)
        rows = self._step_rows(state, controls or Controls())
        given = {"latents": past, "noise": noise, **rows}
        frames, made = self._step.run(None, {name: value.numpy() for name, value in given.items()})
        latents = torch.cat([past[:, 1:], finite(torch.from_numpy(made))], dim=1)
        return OnnxState(
            Memory(latents, None),
            latents[:, :0],
            finite(torch.from_numpy(frames)),
            state.num_imagined + 1,
            {name: each[:, about.f_t :] for name, each in rows.items()},
        )

    def _step_rows(self, state: OnnxState, controls: Controls) -> dict[str, Tensor]:
        """Put the controls of the frames to come behind those that led here."""
        f_t, rows = self.about.f_t, {}
        ahead = build_step_signals(self.takes, 1, f_t, 1, controls)
        for name, before in (state.rows or {}).items():
            unknown = torch.full_like(before[:, :f_t], torch.nan)
            if self.takes[name].role == "camera":  # they stay where they are
                unknown[:] = before[:, -1:]
            rows[name] = torch.cat([before, unknown], dim=1)
            if name in ahead:
                # The action at the last frame there was leads to the first that comes.
                first = f_t + (self.takes[name].role == "action")
                rows[name][:, -first:] = ahead[name][:, -first:]
        return rows


def export(world: World, folder: Path, past: Clip, report: Callable[[str], None]) -> float:
    """Write a world's graphs into `folder`, and say by how much at most their frames are off.

    The world is on the CPU; `past` is a clip to compare with PyTorch on. Raises AvenirError for
    worlds whose step is no function of their last latents and of noise, and when what comes out is
    not the same.
    """
    about = _about(world)
    _check_length(about, past)
    past = past[-about.num_frames :]
    with beside(folder) as scratch:
        _write(world, about, past, scratch, report)
        report("comparing with PyTorch")
        off = _difference(world, OnnxWorld(scratch), past)
        if not off <= CLOSE:
            raise AvenirError(
                f"frames of the exported world differ from PyTorch's by {off:.1e}, more than "
                f"{CLOSE:g}: nothing was written; other versions of onnxruntime may do better"
            )
        make_folder(folder)
        # The last, in the order of names, is world.json: without it there is no world.
        move_together({path: folder / path.name for path in sorted(scratch.iterdir())})
    return off


class _Step(nn.Module):
    """One step of a world as a function of tensors."""

    def __init__(self, world: World, num_latents: int) -> None:
        super().__init__()
        assert isinstance(world.predictor, Flow)
        self.encoder, self.conditioner = world.encoder, world.conditioner
        self.predictor, self.signals = world.predictor, tuple(world.takes)
        self.num_latents, self.size = num_latents, world.card.size

    def forward(self, latents: Latents, noise: Latents, *rows: Tensor) -> tuple[Video, Latents]:
        past = latents[:, -self.predictor.config.past :]
        before = after = None
        if self.conditioner is not None:
            signals = dict(zip(self.signals, rows, strict=True))
            # The first latent frame is there for what led into the second.
            condition = self.conditioner(signals, self.num_latents + 2, 1)
            before, after = condition[-1 - past.shape[1] : -1], condition[-1:]
        made = self.predictor.from_noise(noise, past, before, after)
        window = torch.cat([latents, made], dim=1)[:, -1 - self.encoder.look_back :]
        height, width = self.size
        frames = self.encoder.decode(window)[:, -self.encoder.compression.t :]
        return frames[..., :height, :width], made


class _Encode(nn.Module):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.encoder = world.encoder

    def forward(self, video: Video) -> Latents:
        return self.encoder.encode(video)


def _about(world: World) -> Exported:
    """Describe what is exported; AvenirError for what cannot be."""
    predictor, encoder, card = world.predictor, world.encoder, world.card
    if not isinstance(predictor, Flow) or world.modality == "text":
        raise AvenirError(
            f"{card.name!r} holds no predictor of kind 'flow' for video, and no other can be "
            "exported: train one"
        )
    sampling = predictor.config.sampling
    if sampling.sampler == "ddpm" or sampling.past_noise or predictor.config.sinks:
        raise AvenirError(
            f"{card.name!r} draws with sampler {sampling.sampler!r}, past_noise "
            f"{sampling.past_noise:g} and {predictor.config.sinks} sinks; a step is exported that "
            "knows the last latents and one draw of noise: use sampler 'euler' without either"
        )
    _, h, w = encoder.compression.latent_shape(1, *card.size)
    return Exported(
        name=card.name,
        key=key_of(world),
        fps=card.fps,
        f_t=encoder.compression.t,
        size=card.size,
        latent=(encoder.channels, h, w),
        num_latents=max(predictor.config.past, encoder.look_back),
        num_steps=sampling.num_steps,
        signals=world.takes,
    )


def key_of(world: World) -> str:
    """Tell a world from others, and from itself before it was trained on."""
    known = world.card.provenance
    return f"{known.get('key') or world.card.name} after {known.get('steps') or 0} steps"


def opened_beside(run: Path, world: World, threads: int) -> OnnxWorld:
    """Open what was exported of a run; AvenirError when it was trained on since."""
    exported = OnnxWorld(run / "onnx", threads)
    if exported.about.key != key_of(world):
        raise AvenirError(
            f"{str(run / 'onnx')!r} was exported from {exported.about.key!r}, and {str(run)!r} is "
            f"{key_of(world)!r} by now: write it anew with `avenir export {run}`"
        )
    return exported


def frames_needed(world: World) -> int:
    """Return how many frames an exported world begins from.

    Raises AvenirError for a world that cannot be exported.
    """
    return _about(world).num_frames


def _check_length(about: Exported, past: Clip) -> None:
    if past.num_frames < about.num_frames:
        raise AvenirError(
            f"a clip of {past.num_frames} frames was given to compare on; {about.name!r} begins "
            f"from {about.num_frames}: give a longer one"
        )


def _write(
    world: World,
    about: Exported,
    past: Clip,
    folder: Path,
    report: Callable[[str], None],
) -> None:
    """Trace both graphs."""
    rows = [
        torch.full((1, (about.num_latents + 2) * about.f_t, signal.size), torch.nan)
        for signal in about.signals.values()
    ]
    latents, noise = (torch.zeros(1, n, *about.latent) for n in (about.num_latents, 1))
    report("writing encode.onnx")
    _traced(_Encode(world), (past.video,), ["video"], ["latents"], folder / "encode.onnx")
    report("writing step.onnx")
    given = ["latents", "noise", *about.signals]
    step = _Step(world, about.num_latents)
    _traced(step, (latents, noise, *rows), given, ["frames", "latent"], folder / "step.onnx")
    write_whole(folder / "world.json", about.model_dump_json(indent=2) + "\n")


def _traced(
    module: nn.Module, inputs: tuple[Tensor, ...], given: list[str], made: list[str], path: Path
) -> None:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # what torchvision could do is no business of ours
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            module.eval()(*inputs)  # what is computed once, as a sampler's times, is no part of it
            program: Any = torch.onnx.export(
                module,
                inputs,
                input_names=given,
                output_names=made,
                dynamo=True,
                verbose=False,
            )
            program.save(path)
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise AvenirError(
            f"{path.name} cannot be written ({reason}): a step is exported that computes with "
            "tensors alone, which conditioner 'text_encoder' does not"
        ) from None
    finally:
        logger.setLevel(level)


def _difference(world: World, exported: OnnxWorld, past: Clip) -> float:
    """Imagine a few steps with both and return the largest difference of a number in frames.

    In every other step there is a caption, and every other signal is as it was last.
    """
    known = {name: s[None].float() for name, s in past.signals.items() if name in world.takes}
    one, other = world.start(past.video, known), exported.start(past.video, known)
    action = world.action_signal
    cameras = with_role(world.takes, "camera")
    others = {name: known[name][0, -1] for name in given_by_name(world.takes) if name in known}
    others = {name: row for name, row in others.items() if name not in cameras}
    text = None if name_of(world.takes, "caption") is None else "a"
    differences, drawn = [0.0], np.random.default_rng(0)
    for number in range(_COMPARED):
        held = None
        if action is not None:
            low, high = action.low or (-1.0,) * action.size, action.high or (1.0,) * action.size
            held = torch.tensor(drawn.uniform(low, high), dtype=torch.float32)
        controls = Controls(held, text, others) if number % 2 else Controls(held)
        one = world.imagine_step(one, controls, number)
        other = exported.imagine_step(other, controls, number)
        differences.append(float((one.video - other.video).abs().max()))
    return float(np.max(differences))  # NaN is no agreement
