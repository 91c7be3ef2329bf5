"""A csv is joined to frames: every row where it belongs, or a sentence that says why not."""

import random
from pathlib import Path

import numpy as np
import pytest

from avenir.errors import AvenirError
from avenir.tables import Joined, join, read

FPS, COUNT = 30.0, 90
STAMPS = np.arange(COUNT) / FPS
END = COUNT / FPS
NUMBERS = list(range(COUNT))


def written(path: Path, header: str, rows: list, encoding: str = "utf-8") -> Path:
    lines = [header, *(row if isinstance(row, str) else ",".join(map(str, row)) for row in rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def joined(path: Path, header: str, rows: list, **about) -> Joined:
    return join(read(written(path / "d0.csv", header, rows)), STAMPS, END, **about)


def refused(path: Path, header: str, rows: list, **about) -> str:
    with pytest.raises(AvenirError, match=r"^d0\.csv: ") as caught:
        joined(path, header, rows, **about)
    return str(caught.value)


# Times


@pytest.mark.parametrize(
    ("header", "scale", "since"),
    [
        ("timestamp", 1, 0),
        ("Timestamp", 1, 0),
        ("time", 1e3, 0),
        ("t", 1e6, 0),
        ("Time [ms]", 1e3, 0),
        ("time_us", 1e6, 0),
        ("TIMESTAMP_NS", 1e9, 0),
        ("timestamp(s)", 1, 0),
        ("timestamp", 1, 1_700_000_000),
        ("timestamp", 1e3, 1_700_000_000),
        ("ts", 1e6, 1_700_000_000),
        ("unix_time_ns", 1e9, 1_700_000_000),
        ("elapsed", 1, 40.0),
    ],
)
def test_times_of_any_unit_and_origin_find_their_frames(tmp_path, header, scale, since):
    when = [(since + k / FPS) * scale for k in NUMBERS]
    rows = [
        [f"{at:.6f}" if scale == 1 else round(at), k, 1]
        for k, at in zip(NUMBERS, when, strict=True)
    ]
    found = joined(tmp_path, f"{header},steer,acc", rows)
    assert found.names == ("steer", "acc")
    np.testing.assert_array_equal(found.seconds, STAMPS)
    np.testing.assert_array_equal(found.rows[:, 0], NUMBERS)
    assert bool(since) == any("first frame" in note for note in found.notes)


def test_few_rows_are_placed_as_many_are(tmp_path):
    rows = [[1.7e12 + 1000 * k, k] for k in range(3)]  # a row per second, of three
    np.testing.assert_array_equal(joined(tmp_path, "timestamp,steer", rows).seconds, [0, 1, 2])
    assert joined(tmp_path, "t,steer", [[1.5, 7]]).seconds.tolist() == [1.5]
    assert "'t' runs from 500 to 500" in refused(tmp_path, "t,steer", [[500, 7]])


def test_dates_are_times(tmp_path):
    rows = [[f"2024-03-01 12:00:{k / FPS:09.6f}", k] for k in NUMBERS]
    np.testing.assert_array_equal(joined(tmp_path, "datetime,steer", rows).seconds, STAMPS)
    rows = [[f"00:00:{k / FPS:09.6f}", k] for k in range(30, COUNT)]
    np.testing.assert_array_equal(joined(tmp_path, "time,steer", rows).rows[:, 0], NUMBERS[30:])


@pytest.mark.parametrize(
    ("form", "since"),
    [
        ("{h:02d}:{m:02d}:{s:06.3f}", 0),
        ("{h:02d}:{m:02d}:{s:06.3f}", 49_500.5),
        ("{h:d}:{m:02d}:{s:06.3f}", 0),
        ("{m:02d}:{s:06.3f}", 0),
        ("{m:d}:{s:05.2f}", 61),
        ('"{h:02d}:{m:02d}:{s:06.3f}"', 3600),
        ("2024-03-01T{h:02d}:{m:02d}:{s:06.3f}Z", 49_500.5),
        ("2024-03-01 {h:02d}:{m:02d}:{s:06.3f}+02:00", 49_500.5),
        ("20240301T{h:02d}{m:02d}{s:09.6f}", 49_500.5),
    ],
)
def test_times_on_a_clock_are_times(tmp_path, form, since):
    rows = []
    for k in NUMBERS:
        minutes, seconds = divmod(since + k / FPS, 60)
        rows.append([form.format(h=int(minutes // 60), m=int(minutes % 60), s=seconds), k])
    found = joined(tmp_path, "time,steer", rows)
    np.testing.assert_array_equal(found.seconds, STAMPS)
    commas = [[str(at).replace(".", ",").join('""'), k] for at, k in rows if '"' not in at]
    if commas:  # as in subtitles
        np.testing.assert_array_equal(joined(tmp_path, "time,steer", commas).seconds, STAMPS)


@pytest.mark.parametrize(
    "word", ["00:00:{k:02d}:05", "2024-03-01 00:00:{k:02d}:05", "03/01/2024 12:00:{k:02d}", "1_{k}"]
)
def test_what_only_looks_like_a_time_is_none(tmp_path, word):
    rows = [[word.format(k=k % 60), k] for k in NUMBERS]
    said = refused(tmp_path, "time,steer", rows)
    assert f"line 2, column 'time' holds {word.format(k=0)!r}, which is read as no time" in said
    assert "12:00:01.5" in said


@pytest.mark.parametrize(
    ("header", "scale", "since"),
    [
        ("seconds", 1, 0),
        ("ms", 1e3, 0),
        ("Nanoseconds", 1e9, 0),
        ("time_min", 1 / 60, 0),
        ("header.stamp", 1, 1_700_000_000),
        ("rosbagTimestamp", 1e9, 1_700_000_000),
        ("camera_time_stamp", 1e3, 0),
        ("time.s", 1, 0),
    ],
)
def test_times_by_other_names_are_no_signals(tmp_path, header, scale, since):
    rows = [[f"{round((since + k / FPS) * scale, 6):f}", k] for k in NUMBERS]
    found = joined(tmp_path, f"{header},steer", rows)
    assert found.names == ("steer",)
    np.testing.assert_array_equal(found.seconds, STAMPS)
    others = ["s", "min", "timer", "time_to_goal", "ms_per_step", "stamped"]
    kept = joined(tmp_path, ",".join(others), [[k] * len(others) for k in NUMBERS])
    assert kept.names == tuple(others)


def test_times_that_cannot_tell_frames_apart_are_refused(tmp_path):
    whole = [[k // 30, k] for k in NUMBERS]
    assert "'t' holds 3 different times in 90 rows" in refused(tmp_path, "t,steer", whole)
    parted = [[k // 30, k % 30 * 10**9 // 30, k] for k in NUMBERS]
    assert "'sec' holds 3 different" in refused(tmp_path, "sec,nanosec,steer", parted)
    fine = [[k // 3 / 100, k] for k in range(900)]  # coarser than rows, finer than frames
    assert len(joined(tmp_path, "t,steer", fine).rows) == 900


@pytest.mark.parametrize(("header", "scale"), [("t", 1 / 60), ("time_ns", 1e3), ("time_s", 0.1)])
def test_times_of_another_unit_than_named_are_refused(tmp_path, header, scale):
    rows = [[f"{k / FPS * scale:.7f}", k] for k in NUMBERS]
    assert f"'{header}' puts the rows, one for each of 90" in refused(
        tmp_path, f"{header},steer", rows
    )


def test_a_row_belongs_to_the_nearest_frame_within_half_a_frame(tmp_path):
    rng = np.random.default_rng(0)
    jitter = rng.uniform(-0.49, 0.49, COUNT) / FPS
    rows = [[f"{at:.9f}", k] for k, at in enumerate(STAMPS + jitter)]
    np.testing.assert_array_equal(joined(tmp_path, "timestamp,steer", rows).seconds, STAMPS)
    coarse = [[f"{at:.2f}", k] for k, at in enumerate(STAMPS)]  # 0.03, 0.07, 0.10: before and after
    np.testing.assert_array_equal(joined(tmp_path, "timestamp,steer", coarse).seconds, STAMPS)


def test_rows_of_another_rate_keep_their_times(tmp_path):
    fine = [[k / 120, k] for k in range(4 * COUNT)]
    np.testing.assert_allclose(joined(tmp_path, "t,steer", fine).seconds, np.arange(360) / 120)
    sparse = [[k / 10 + 0.004, k] for k in range(30)]
    np.testing.assert_array_equal(joined(tmp_path, "t,steer", sparse).seconds, STAMPS[::3])


def test_a_table_may_start_late_and_end_early(tmp_path):
    for scale in (1, 1000):  # in milliseconds it still fits better than in anything else
        rows = [[round(k / FPS * scale, 5), k] for k in range(30, 80)]
        found = joined(tmp_path, "timestamp,steer", rows)
        np.testing.assert_array_equal(found.seconds, STAMPS[30:80])


def test_a_log_longer_than_the_recording_says_what_it_does_not_use(tmp_path):
    rows = [[k / FPS, k] for k in range(-30, 300)]
    found = joined(tmp_path, "timestamp,steer", rows)
    np.testing.assert_array_equal(found.rows[:, 0], NUMBERS)
    assert any("240 rows lie outside" in note for note in found.notes)


def test_a_hole_in_a_table_is_said(tmp_path):
    rows = [[k / FPS, k] for k in NUMBERS if not 30 <= k < 75]
    notes = " ".join(joined(tmp_path, "timestamp,steer", rows).notes)
    assert "no row is of 0.97 to 2.50 s" in notes


@pytest.mark.parametrize(
    ("header", "when", "about"),
    [
        ("timestamp", lambda k: 1_700_000_000 + k / 100, "'timestamp' runs from 1700000000"),
        ("timestamp", lambda k: 1_700_000_000 + k / 29, "'timestamp' runs from 1700000000"),
        ("time_ms", lambda k: 50_000 + 100 * k, "'time_ms' runs from 50000"),
        ("timestamp", lambda k: k * 1000, "'timestamp' runs from 0 to 89000"),
        ("timestamp", lambda k: -k / FPS, "line 3, column 'timestamp' runs backwards"),
        ("timestamp", lambda k: "" if k == 4 else k / FPS, "line 6, column 'timestamp'"),
        ("timestamp", lambda k: "soon" if k == 4 else k / FPS, "line 6, column 'timestamp'"),
    ],
)
def test_times_that_do_not_fit_are_refused_by_column(tmp_path, header, when, about):
    assert about in refused(tmp_path, f"{header},steer", [[when(k), k] for k in NUMBERS])


# Numbers of frames and rows


@pytest.mark.parametrize("header", ["frame", "Frame_Index", "frame id", "frame_number"])
def test_frame_numbers_find_their_frames(tmp_path, header):
    found = joined(tmp_path, f"{header},timestamp,steer", [[k, k, k] for k in range(20, 80, 2)])
    assert found.names == ("steer",)
    np.testing.assert_array_equal(found.seconds, STAMPS[20:80:2])


@pytest.mark.parametrize("first", [1, 1000])
def test_frames_counted_from_elsewhere_are_counted_from_the_first(tmp_path, first):
    found = joined(tmp_path, "frame,steer", [[first + k, k] for k in NUMBERS])
    np.testing.assert_array_equal(found.seconds, STAMPS)
    assert any(f"count from {first}" in note for note in found.notes)


def test_frames_counted_from_one_may_lack_some(tmp_path):
    kept = [k for k in NUMBERS if k != 4]
    found = joined(tmp_path, "frame,steer", [[k + 1, k] for k in kept])
    np.testing.assert_array_equal(found.seconds, STAMPS[kept])


@pytest.mark.parametrize(
    ("numbers", "about"),
    [
        (range(300), "count from 0 to 299, and there are 90 frames"),
        (range(1000, 1050), "count from 1000"),
        ([3, 1, 2], "run backwards"),
        ([0, 0.5, 1], "do not number a frame"),
        ([0, "", 1], "do not number a frame"),
    ],
)
def test_frame_numbers_that_do_not_fit_are_refused(tmp_path, numbers, about):
    said = refused(tmp_path, "frame_index,steer", [[number, 0] for number in numbers])
    assert "'frame_index'" in said
    assert about in said


@pytest.mark.parametrize("name", ["", "index", "Unnamed: 0"])
def test_the_index_of_a_data_frame_is_no_signal(tmp_path, name):
    found = joined(tmp_path, f"{name},steer", [[k, 2 * k] for k in NUMBERS])
    assert found.names == ("steer",)
    np.testing.assert_array_equal(found.rows[:, 0], 2 * np.array(NUMBERS))
    assert any("numbers rows" in note for note in found.notes)
    kept = joined(tmp_path, f"{name},steer", [[k, k] for k in range(0, COUNT, 3)])
    np.testing.assert_array_equal(kept.seconds, STAMPS[::3])  # rows that were chosen keep theirs


def test_what_a_row_is_part_of_is_no_signal(tmp_path):
    header = "episode_index,index,frame_index,timestamp,task_index,dx"
    rows = [[7, 900 + k, k, k / FPS, 0, k] for k in NUMBERS]
    found = joined(tmp_path, header, rows)
    assert found.names == ("dx",)
    assert {note.split("'")[1] for note in found.notes} == {"episode_index", "index", "task_index"}


def test_without_times_there_is_a_row_for_every_frame(tmp_path):
    rows = [[k] for k in range(300)]
    for count in (COUNT - 1, COUNT, COUNT + 1):
        found = joined(tmp_path, "speed", rows[:count])
        np.testing.assert_array_equal(found.seconds, STAMPS[:count])
    assert any("1 rows lie outside" in note for note in found.notes)
    for count in (45, 300):
        assert f"{count} rows for 90 frames" in refused(tmp_path, "speed", rows[:count])
        assert "timestamp" in refused(tmp_path, ",speed", [[k, k] for k in range(count)])
    found = joined(tmp_path, "speed", rows, num_declared=300)  # the video was cut off, the csv not
    np.testing.assert_array_equal(found.rows[:, 0], NUMBERS)


def test_rows_may_name_the_pictures_they_are_of(tmp_path):
    files = [f"{k:04d}.png" for k in NUMBERS]
    rows = [[f"shots\\{files[k]}", k] for k in range(0, COUNT, 5)]
    found = joined(tmp_path, "image,steer", rows, files=files)
    np.testing.assert_array_equal(found.seconds, STAMPS[::5])
    assert found.names == ("steer",)


# Columns and files


def test_text_and_empty_columns_are_left_out_aloud(tmp_path):
    found = joined(tmp_path, "steer,mode,gear,", [[k, "auto", "", ""] for k in NUMBERS])
    assert found.names == ("steer",)
    said = " ".join(found.notes)
    assert "'mode' holds text, such as 'auto'," in said
    assert "'gear' holds nothing" in said


@pytest.mark.parametrize(
    ("header", "row", "about"),
    [
        ("steer", ["left"], "line 4, column 'steer' holds 'left'"),
        ("steer", ["nan"], "line 4, column 'steer' holds no finite number"),
        ("steer", ["inf"], "line 4, column 'steer'"),
        ("steer", ["1e300"], "line 4, column 'steer'"),
        ("steer,", [0, "0.5"], "column 2, which has no name"),
        ("steer", [0, 1], "line 4 does not have 1 values"),
        ("steer,steer", [0, 0], "2 columns are named 'steer'"),
        ("," * 10_000 + "steer", [0], "its first line has 10001 values"),
        ("0.1", [0], "its first line holds numbers"),
        ("timestamp", [0.1], "no column of numbers"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_column(tmp_path, header, row, about):
    rows: list = [[k / FPS] * (1 + header.count(",")) for k in NUMBERS]
    rows[2] = row
    assert about in refused(tmp_path, header, rows)


def test_a_last_line_that_was_cut_is_left_out_aloud(tmp_path):
    found = joined(tmp_path, "frame,steer", [*([k, k] for k in range(40)), ["4"]])
    assert len(found.rows) == 40
    assert any("line 42, the last one" in note for note in found.notes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_are_read_as_programs_write_them(tmp_path, encoding, delimiter):
    comma = "," if delimiter == ";" else "."
    rows = ["", *(f"{k}{delimiter}{k}{comma}25{delimiter}True\r" for k in NUMBERS), ""]
    path = written(tmp_path / "d0.csv", delimiter.join(["frame", "steer", "on"]), rows, encoding)
    found = join(read(path), STAMPS, END)
    assert found.names == ("steer", "on")
    np.testing.assert_array_equal(found.rows[:, 0], np.array(NUMBERS) + 0.25)
    assert (found.rows[:, 1] == 1).all()


def test_what_is_no_csv_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "d0.csv"
    for content, about in [
        (b"", "no rows"),
        (b"steer\n", "no rows"),
        (b"st\xe9er\n1\n", "neither UTF-8 nor UTF-16"),
        (b'"' + b"x" * 200_000, "no csv"),
    ]:
        path.write_bytes(content)
        with pytest.raises(AvenirError, match=about):
            join(read(path), STAMPS, END)
    path.unlink()
    with pytest.raises(AvenirError, match="cannot be read"):
        read(path)
    path.mkdir()
    with pytest.raises(AvenirError, match="give a csv file"):
        read(path)
    with pytest.raises(AvenirError, match="device"):
        read(Path("/dev/zero"))


def test_any_table_is_joined_or_refused(tmp_path):
    chance, path = random.Random(0), tmp_path / "d0.csv"
    words = ["0", "1", "-1", "1e308", "-1e308", "nan", "inf", "", "x", "²", '"', "\0", "1,5", "é"]
    names = ["", "t", "time_ms", "frame", "index", "steer", "²", "file", "epoch", "0", "#a", '"b']
    for _ in range(2000):
        width, delimiter = chance.randint(1, 4), chance.choice(",;\t")
        lines = [delimiter.join(chance.choices(names, k=width))]
        for k in range(chance.randint(0, 6)):
            cells = [
                str(k) if chance.random() < 0.7 else chance.choice(words) for _ in range(width)
            ]
            lines.append(delimiter.join(cells[: chance.choice([width, width, width, width - 1])]))
        path.write_bytes("\n".join(lines).encode(chance.choice(["utf-8", "utf-16", "latin-1"])))
        stamps = STAMPS[: chance.randint(1, 8)]
        try:
            found = join(read(path), stamps, float(stamps[-1]) + 1 / FPS)
        except AvenirError as error:
            assert str(error).startswith("d0.csv: ")
            continue
        assert np.isfinite(found.rows).all()
        assert (np.diff(found.seconds) >= 0).all()
        assert found.seconds[0] >= 0
        assert len(found.rows) == len(found.seconds) > 0
        assert found.rows.shape[1] == len(found.names) > 0
