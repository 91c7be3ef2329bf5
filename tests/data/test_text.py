"""Text is a video of one pixel: bytes go through frames, latents and tokens, and come back."""

import pytest
import torch

from avenir.data import Window
from avenir.data.text import Pieces, TextFolder, TextFolderConfig, clip_of, learn_pieces, text_of
from avenir.encoders.text import Text as Encoder
from avenir.encoders.text import TokenEncoderConfig as EncoderConfig
from avenir.errors import AvenirError

SAID = "def née(x):\n    return x + 1  # 𝛼\n".encode()


def source(path, **settings) -> TextFolder:
    return TextFolder(TextFolderConfig(path=str(path), **settings))


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


WORDS = ["return ", "self.", "née ", "\t𝛼\n", "import os\n", "ab" * 9]


def letters(folder, count: int = 40):
    """Write files made of a few words over and over."""
    chance = torch.Generator().manual_seed(2)
    for name in range(4):
        drawn = torch.randint(len(WORDS), (count,), generator=chance).tolist()
        (folder / f"{name}.py").write_text("".join(WORDS[each] for each in drawn))
    return folder


def test_text_in_pieces_comes_back_byte_by_byte(tmp_path):
    texts = source(letters(tmp_path), test=("3.py",), vocabulary=280)
    pieces = Pieces.of(texts.tokenizer)
    assert len(pieces.pieces) == len(set(pieces.pieces)) == 280
    assert {bytes([byte]) for byte in range(256)} <= set(pieces.pieces)
    [held_out] = texts.recordings("test")
    whole = (tmp_path / "3.py").read_bytes()
    length = int(held_out.seconds)
    assert length < 0.7 * len(whole), "pieces are longer than bytes"
    clip = texts.clip(Window(held_out, 0.0, length))
    assert text_of(clip, texts.tokenizer) == whole
    halves = [texts.clip(Window(held_out, start, length // 2)) for start in (0.0, length // 2)]
    assert whole.startswith(b"".join(text_of(half, texts.tokenizer) for half in halves))
    # Nothing but bytes is known of what was never seen, nor of what is cut within a letter.
    for strange in (SAID, "𝛼"[:1].encode(), bytes(range(32)), b""):
        assert pieces.text(pieces.tokens(strange)) == strange
    encoder = Encoder(EncoderConfig(vocabulary=280))
    assert encoder.tokens(encoder.encode(clip.video)).flatten().tolist() == list(
        pieces.tokens(whole)
    )


def test_pieces_join_the_most_frequent_pair_first_and_are_learnt_from_training_texts(tmp_path):
    pieces = Pieces.of(learn_pieces([b"xyxyxyxy ab ab", b"xy"], 258))
    assert pieces.pieces[256:] == [b"xy", b"xyxy"]
    folder = letters(tmp_path)
    ours, again = (source(folder, test=("3.py",), vocabulary=280) for _ in range(2))
    assert ours.tokenizer == again.tokenizer and ours.fingerprint == again.fingerprint
    (folder / "3.py").write_text("quite another text " * 9)
    assert source(folder, test=("3.py",), vocabulary=280).tokenizer == ours.tokenizer
    assert source(folder, test=("3.py",)).fingerprint != ours.fingerprint
    assert source(folder, test=("0.py",), vocabulary=280).tokenizer != ours.tokenizer


def test_vocabularies_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(AvenirError, match="training texts hold"):
        source(letters(tmp_path, 2), vocabulary=5000)
    with pytest.raises(AvenirError, match="token 255 was given, and encoder.vocabulary is 200"):
        Encoder(EncoderConfig(vocabulary=200)).encode(clip_of(b"\xff").video)
