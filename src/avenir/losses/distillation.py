"""What a student is asked that has no labels: to agree with its own average, or to fill its space.

Self-distillation over views (DINO, 2104.14294) and hidden patches (iBOT, 2111.07832), targets
centred, or balanced over prototypes by Sinkhorn-Knopp (SwAV, 2006.09882), features spread out
(KoLeo, 1806.03198), relations of patches held (Gram anchoring, DINOv3, 2508.10104), features as a
standard normal in every direction (LeJEPA, 2511.08544).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "n v"], temperature: float, num_iterations: int = 3
) -> Float[Tensor, "n v"]:
    """Turn a teacher's scores into distributions, every prototype used equally over the `n`.

    Alternately scales columns to equal shares and rows to one; what cannot collapse needs no
    centring.
    """
    shares = ((scores - scores.max()) / temperature).double().exp()
    for _ in range(num_iterations):
        shares = shares / shares.sum(dim=0, keepdim=True).clamp(min=1e-30)
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-30)
    return shares.to(scores.dtype)


def centred(
    scores: Float[Tensor, "n v"], centre: Float[Tensor, " v"], temperature: float
) -> Float[Tensor, "n v"]:
    """Sharpen a teacher's scores about their running mean (DINO, 2104.14294, eq. 4).

    Centring alone would make all targets uniform, sharpening alone would make all of them one.
    """
    return ((scores - centre) / temperature).softmax(dim=-1)


def agreement(
    scores: Float[Tensor, "n v"], targets: Float[Tensor, "n v"], temperature: float
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the student's softmax at `temperature`, in nats."""
    return -(targets * log_softmax(scores / temperature, dim=-1)).sum(dim=-1).mean()


def koleo(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Ask directions to lie apart: minus the mean log distance to the nearest of the others."""
    unit = normalize(features, dim=-1)
    cosine = (unit @ unit.T).fill_diagonal_(-1)
    nearest = cosine.detach().argmax(dim=1)
    distance = (unit - unit[nearest]).square().sum(dim=1).clamp(min=1e-8).sqrt()
    return -distance.log().mean()


def gram(features: Float[Tensor, "n s d"], anchor: Float[Tensor, "n s d"]) -> Float[Tensor, ""]:
    """Ask patches of a frame to be as alike as an anchor finds them: mean squared difference."""
    ours, theirs = normalize(features, dim=-1), normalize(anchor, dim=-1)
    return (ours @ ours.mT - theirs @ theirs.mT).square().mean()


def gaussian(
    features: Float[Tensor, "n d"],
    num_directions: int,
    generator: torch.Generator,
    reach: float = 5.0,
    num_knots: int = 17,
) -> Float[Tensor, ""]:
    """Ask features to be a standard normal: the Epps-Pulley test along random directions.

    n times the squared distance of the empirical characteristic function from exp(-t²/2), weighed
    by exp(-t²/2) and integrated over t (LeJEPA, 2511.08544, SIGReg). Of truly normal features the
    expectation is sqrt(2 pi) (1 - 1 / sqrt(3)), whatever their number.
    """
    n, d = features.shape
    device = features.device
    drawn = torch.randn(d, num_directions, generator=generator, device=device)
    along = features @ normalize(drawn, dim=0)
    knots = torch.linspace(-reach, reach, num_knots, device=device)
    normal = torch.exp(-(knots**2) / 2)
    angles = along[..., None] * knots
    real, imaginary = angles.cos().mean(0), angles.sin().mean(0)
    distance = ((real - normal) ** 2 + imaginary**2) * normal
    return n * torch.trapezoid(distance, knots).mean()


def effective_rank(spectrum: Float[Tensor, " c"]) -> Float[Tensor, ""]:
    """Return exp of the entropy of the eigenvalues' shares (Roy & Vetterli 2007): 1 to c."""
    shares = spectrum / spectrum.sum().clamp(min=1e-12)
    return torch.special.entr(shares).sum().exp()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every parameter of a teacher toward its student's: the average that DINO learns from."""
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)
