"""Weather looks as it is told, changes pictures alone, and only from its frame on."""

import numpy as np
import pytest
import torch

from avenir.clip import to_frames
from avenir.data.synthetic import WEATHER, Synthetic, SyntheticConfig
from avenir.data.synthetic.visitors import visit_of
from avenir.data.synthetic.weather import (
    FADE,
    LOOKS,
    Change,
    Weather,
    draw_changes,
    lay_over,
    look_at,
    weather_at,
)
from avenir.errors import AvenirError

ALWAYS = -np.inf


def source(**settings) -> Synthetic:
    return Synthetic(SyntheticConfig.parse(settings))


def painted(colour: tuple[int, int, int], changes: list[Change], *seconds: float) -> np.ndarray:
    """Return what a plain colour becomes at each of these times, `T 3`."""
    frames = np.empty((1, len(seconds), 3, 4, 5), np.uint8)
    frames[:] = np.array(colour, np.uint8)[:, None, None]
    lay_over(frames, [changes], np.array([seconds]))
    assert (frames == frames[..., :1, :1]).all()
    return frames[0, :, :, 0, 0].astype(int)


@pytest.mark.parametrize("weather", Weather)
def test_a_plain_colour_becomes_what_is_kept_of_it_and_what_is_added(weather):
    keep, add = LOOKS[weather].astype(int)
    for colour in ((0, 0, 0), (200, 120, 40), (255, 255, 255)):
        expected = (np.array(colour) * keep + add) // 256
        assert (expected <= 255).all()
        assert (painted(colour, [Change(weather, ALWAYS)], 0.0)[0] == expected).all()


def test_night_is_darker_fog_is_greyer_dusk_is_redder_and_day_is_as_it_is():
    colour = (200, 120, 40)
    day, night, fog, dusk = (painted(colour, [Change(w, ALWAYS)], 0.0)[0] for w in Weather)
    assert tuple(day) == colour
    assert night.sum() < 0.5 * day.sum()
    # Of every difference between channels fog keeps the same share.
    assert np.ptp(fog) == pytest.approx(np.ptp(day) * LOOKS[Weather.FOG][0, 0] / 256, abs=9)
    assert dusk[0] / dusk.sum() > day[0] / day.sum()


def test_a_change_fades_in_evenly():
    changes = [Change(Weather.DAY, ALWAYS), Change(Weather.NIGHT, 1.0)]
    parts = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 3.0])
    seen = painted((200, 120, 40), changes, 0.0, *(1 + FADE * parts))
    day, night = seen[0], seen[-1]
    assert (seen[5] == night).all() and (seen[1] == day).all()
    expected = day + parts[:, None] * (night - day)
    np.testing.assert_allclose(seen[1:6], expected[:5], atol=1.5)
    assert (look_at(changes, 5.0) == LOOKS[Weather.NIGHT]).all()


def test_every_recording_begins_in_one_and_changes_to_others():
    drawn = [draw_changes(seed, 6.4) for seed in range(300)]
    for changes in drawn:
        assert changes[0].begins == ALWAYS and len(changes) > 1
        for one, other in zip(changes, changes[1:], strict=False):
            assert one.weather != other.weather
            assert other.begins - max(one.begins, 0) >= FADE
    assert {changes[0].weather for changes in drawn} == set(Weather)
    assert drawn[3] == draw_changes(3, 6.4)


def test_the_signal_says_which_it_is_or_is_becoming_and_the_picture_follows():
    world, plain = source(weather=True), source()
    windows = world.spread("test", 24, 8)
    one, other = world.read(windows), plain.read(windows)
    assert world.signals["weather"].names == ("day", "night", "fog", "dusk")
    told = one.signals["weather"]
    assert (told.sum(-1) == 1).all() and len(told.argmax(-1).unique()) > 1
    seen, day = to_frames(one.video).int(), to_frames(other.video).int()
    seconds = 24 / world.fps
    assert seconds > FADE
    for row, window in enumerate(windows):
        changes = world._changes(window)
        for frame in range(24):
            second = (round(window.start_seconds * 10) + frame) / 10
            assert torch.equal(told[row, frame], torch.eye(4)[weather_at(changes, second)])
            keep, add = (torch.from_numpy(x.astype(int)) for x in look_at(changes, second))
            expected = (day[row, frame] * keep[:, None, None] + add[:, None, None]) // 256
            assert torch.equal(seen[row, frame].long(), expected)


def test_nothing_but_pictures_depends_on_it():
    with_it, without = source(weather=True, labels=True), source(labels=True)
    windows = with_it.spread("train", 12, 4)
    one, other = with_it.read(windows), without.read(windows)
    assert one.signals.keys() - other.signals.keys() == {"weather"}
    assert all(torch.equal(one.signals[name], s) for name, s in other.signals.items())


@pytest.mark.parametrize("first", [1, 7, 23])
def test_another_weather_from_a_frame_on_changes_later_frames_only(first):
    world = source(weather=True)
    windows = world.spread("test", 24, 8)
    was = world.read(windows)
    kinds = [Weather((int(row) + 1) % 4) for row in was.signals["weather"][:, first].argmax(-1)]
    now = world.under(windows, kinds, first)
    assert torch.equal(now.video[:, :first], was.video[:, :first])
    assert torch.equal(now.signals["weather"][:, :first], was.signals["weather"][:, :first])
    assert (now.video[:, first] != was.video[:, first]).flatten(1).any(1).all()
    assert torch.equal(now.signals["weather"][:, first:].argmax(-1).amax(1), torch.tensor(kinds))
    assert torch.equal(now.signals["actions"], was.signals["actions"])


def test_from_the_beginning_it_is_that_weather_all_along():
    world, plain = source(weather=True, cameras=3), source(cameras=3)
    windows = world.spread("test", 6, 4)
    assert torch.equal(world.under(windows, [Weather.DAY] * 4).video, plain.read(windows).video)
    night = world.under(windows, [Weather.NIGHT] * 4)
    assert night.signals["weather"][..., Weather.NIGHT].all()
    dark, bright = (
        to_frames(video).float().mean() for video in (night.video, plain.read(windows).video)
    )
    assert dark < 0.6 * bright


def test_others_who_drive_or_visit_meet_the_same_weather():
    world = source(weather=True, captions="some")
    windows = world.spread("test", 20, 3)
    was = world.read(windows).signals["weather"]
    assert torch.equal(world.counterfactual(windows, torch.ones(3, 5, 2)).signals["weather"], was)
    visits = [[visit_of(0, number, 0.0)] for number in range(3)]
    assert torch.equal(world.visited(windows, visits).signals["weather"], was)


def test_weather_changes_the_name_of_the_data_and_none_keeps_it():
    assert source().fingerprint.startswith("308345fedd75")
    assert source(weather=False).fingerprint == source().fingerprint
    assert source(weather=True).fingerprint != source().fingerprint
    assert "weather" not in source().signals
    with pytest.raises(AvenirError, match="weather=true"):
        source().under(source().spread("test", 4, 1), [Weather.FOG])


def test_a_value_is_one_of_the_names_or_numbers():
    assert WEATHER.parse_row("fog").tolist() == [0, 0, 1, 0]
    assert WEATHER.parse_row("0,0.5, 0.5,0").tolist() == [0, 0.5, 0.5, 0]
    for wrong in ("rain", "1,0", ""):
        with pytest.raises(AvenirError, match="one of day, night, fog, dusk, or 4 numbers"):
            WEATHER.parse_row(wrong)
