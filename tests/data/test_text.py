"""Text is a video of one pixel: bytes go through frames, latents and tokens, and come back."""

import pytest
import torch

from avenir.data.text import Text, TextConfig, clip_of, text_of
from avenir.encoders.text import Text as Encoder
from avenir.encoders.text import TextConfig as EncoderConfig
from avenir.errors import AvenirError

SAID = "def née(x):\n    return x + 1  # 𝛼\n".encode()


def source(path, **settings) -> Text:
    return Text(TextConfig(path=str(path), **settings))


def test_bytes_come_back_through_frames_latents_and_tokens():
    clip, encoder = clip_of(SAID), Encoder(EncoderConfig())
    assert text_of(clip) == SAID
    encoder.latent_mean.fill_(0.3)
    encoder.latent_std.fill_(0.7)
    latents = encoder.encode(clip.video)
    assert encoder.tokens(latents).flatten().tolist() == list(SAID)
    assert torch.equal(encoder.embed(encoder.tokens(latents)), latents)
    again = type(clip).from_video(encoder.decode(latents), clip.fps)
    assert text_of(again) == SAID


@pytest.mark.parametrize("vocabulary", [2, 256, 300, 70_000, 2**24])
def test_every_token_has_a_code_and_a_pixel_of_its_own(vocabulary):
    encoder = Encoder(EncoderConfig(vocabulary=vocabulary))
    tokens = torch.tensor([0, 1, vocabulary // 3, vocabulary - 2, vocabulary - 1])
    tokens = tokens.clamp(min=0).view(1, 5, 1, 1)
    latents = encoder.embed(tokens)
    assert latents.abs().eq(1).all() and latents.shape[2] == encoder.channels
    assert torch.equal(encoder.tokens(latents), tokens)
    assert torch.equal(encoder.tokens(encoder.encode(encoder.decode(latents))), tokens)


def test_windows_are_stretches_of_files_and_files_are_split_by_name(tmp_path):
    for name, text in {
        "a/one.py": "0123456789",
        "a/two.py": "abcdefghij",
        "b/three.py": "x",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "notes.txt").write_text("not taken")
    texts = source(tmp_path, files="*.py", test=("a/two*",))
    assert [r.name for r in texts.recordings("test")] == ["a/two.py"]
    fewer = source(tmp_path, files="*.py", without=("*/one.py", "*.txt"), test=("a/two*",))
    assert [r.name for r in fewer.recordings("train")] == ["b/three.py"]
    [window] = texts.spread("test", 10, 1)
    assert text_of(texts.clip(window)) == b"abcdefghij"
    windows = texts.draw("train", 4, 200, seed=0)
    seen = {text_of(texts.clip(each)) for each in windows}
    assert seen == {b"0123456789"[i : i + 4] for i in range(7)}


def test_what_is_no_text_is_skipped_and_told(tmp_path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "other.txt").write_text("other")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "empty.txt").write_text("")
    texts = source(tmp_path)
    assert {each.name for each in texts.skipped} == {"picture.png", "empty.txt"}
    with pytest.raises(AvenirError, match="is text; 0 were skipped"):
        source(tmp_path, files="*.rs")
    with pytest.raises(AvenirError, match="there is no folder"):
        source(tmp_path / "nowhere")


def test_the_fingerprint_is_of_texts_and_split_and_not_of_the_place(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for name in "abc":
            (tmp_path / place / name).write_text(name * 5)
    here, there = source(tmp_path / "here"), source(tmp_path / "there")
    assert here.fingerprint == there.fingerprint
    assert (
        source(tmp_path / "here", test=("b",)).fingerprint
        != source(tmp_path / "here", test=("a",)).fingerprint
    )
    (tmp_path / "there" / "a").write_text("other")
    assert source(tmp_path / "there").fingerprint != here.fingerprint
