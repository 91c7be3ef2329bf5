"""Three splits by recording: what is trained on, what is chosen on, what is claimed on."""

import random
from pathlib import Path

import pytest
import torch

from avenir.clip import Clip
from avenir.data import Window
from avenir.data.folder import Folder, FolderConfig
from avenir.data.lerobot import LeRobot, LeRobotConfig, LeRobotWriter
from avenir.data.synthetic import Synthetic, SyntheticConfig
from avenir.errors import AvenirError
from avenir.signals import Signal
from avenir.splits import FEWEST_TO_SPLIT, SPLITS, chosen_for_validation
from avenir.video import write


def named(count: int) -> dict[str, str]:
    return {f"drive_{i:03d}": f"content {i}" for i in range(count)}


def film(shade: int) -> Clip:
    generator = torch.Generator().manual_seed(shade)
    frames = torch.randint(256, (6, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Clip(frames, 10.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(12):
        write(folder / f"drive_{i:02d}.mp4", film(i))
    return folder


def folder_of(path: Path, **settings) -> Folder:
    table = {"path": str(path), "size": (16, 16), "fps": 10.0, **settings}
    return Folder(FolderConfig.parse(table))


def names(source, split) -> set[str]:
    return {recording.name for recording in source.recordings(split)}


def test_every_recording_is_in_one_split(videos):
    source = folder_of(videos)
    found = [name for split in SPLITS for name in names(source, split)]
    assert len(found) == len(set(found)) == 12
    assert all(names(source, split) for split in SPLITS)


def test_the_test_is_what_it_was_before_there_was_a_validation_split(videos):
    """What is validated on comes from what was trained on, and from nowhere else."""
    with_it, without = folder_of(videos), folder_of(videos, validation_fraction=0)
    assert names(with_it, "test") == names(without, "test")
    kept = names(with_it, "validation")
    assert kept and kept < names(without, "train")
    assert not names(without, "validation")


def test_the_choice_depends_on_contents_alone():
    origins = named(40)
    shuffled = list(origins.items())
    random.Random(1).shuffle(shuffled)
    chosen = chosen_for_validation(origins, (), 0.1)
    assert chosen == chosen_for_validation(dict(shuffled), (), 0.1)
    renamed = {f"other_{name}": origin for name, origin in origins.items()}
    assert chosen_for_validation(renamed, (), 0.1) == {f"other_{name}" for name in chosen}


def test_others_that_are_added_move_none_from_validation_to_training():
    origins = named(400)
    few = dict(list(origins.items())[:200])
    chosen = chosen_for_validation(few, (), 0.1)
    assert chosen == chosen_for_validation(origins, (), 0.1) & set(few)
    assert len(chosen) == pytest.approx(20, abs=12)


def test_copies_go_together():
    origins = {f"{name}_{copy}": origin for name, origin in named(20).items() for copy in "ab"}
    chosen = chosen_for_validation(origins, (), 0.2)
    assert chosen
    assert {name[:-1] for name in chosen if name.endswith("a")} == {
        name[:-1] for name in chosen if name.endswith("b")
    }


@pytest.mark.parametrize("count", [1, 2, FEWEST_TO_SPLIT - 1])
def test_few_recordings_are_all_trained_on(count):
    assert chosen_for_validation(named(count), (), 0.5) == set()


@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.5, 1.0])
def test_some_are_kept_and_never_more_than_half(fraction):
    chosen = chosen_for_validation(named(FEWEST_TO_SPLIT), (), fraction)
    assert 1 <= len(chosen) <= FEWEST_TO_SPLIT // 2


def test_patterns_name_them(videos):
    source = folder_of(videos, test=("drive_00",), validation=("drive_0[12]",))
    assert names(source, "validation") == {"drive_01", "drive_02"}
    assert names(source, "test") == {"drive_00"}
    assert not any("validate" in note for note in source.notes)


def test_the_test_wins_over_a_pattern_that_names_both(videos):
    source = folder_of(videos, test=("drive_00",), validation=("drive_0[012]",))
    assert names(source, "test") == {"drive_00"}
    assert names(source, "validation") == {"drive_01", "drive_02"}


def test_patterns_that_match_none_are_an_error(videos):
    with pytest.raises(AvenirError, match=r"validation = \['night/\*'\] matches 0"):
        folder_of(videos, validation=("night/*",))


def test_what_was_assumed_is_in_the_notes(videos):
    (note,) = [note for note in folder_of(videos).notes if "validate" in note]
    assert note.startswith(f"{len(names(folder_of(videos), 'validation'))} of ")
    (note,) = [n for n in folder_of(videos, validation_fraction=0).notes if "validate" in n]
    assert note.startswith("nothing is kept to validate on")


def test_choices_are_made_on_validation_and_never_on_the_test(videos):
    source = folder_of(videos)
    assert source.selection_split(6) == "validation"
    assert folder_of(videos, validation_fraction=0).selection_split(6) == "train"
    assert source.selection_split(7) == "train"  # where none is long enough


def test_another_validation_is_another_data_set(videos):
    """Latents of recordings that are trained on must not be taken for those of others."""
    prints = {
        folder_of(videos, test=("drive_00",), validation=(name,)).fingerprint
        for name in ("drive_01", "drive_02")
    }
    prints.add(folder_of(videos, test=("drive_00",), validation_fraction=0).fingerprint)
    assert len(prints) == 3


def test_synthetic_validation_has_recordings_of_its_own():
    source = Synthetic(SyntheticConfig(size=(32, 32), test_recordings=40))
    first = {split: source.recordings(split)[0] for split in SPLITS}
    frames = {split: source.clip(Window(first[split], 0.0, 2)).frames for split in SPLITS}
    assert len({recording.name for recording in first.values()}) == 3
    for one, other in (("train", "validation"), ("validation", "test"), ("train", "test")):
        assert not torch.equal(frames[one], frames[other])
    assert source.selection_split(8) == "validation"


def test_synthetic_validation_shows_no_scenery_of_the_test():
    from avenir.data.synthetic.colours import PALETTES
    from avenir.data.synthetic.layout import draw_layout

    seeds = list(range(200))
    train = len(PALETTES["train"])
    palettes = {split: draw_layout(seeds, [split] * 200).palette for split in SPLITS}
    assert (palettes["validation"] < train).all()
    assert (palettes["test"] >= train).all()


def lerobot_set(path: Path, splits: list[str]) -> LeRobot:
    writer = LeRobotWriter(path, 10.0, (16, 16), {"actions": Signal(role="action", size=1)})
    for number, split in enumerate(splits):
        clip = film(number)
        steered = Clip(clip.frames, clip.fps, {"actions": torch.full((6, 1), float(number))})
        writer.append([steered], source=f"drive_{number}", split=split)
    return LeRobot(LeRobotConfig(path=str(path), size=(16, 16)))


def episodes(source, split) -> list[int]:
    return [int(name.removeprefix("episode_")) for name in sorted(names(source, split))]


def test_splits_that_are_written_are_read(tmp_path):
    source = lerobot_set(tmp_path, ["train", "validation", "test", "train", "validation"])
    assert [episodes(source, split) for split in SPLITS] == [[0, 3], [1, 4], [2]]
    assert not any("validate" in note for note in source.notes)


def test_an_old_data_set_gets_one_from_its_training_episodes(tmp_path):
    source = lerobot_set(tmp_path, ["train"] * 10 + ["test"] * 2)
    assert episodes(source, "test") == [10, 11]
    kept = episodes(source, "validation")
    assert kept and set(kept) < set(range(10))
    assert sorted([*kept, *episodes(source, "train")]) == list(range(10))
    assert any("are kept to validate on" in note for note in source.notes)
