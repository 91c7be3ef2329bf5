"""One vector for each frame, learnt by predicting the next: LeWorldModel (2603.19312).

A vision transformer sees frames one by one; a small causal transformer says the next frame's vector
from those before it and the actions in between. Both learn together, with neither an average nor a
stopped gradient: that all vectors become one, which is easiest to predict, is kept away by asking
them to be a standard normal in every direction. Pictures larger than `size` are seen in tiles of
it. It cannot decode; predictors of kind `joint_embedding` and `flow` go on from its latents.
"""

import warnings

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from avenir.clip import Batch, Progress
from avenir.config import Config
from avenir.encoders import (
    COLLAPSED,
    Encoder,
    ParameterGroup,
    Posterior,
    is_asked,
    padded,
)
from avenir.losses.distillation import effective_rank, gaussian
from avenir.nn.transformer import SpaceTimeTransformer, in_order
from avenir.nn.vit import ViT
from avenir.shapes import Compression, Video


class LeWMWeights(Config):
    """What each loss counts."""

    prediction: float = 1.0
    """Squared error of the next vector."""
    gaussian: float = 0.1
    """How far vectors are from a standard normal."""


class LeWMConfig(Config):
    """The encoder that learns by predicting its own vectors."""

    kind: str = "lewm"
    size: tuple[int, int] = (64, 64)
    """Rows and columns of pixels that one vector stands for."""
    channels: int = Field(64, ge=2)
    """Numbers in a vector."""
    actions: int = Field(0, ge=0)
    """Numbers in an action; 0: the data have none."""
    patch: int = Field(8, ge=1)
    """Rows and columns of a patch."""
    width: int = Field(128, ge=16)
    """Width of both transformers."""
    depth: int = Field(4, ge=1)
    """Blocks of the encoder."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    predictor_depth: int = Field(2, ge=1)
    """Blocks of the network that predicts."""
    num_directions: int = Field(256, ge=1, le=2**16)
    """Random directions, drawn at every step, along which vectors are compared with a normal."""
    weights: LeWMWeights = LeWMWeights()
    """What each loss counts."""


class LeWM(Encoder):
    """`b T C H W -> b t c 1 1` for pictures of one tile."""

    Config = LeWMConfig

    def __init__(self, config: LeWMConfig) -> None:
        super().__init__(Compression(1, *config.size), config.channels)
        self.config = config
        self.needs = ("actions",) if config.actions else ()
        self.backbone = ViT(config.patch, config.width, config.depth, config.heads)
        # Normalised over the batch: a norm of each vector on its own would keep it from a normal.
        self.project = nn.Sequential(
            nn.Linear(config.width, 2 * config.width),
            nn.BatchNorm1d(2 * config.width),
            nn.SiLU(),
            nn.Linear(2 * config.width, config.channels),
        )
        self.predictor = VectorPredictor(config)
        self.rank = float(config.channels)

    def raw_posterior(self, video: Video) -> Posterior:
        """Return the vector of every tile of every frame."""
        height, width = self.config.size
        tiles = rearrange(video, "b t C (h p) (w q) -> (b t h w) C p q", p=height, q=width)
        frame, _ = self.backbone(tiles)
        b, h, w = len(video), video.shape[-2] // height, video.shape[-1] // width
        return Posterior(rearrange(self.project(frame), "(b t h w) c -> b t c h w", b=b, h=h, w=w))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Predict every next vector, and compare all of them with a normal."""
        assert batch.video is not None
        latents = self.raw_posterior(padded(batch.video, self.compression)).mean
        vectors = rearrange(latents, "b t c h w -> (b h w) t c")
        tiles = len(vectors) // len(batch.video)
        actions = batch.signals["actions"] if self.config.actions else None
        if actions is not None:
            actions = actions.repeat_interleave(tiles, dim=0)[:, :-1]
        error = self.predictor(vectors[:, :-1], actions) - vectors[:, 1:]
        every = vectors.flatten(0, 1)
        covariance = torch.linalg.eigvalsh(every.detach().double().T.cov()).clamp(min=1e-12)
        rank = effective_rank(covariance)
        self.rank = float(rank)
        return {
            "prediction": error.square().mean(),
            "gaussian": gaussian(every, self.config.num_directions, progress.generator),
            "rank": rank,
        }

    def parameter_groups(self) -> list[ParameterGroup]:
        """Train everything, together."""
        parts = [self.backbone, self.project, self.predictor]
        parameters = [p for part in parts for p in part.parameters()]
        return [ParameterGroup(parameters, self.config.weights.model_dump())]

    def after_step(self, progress: Progress) -> None:
        """Warn, half-way and at the end, when vectors fill hardly any directions."""
        if is_asked(progress) and self.rank < max(2.0, COLLAPSED * self.channels):
            warnings.warn(
                f"after {progress.step + 1} steps vectors fill {self.rank:.1f} directions of "
                f"{self.channels}: they have collapsed; raise encoder.weights.gaussian, or take "
                "larger batches",
                stacklevel=2,
            )


class VectorPredictor(nn.Module):
    """Vectors `b t c` and the actions `b t a` taken at them to the vectors that come next.

    It says what changes.
    """

    def __init__(self, config: LeWMConfig) -> None:
        super().__init__()
        width = config.width
        self.proj_in = nn.Linear(config.channels, width)
        self.steer = None
        if config.actions:
            self.normalise = nn.BatchNorm1d(config.actions, affine=False)
            self.steer = nn.Sequential(
                nn.Linear(config.actions, width), nn.SiLU(), nn.Linear(width, width)
            )
        self.unsteered = nn.Parameter(0.02 * torch.randn(width))
        self.transformer = SpaceTimeTransformer(width, config.predictor_depth, config.heads, "full")
        self.proj_out = nn.Linear(width, config.channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(
        self, vectors: Float[Tensor, "b t c"], actions: Float[Tensor, "b t a"] | None
    ) -> Float[Tensor, "b t c"]:
        """Say the next vector at each."""
        b, t, _ = vectors.shape
        per_frame = self.unsteered.expand(b, t, -1)
        if self.steer is not None:
            assert actions is not None
            scaled = self.normalise(actions.flatten(0, 1)).view_as(actions)
            per_frame = per_frame + self.steer(scaled)
        x = (self.proj_in(vectors) + per_frame)[:, :, None]
        x, _ = self.transformer(x, per_frame, (1, 1), in_order(b, t, x.device))
        return vectors + self.proj_out(x[:, :, 0])
