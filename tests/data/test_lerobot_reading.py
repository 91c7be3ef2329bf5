"""Odd LeRobot data sets are read for what they are; what is left out is named, with the reason."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.lerobot_sets import (
    INFO,
    LIST,
    TABLE,
    every,
    film,
    numbered_set,
    read,
    source,
    version_2,
)

from avenir import video
from avenir.data import Window
from avenir.errors import AvenirError

NAN = float("nan")


def change(path: Path, **settings) -> None:
    """Change what meta/info.json says; None takes a setting away."""
    info = json.loads((path / INFO).read_text()) | settings
    (path / INFO).write_text(json.dumps({k: v for k, v in info.items() if v is not None}))


def add_columns(path: Path, features: dict[str, Any], **columns: Any) -> None:
    """Put columns into the table, and exactly these features beside the camera into info.json."""
    info = json.loads((path / INFO).read_text())
    camera = {n: f for n, f in info["features"].items() if f["dtype"] == "video"}
    change(path, features=camera | features)
    table = pq.read_table(path / TABLE)
    for name, column in columns.items():
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, path / TABLE)


# Signals


def test_a_split_action_is_put_together(tmp_path):
    """As robots write it: `action.pose` and `action.button`, and no `action`."""
    numbered_set(tmp_path, [20, 30])
    pose, force = np.random.default_rng(0).normal(size=(2, 50, 3)).astype(np.float32)
    button = np.arange(100).reshape(50, 2) % 3 == 0
    features = {
        "observation.state.force": {"dtype": "float32", "shape": [3], "names": None},
        "action.pose": {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]},
        "action.button": {"dtype": "bool", "shape": [2], "names": None},
    }
    columns = {"action.pose": pose, "action.button": button, "observation.state.force": force}
    add_columns(tmp_path, features, **{name: rows.tolist() for name, rows in columns.items()})
    data = source(tmp_path)
    names = ("pose.x", "pose.y", "pose.z", "button.0", "button.1")
    assert data.signals["actions"].names == names
    assert data.signals["state"].names == ("force.0", "force.1", "force.2")
    clip = read(data, "episode_000001")
    expected = torch.from_numpy(np.concatenate([pose, button], 1)[20:])
    assert torch.equal(clip.signals["actions"], expected)
    assert torch.equal(clip.signals["state"], torch.from_numpy(force[20:]))


def test_what_is_no_number_is_left_out_aloud(tmp_path):
    numbered_set(tmp_path, [20, 30])
    features = {
        "action": {"dtype": "float32", "shape": [1]},
        "action.words": {"dtype": "string", "shape": [1]},
        "action.raw": {"dtype": "float32", "shape": [1]},
    }
    add_columns(tmp_path, features, **{"action.words": ["go"] * 50, "action.raw": [0.0] * 50})
    with (
        pytest.warns(video.VideoWarning, match=r"'action\.words' holds no numbers"),
        pytest.warns(video.VideoWarning, match=r"'action\.raw' lies beside 'action'"),
    ):
        data = source(tmp_path)
    assert read(data, "episode_000000").signals["actions"][:, 0].tolist() == list(range(20))


def test_some_call_their_columns_as_the_signals(tmp_path):
    numbered_set(tmp_path, [20, 30])
    features = {"actions": {"dtype": "float32", "shape": [2], "names": {"axes": ["x", "y"]}}}
    add_columns(tmp_path, features, actions=np.eye(50, 2).tolist())
    data = source(tmp_path)
    assert data.signals["actions"].names == ("x", "y")
    assert read(data, "episode_000000").signals["actions"].tolist() == np.eye(20, 2).tolist()


def test_a_number_that_is_never_known_is_left_out_aloud(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    rows[:, 1] = NAN
    rows[25, 2] = NAN
    names = ["x", "gone", "z"]
    numbered_set(tmp_path, [20, 30])
    add_columns(tmp_path, {"actions": {"dtype": "float32", "names": names}}, actions=rows.tolist())
    with pytest.warns(video.VideoWarning, match="of actions, gone is unknown"):
        data = source(tmp_path, test=("0",))
    assert data.signals["actions"].names == ("x", "z")
    assert data.signals["actions"].low == tuple(np.nanmin(rows[20:, [0, 2]], 0).tolist())
    clip = read(data, "episode_000001")
    np.testing.assert_array_equal(clip.signals["actions"].numpy(), rows[20:, [0, 2]])


def test_actions_that_are_never_known_are_none(tmp_path):
    numbered_set(tmp_path, [20, 30], action=np.full(50, NAN))
    with pytest.warns(video.VideoWarning, match="0 of 1 numbers"):
        data = source(tmp_path)
    assert data.signals == {}
    assert read(data, "episode_000000").signals == {}


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([None] * 20, "'action' .* is null in every row"),
        ([[1.0, 2.0]] * 10 + [[1.0]] * 10, "'action' .* another number of values"),
        ([[1.0]] * 10 + [[]] * 10, "'action' .* another number of values"),
        ([[1.0, 2.0, 3.0]] * 20, "numbers per row are {'action': 3}; .* {'action': 2}"),
    ],
)
def test_an_episode_of_other_numbers_is_left_out(tmp_path, column, reason):
    rows = [[1.0, float(i)] for i in range(40)]
    numbered_set(tmp_path, [20, 20, 20], action=pa.array([*rows[:20], *column, *rows[20:]]))
    (skipped,) = (data := source(tmp_path)).skipped
    assert skipped.name == "episode_000001"
    assert re.search(reason, skipped.reason)
    assert read(data, "episode_000002").signals["actions"].tolist() == rows[20:]


def test_a_row_without_numbers_is_unknown(tmp_path):
    rows = [[float(i), 1.0] for i in range(40)]
    rows[3] = None
    rows[5] = [5.0, None]
    numbered_set(tmp_path, [20, 20], action=pa.array(rows))
    data = source(tmp_path)
    found = read(data, "episode_000000").signals["actions"]
    assert found.isnan().nonzero().tolist() == [[3, 0], [3, 1], [5, 1]]
    assert data.signals["actions"].size == 2


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array(["left"] * 60), "holds string, no numbers"),
        (pa.nulls(60, pa.list_(pa.float32())), "is null in every row"),
        (pa.array([1.0] * 20 + [None] * 40), "is null in every row"),
        (None, "is missing"),
    ],
)
def test_a_column_that_hardly_an_episode_has_is_left_out_aloud(tmp_path, column, why):
    numbered_set(tmp_path, [20, 20, 20])
    features = {name: {"dtype": "float32"} for name in ("action", "observation.state")}
    columns = {} if column is None else {"observation.state": column}
    add_columns(tmp_path, features, **columns)
    with pytest.warns(video.VideoWarning, match=f"'observation.state' .* {why}.*left out"):
        data = source(tmp_path)
    assert set(data.signals) == {"actions"}
    clip = read(data, "episode_000001")
    assert clip.signals["actions"][:, 0].tolist() == list(range(20, 40))


@pytest.mark.parametrize("said", ["delta", "absolute", None])
def test_how_actions_change_is_remembered(tmp_path, said):
    version_2(tmp_path, [film(24, seed) for seed in range(2)])
    if said:
        (tmp_path / "meta" / "avenir.json").write_text(json.dumps({"action_change": said}))
    actions = film(24, 0).signals["actions"]
    sums, last = actions[:20].unflatten(0, (5, 4)).sum(1), actions[3:20:4]
    for given, expected in {None: said == "delta", "delta": True, "absolute": False}.items():
        settings = {"action_change": given} if given else {}
        data = source(tmp_path, fps=5.0, test=("1",), **settings)
        assert data.signals["actions"].change == ("delta" if expected else "absolute")
        read = data.clip(Window(data.recordings("train")[0], 0.0, 5))
        torch.testing.assert_close(read.signals["actions"], sums if expected else last)


# Where the rows are


def test_rows_are_found_in_whichever_table_holds_them(tmp_path):
    """As LeRobot's converter writes: the first episode of a file is listed in the one before."""
    numbered_set(tmp_path, [20, 30, 25])
    table = pq.read_table(tmp_path / TABLE)
    pq.write_table(table[:50], tmp_path / TABLE)
    pq.write_table(table[50:], (tmp_path / TABLE).with_name("file-001.parquet"))
    data = source(tmp_path)
    assert data.skipped == []
    clip = read(data, "episode_000002")
    assert clip.signals["actions"][:, 0].tolist() == list(range(50, 75))


def test_an_episode_without_rows_blames_no_video(tmp_path):
    numbered_set(tmp_path, [20, 30, 25])
    pq.write_table(pq.read_table(tmp_path / TABLE)[:50], tmp_path / TABLE)
    (skipped,) = source(tmp_path).skipped
    assert "no table of" in skipped.reason
    assert "mp4" not in skipped.reason


# What the lists say


def test_blank_lines_and_broken_ones(tmp_path):
    version_2(tmp_path, [film(20, seed) for seed in range(4)])
    path = tmp_path / "meta" / "episodes.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:10]
    lines[2] = '{"episode_index": 2}'
    path.write_text("\n\n".join([*lines, lines[0]]) + "\n\n  \n")
    data = source(tmp_path)
    assert sorted(every(data)) == ["episode_000000", "episode_000003"]
    reasons = {skipped.name: skipped.reason for skipped in data.skipped}
    assert set(reasons) == {"episodes.jsonl line 3", "episodes.jsonl line 5", "episode_000000"}
    assert "length" in reasons["episodes.jsonl line 5"]
    assert "twice" in reasons["episode_000000"]


def test_half_a_list_leaves_the_other_half(tmp_path):
    numbered_set(tmp_path, [20, 30, 25, 20])
    listed = pq.read_table(tmp_path / LIST)
    other = (tmp_path / LIST).with_name("file-001.parquet")
    pq.write_table(listed[2:], tmp_path / LIST)
    pq.write_table(listed[:2], other)
    other.write_bytes(other.read_bytes()[: other.stat().st_size // 2])
    data = source(tmp_path)
    assert sorted(every(data)) == ["episode_000002", "episode_000003"]
    (skipped,) = data.skipped
    assert skipped.name == "meta/episodes/chunk-000/file-001.parquet"
    assert "damaged" in skipped.reason


@pytest.mark.parametrize("value", [None, NAN, float("inf")])
def test_an_episode_without_its_place_is_left_out(tmp_path, value):
    numbered_set(tmp_path, [20, 30, 25], starts=[0.0, 1.0, 2.5])
    rows = pq.read_table(tmp_path / LIST).to_pylist()
    rows[1]["videos/observation.images.front/from_timestamp"] = value
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / LIST)
    data = source(tmp_path)
    assert sorted(every(data)) == ["episode_000000", "episode_000002"]
    (skipped,) = data.skipped
    assert "videos/observation.images.front/from_timestamp" in skipped.reason


def test_a_list_without_a_column_names_it(tmp_path):
    numbered_set(tmp_path, [20, 30])
    column = "videos/observation.images.front/from_timestamp"
    pq.write_table(pq.read_table(tmp_path / LIST).drop_columns([column]), tmp_path / LIST)
    with pytest.raises(AvenirError, match=column):
        source(tmp_path)


def test_chunks_are_of_a_thousand_where_nothing_is_said(tmp_path):
    version_2(tmp_path, [film(20, seed) for seed in range(2)])
    change(tmp_path, chunks_size=None)
    assert len(every(source(tmp_path))) == 2


@pytest.mark.parametrize("fps", [0, -1, 1e9, "fast", [30], NAN, None, 1e-300])
def test_rates_that_cannot_be_are_refused(tmp_path, fps):
    numbered_set(tmp_path, [20, 30])
    change(tmp_path, fps=fps)
    with pytest.raises(AvenirError, match=r"info\.json.*fps"):
        source(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["[]", "3", "null", '"x"', "", "{", "[" * 100_000, '{"a": ' * 5000, "1" * 10_000, "\x00", "é"],
)
def test_an_info_that_is_none_is_refused(tmp_path, text):
    numbered_set(tmp_path, [20, 30])
    (tmp_path / INFO).write_bytes(text.encode("latin-1"))
    with pytest.raises(AvenirError, match=r"info\.json"):
        source(tmp_path)


@pytest.mark.parametrize(
    "features",
    [[], None, 5, {"a": 5}, {"a": {}}, {"observation.images.front": {"dtype": 3}}, {}, {"": None}],
)
def test_features_that_are_none_are_refused(tmp_path, features):
    numbered_set(tmp_path, [20, 30])
    change(tmp_path, features=features)
    with pytest.raises(AvenirError, match="features|camera"):
        source(tmp_path)


def test_an_empty_test_split_is_none(tmp_path):
    numbered_set(tmp_path, [20] * 14)
    change(tmp_path, splits={"train": "0:14", "test": ""})
    assert [r.name[-2:] for r in source(tmp_path).recordings("test")] == ["03", "10"]
    change(tmp_path, splits={"test": "12:14,1"})
    assert [r.name[-2:] for r in source(tmp_path).recordings("test")] == ["01", "12", "13"]
    change(tmp_path, splits={"test": ["x"]})
    with pytest.raises(AvenirError, match="to test on"):
        source(tmp_path)
    assert source(tmp_path, test=("3",)).recordings("test")[0].name == "episode_000003"


def test_what_no_episode_can_be_read_of_says_why(tmp_path):
    numbered_set(tmp_path, [20, 30])
    (tmp_path / TABLE).write_bytes(b"PAR1 cut")
    with pytest.raises(AvenirError, match=r"file-000\.parquet.*cut off or damaged"):
        source(tmp_path)
