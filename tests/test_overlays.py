"""Looking into latents: colours in closed form, probes that read, and pushes that move them."""

import pytest
import torch

from avenir.clip import Clip
from avenir.data import Recording, Source, Window
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.device import seed_of
from avenir.evaluation.probing.features import components
from avenir.serving import overlays as overlays_module
from avenir.serving.backends import Direction, LatentEdit, backends_of, edited, initial_states_of
from avenir.serving.overlays import Overlays, Probes, Truth, fitted
from avenir.serving.player import Player
from avenir.signals import Signal
from avenir.world import load


def truth_of(values: torch.Tensor, name: str = "known") -> Truth:
    return Truth(name, "px", values, torch.ones(len(values), dtype=torch.bool))


def probes_of(shape: tuple[int, int, int]) -> tuple[Probes, torch.Tensor]:
    """Learn two factors that are linear in latents, and return other latents beside."""
    chance = torch.Generator().manual_seed(0)
    latents = torch.randn(400, 1, *shape, generator=chance)
    weights = torch.randn(2, *shape, generator=chance)
    factors = (latents * weights).sum((2, 3, 4)) + 7
    truths = [truth_of(factor) for factor in factors.T]
    learnt, judged = (
        [t._replace(values=t.values[w], counted=t.counted[w]) for t in truths]
        for w in (slice(300), slice(300, None))
    )
    held_out = torch.arange(300) % 5 == 0
    return fitted(latents[:300], learnt, held_out, latents[300:], judged), latents[300:]


def test_colours_are_the_components_in_closed_form():
    mean = torch.tensor([1.0, -2.0, 0.5, 3.0])
    tokens = []
    for axis, reach in ((2, 6.0), (0, 4.0), (3, 2.0)):  # what differs most is red, then green, blue
        for sign in (-1.0, 1.0):
            token = mean.clone()
            token[axis] += sign * reach
            tokens.append(token)
    found = components(torch.stack(tokens).T.reshape(1, 1, 4, 2, 3))
    seen = Overlays(found)
    # A third of the tokens is off along each axis, and colours are full at two deviations.
    deviation = {axis: reach / 3**0.5 for axis, reach in ((2, 6.0), (0, 4.0), (3, 2.0))}
    latent = mean[:, None, None].repeat(1, 2, 4)
    latent[2, 0, 0] += 2 * deviation[2]
    latent[2, 0, 1] -= 2 * deviation[2]
    latent[0, 0, 2] += deviation[0]
    latent[3, 1, 3] -= 9 * deviation[3]
    latent[1, 1, 0] += 100  # nothing differs along it
    picture = seen.painted(latent)
    assert picture.shape == (1, 3, 2, 4) and picture.dtype == torch.uint8
    assert picture[0, :, 0].T.tolist() == [
        [255, 128, 128],
        [0, 128, 128],
        [128, 191, 128],
        [128] * 3,
    ]
    assert picture[0, :, 1].T.tolist() == [[128] * 3, [128] * 3, [128] * 3, [128, 128, 0]]


def test_latents_of_one_channel_are_shown_in_one_colour():
    found = components(torch.randn(1, 8, 1, 3, 3))
    picture = Overlays(found).painted(torch.randn(1, 3, 3))
    assert (picture[0, 1:] == 128).all() and picture[0, 0].unique().numel() > 1


@pytest.mark.parametrize("shape", [(4, 3, 5), (8, 18, 15)])  # the larger one is pooled
def test_a_probe_reads_what_is_linear_in_latents(shape):
    probes, asked = probes_of(shape)
    assert [factor.name for factor in probes.factors] == ["known"] * 2
    if shape == (4, 3, 5):
        assert all(factor.r2 > 0.999 for factor in probes.factors)
        latent = asked[3, 0]
        again, _ = probes_of(shape)
        assert probes.read(latent) == again.read(latent)
    first, second = (probes.read(asked[i, 0]) for i in (0, 1))
    mixed = probes.read((asked[0, 0] + asked[1, 0]) / 2)
    for one, other, both in zip(first, second, mixed, strict=True):
        assert both == pytest.approx((one + other) / 2, abs=1e-6)  # it is linear, pooled or not


@pytest.mark.parametrize("shape", [(4, 3, 5), (8, 18, 15)])
def test_one_deviation_along_a_direction_is_read_as_one(shape):
    probes, asked = probes_of(shape)
    read = torch.tensor([probes.read(latent) for latent in asked[:, 0]])
    for number, direction in enumerate(probes.directions):
        assert direction.change.shape == shape and direction.change.dtype == torch.float32
        moved = probes.read(asked[0, 0] + direction.change)[number]
        assert moved - float(read[0, number]) == pytest.approx(
            read[:, number].std().item(), rel=1e-3
        )
        # No smaller change does: it is along what the probe weighs.
        weights = probes.weights[number].flatten()
        change = direction.change.flatten().double()
        assert torch.allclose(weights @ change, weights.norm() * change.norm())


def test_what_never_varies_is_not_read():
    latents = torch.randn(60, 1, 2, 2, 2)
    held_out = torch.arange(60) % 5 == 0
    truths = [truth_of(torch.full((60,), 3.0), "still"), truth_of(latents[:, 0, 0, 0, 0], "one")]
    probes = fitted(latents, truths, held_out, latents, truths)
    assert [factor.name for factor in probes.factors] == ["one"]
    assert len(probes.directions) == len(probes.read(latents[0, 0])) == 1


@pytest.fixture
def player(tiny_run) -> Player:
    world = load(tiny_run)
    source = Synthetic(SyntheticConfig(episode_frames=30))
    initial_states = initial_states_of(source, world, 2, 6)
    return Player(backends_of(world, initial_states, True), initial_states, source.signals)


def test_a_push_changes_the_latest_latent_alone_and_one_of_nothing_changes_nothing(player):
    state = player.timeline.states[0]["world"].rollout
    latents = state.memory.latents
    direction = Direction("anything", torch.randn(latents.shape[2:]))
    kept = latents.clone()
    changed = edited(state, LatentEdit(direction, -1.5)).memory.latents
    assert torch.equal(changed[:, :-1], latents[:, :-1])
    assert torch.allclose(changed[0, -1], latents[0, -1] - 1.5 * direction.change)
    assert torch.equal(latents, kept)  # states are values
    assert edited(state, None) is state

    player.step((0.0, 1.0))
    plain = player.frames("world").clone()
    player.rewind(0)
    player.set_edit(direction, 0.0)
    player.step((0.0, 1.0))
    assert torch.equal(player.frames("world"), plain)
    player.rewind(0)
    player.set_edit(direction, 3.0)
    player.step((0.0, 1.0))
    assert not torch.equal(player.frames("world"), plain)


def test_factors_of_the_synthetic_world_are_read_in_its_latents(player, monkeypatch):
    monkeypatch.setattr(overlays_module, "_NUM_TRAIN", 64)
    monkeypatch.setattr(overlays_module, "_NUM_TEST", 32)
    monkeypatch.setattr(overlays_module, "_SECONDS", 60.0)
    world, source = player.backends["world"].world, Synthetic(SyntheticConfig(episode_frames=30))
    seen = Overlays.of(world, player.initial_states, source)
    names = [factor.name for factor in seen.factors]
    assert names[:3] == ["ego x", "ego y", "ego speed"] and "cars" in names
    assert len(seen.read(player.latents)) == len(names) == len(seen.directions)
    assert all(factor.r2 <= 1 for factor in seen.factors)
    assert seen.painted(player.latents).shape == (1, 3, *player.latents.shape[1:])
    assert torch.equal(
        player.latents, player.timeline.states[0]["world"].rollout.memory.latents[0, -1]
    )
    # The same windows give the same probe, so that what is edited can be edited again.
    again = Overlays.of(world, player.initial_states, source)
    for one, other in zip(seen.directions, again.directions, strict=True):
        assert torch.equal(one.change, other.change)


def test_it_makes_do_with_the_windows_that_time_allows(player, monkeypatch):
    monkeypatch.setattr(overlays_module, "_SECONDS", 0.0)
    world, source = player.backends["world"].world, Synthetic(SyntheticConfig(episode_frames=30))
    assert Overlays.of(world, player.initial_states, source).factors  # of one batch each


class Lamp(Source):
    """Frames of one brightness each; the state says which, and something that nobody measured."""

    def __init__(self) -> None:
        self.fps, self.size, self.skipped = 10.0, (64, 64), []
        self.signals = {"state": Signal(role="state", size=2, names=("brightness", "warmth"))}

    def recordings(self, split: str) -> list[Recording]:
        return [Recording(f"{split}-{number}", 2.0) for number in range(10)]

    def clip(self, window: Window) -> Clip:
        seed = seed_of("lamp", window.recording.name, round(1e6 * window.start_seconds))
        chance = torch.Generator().manual_seed(seed)
        light = torch.randint(256, (window.num_frames, 1, 1, 1), generator=chance)
        frames = light.to(torch.uint8).expand(-1, 3, 64, 64)
        state = torch.stack([light.flatten().float(), torch.full((len(light),), torch.nan)], dim=1)
        return Clip(frames, self.fps, {"state": state}, window.recording.name)

    @property
    def fingerprint(self) -> str:
        return "lamp"


def test_a_state_is_read_by_its_names_and_what_nobody_measured_is_not(player, monkeypatch):
    monkeypatch.setattr(overlays_module, "_NUM_TRAIN", 64)
    monkeypatch.setattr(overlays_module, "_NUM_TEST", 32)
    seen = Overlays.of(player.backends["world"].world, player.initial_states, Lamp())
    assert [factor.name for factor in seen.factors] == ["brightness"]
    assert seen.factors[0].r2 > 0.9


@pytest.mark.parametrize(
    "source",
    [
        None,
        Synthetic(SyntheticConfig(episode_frames=3)),  # too short for two latents
        Synthetic(SyntheticConfig(size=(32, 32))),  # pixels of another size
    ],
    ids=["video", "short", "other size"],
)
def test_where_nobody_says_what_is_true_there_are_colours_alone(player, source):
    seen = Overlays.of(player.backends["world"].world, player.initial_states, source)
    assert seen.factors == [] and seen.directions == [] and seen.read(player.latents) == []
    assert seen.painted(player.latents).shape[:2] == (1, 3)
