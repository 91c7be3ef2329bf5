"""Captions read by tiny random models of the public classes, against the library's own forward."""

import copy
import json
import signal as signals
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import layer_norm

transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from avenir.assembly import assembled  # noqa: E402
from avenir.card import Card  # noqa: E402
from avenir.clip import Clip, Condition, Progress  # noqa: E402
from avenir.conditioners import ConditionSpec, text_encoder  # noqa: E402
from avenir.conditioners.text_encoder import (  # noqa: E402
    FAMILIES,
    TextEncoderConditioner,
    TextEncoderConfig,
)
from avenir.data import Signal  # noqa: E402
from avenir.device import generator  # noqa: E402
from avenir.errors import AvenirError  # noqa: E402
from avenir.registry import find  # noqa: E402
from avenir.training import loop, step  # noqa: E402
from avenir.training.checkpoint import STATE  # noqa: E402
from avenir.training.loop import train  # noqa: E402
from avenir.training.recipe import Recipe, load_recipe  # noqa: E402
from avenir.world import World, load  # noqa: E402

CAPTION = Signal.text(48)
WORDS = (
    "a",
    "nothing",
    "flies",
    "yellow",
    "blue",
    "plane",
    "balloon",
    "in",
    "from",
    "the",
    "left",
    "é",
)
SAID = ["nothing flies", "a yellow plane flies in from the left", "", "a blue é with wings"]
HIDDEN = 24
SIZES = {"d_model": HIDDEN, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
SETTING = "`model` of conditioner kind 'text_encoder'"
VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4}
VISION |= {"intermediate_size": 8, "image_size": 8}
BLOCK = {"compression": (2, 8, 8), "width": 8, "depth": 1, "decoder_depth": 1}


def words_of(family: str, more: tuple[str, ...] = ()):
    """Make a tokenizer of whole words, which puts at their ends what its family does."""
    ends = ["<pad>", "</s>"] if family == "t5" else ["<start>", "<end>"]
    vocabulary = {word: number for number, word in enumerate([*ends, "<unk>", *WORDS, *more])}
    library = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.post_processor = processors.TemplateProcessing(
        single="$A </s>" if family == "t5" else "<start> $A <end>",
        special_tokens=[(end, vocabulary[end]) for end in ends],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, pad_token=ends[0], unk_token="<unk>"
    )


def save_tiny(folder: Path, family: str = "t5", whole: bool = False) -> Path:
    """Write a tiny random model and its tokenizer as `save_pretrained` does, `whole` or its half.

    The half is T5's encoder, or CLIP's text tower.
    """
    count = 3 + len(WORDS)
    if family == "t5":
        kind = transformers.T5ForConditionalGeneration if whole else transformers.T5EncoderModel
        model = kind(transformers.T5Config(vocab_size=count, **SIZES))
    elif family == "clip":
        config = transformers.CLIPConfig(
            text_config=TEXT | {"vocab_size": count}, vision_config=VISION
        )
        model = transformers.CLIPModel(config)
    else:
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(vocab_size=count, **TEXT))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    words_of(family).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("public")
    made = {family: save_tiny(root / family, family) for family in FAMILIES}
    return made | {"t5, whole": save_tiny(root / "whole", "t5", whole=True)}


@pytest.fixture(params=[*FAMILIES, "t5, whole"])
def folder(request, folders) -> Path:
    return folders[request.param]


def opened(folder: Path, width: int = HIDDEN, **settings) -> TextEncoderConditioner:
    """Open a conditioner whose linear layer changes nothing where it is as wide as the model."""
    config = TextEncoderConfig.parse({"model": str(folder), **settings})
    made = TextEncoderConditioner(config, ConditionSpec({"caption": CAPTION.size}, 2, width, 4))
    if width == HIDDEN:
        with torch.no_grad():
            made.proj_in.weight.copy_(torch.eye(HIDDEN))
            made.proj_in.bias.zero_()
    return made


def signal(said: list[str | None], f_t: int = 2) -> dict[str, Tensor]:
    """Say something, or nothing, in the last frame of each latent frame, `1 T s`; others lie."""
    unknown = torch.full((CAPTION.size,), torch.nan)
    rows = [unknown if words is None else CAPTION.encode_text(words) for words in said]
    lies = CAPTION.encode_text("a lie")
    frames = [row for each in rows for row in [lies] * (f_t - 1) + [each]]
    return {"caption": torch.stack(frames)[None]}


def read(conditioner: TextEncoderConditioner, said: list[str | None], **more) -> Condition:
    return conditioner(signal(said), len(said), 1, **more)


def looked_at(condition: Condition, frame: int) -> Tensor:
    """Return the tokens of a frame that are known, `n d`."""
    assert condition.context is not None
    return condition.context.tokens[0, frame][condition.context.known[0, frame]]


@torch.no_grad()
def library(folder: Path, said: list[str], padding: bool) -> list[Tensor]:
    """Let the library read captions one by one, or all together with padding and a mask."""
    family = json.loads((folder / "config.json").read_text())["model_type"]
    model = getattr(transformers, FAMILIES[family]).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if not padding:
        asked = [tokenizer(words, return_tensors="pt") for words in said]
        return [model(input_ids=each.input_ids).last_hidden_state[0] for each in asked]
    asked = tokenizer(said, padding=True, return_tensors="pt")
    hidden = model(asked.input_ids, asked.attention_mask).last_hidden_state
    return [rows[mask.bool()] for rows, mask in zip(hidden, asked.attention_mask, strict=True)]


# Agreement with the library -----------------------------------------------------------------------


@pytest.mark.parametrize("padding", [False, True])
def test_tokens_are_the_librarys(folder, padding):
    condition = read(opened(folder), SAID)
    for frame, expected in enumerate(library(folder, SAID, padding)):
        found = looked_at(condition, frame)
        torch.testing.assert_close(found, layer_norm(expected, (HIDDEN,)), atol=2e-6, rtol=1e-5)
    assert not torch.allclose(looked_at(condition, 0)[:2], looked_at(condition, 1)[:2], atol=0.1)


def test_what_was_read_is_the_librarys_to_the_last_bit(folder):
    conditioner = opened(folder)
    read(conditioner, SAID)
    for words, expected in zip(SAID, library(folder, SAID, padding=False), strict=True):
        assert torch.equal(conditioner._tokens_of(words.encode()), expected)


def test_the_one_vector_is_the_mean_of_the_tokens(folder):
    condition = read(opened(folder, into="modulation"), SAID)
    expected = [tokens.mean(0) for tokens in library(folder, SAID, padding=False)]
    assert condition.context is None
    torch.testing.assert_close(
        condition.per_frame[0], layer_norm(torch.stack(expected), (HIDDEN,)), atol=2e-6, rtol=1e-5
    )


def test_room_for_more_tokens_changes_nothing_that_is_read(folder):
    short, long = (read(opened(folder, length=length), SAID) for length in (10, 16))
    assert short.context is not None and long.context is not None
    assert short.context.known.shape == (1, 4, 10) and long.context.known.shape == (1, 4, 16)
    for frame in range(len(SAID)):
        assert torch.equal(looked_at(short, frame), looked_at(long, frame))


def test_captions_that_are_too_long_are_cut_as_the_library_does(folder):
    conditioner = opened(folder, length=5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kept = tokenizer(SAID[1], truncation=True, max_length=5).input_ids
    expected = conditioner.public(input_ids=torch.tensor([kept])).last_hidden_state[0]
    assert len(kept) == 5
    torch.testing.assert_close(
        looked_at(read(conditioner, [SAID[1]]), 0), layer_norm(expected, (HIDDEN,))
    )


def test_weights_may_be_named_as_older_libraries_named_them(folders, tmp_path):
    folder = save_tiny(tmp_path, "clip_text_model")
    expected = looked_at(read(opened(folder), SAID), 1)
    weights = load_file(folder / "model.safetensors")
    older = {f"text_model.{name}": weight for name, weight in weights.items()}
    save_file(older, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(looked_at(read(opened(folder), SAID), 1), expected)


# What is not known --------------------------------------------------------------------------------


@pytest.mark.parametrize("into", ["attention", "modulation"])
def test_what_is_unknown_is_absent_and_not_empty(folders, into):
    conditioner = opened(folders["t5"], into=into)
    condition = read(conditioner, ["nothing flies", None, ""])
    known = torch.tensor([True, False, True])
    if condition.context is None:
        same = (condition.per_frame == condition.null).all(-1)[0]
        assert torch.equal(same, ~known)
    else:
        assert torch.equal(condition.context.known.any(-1)[0], known)
        assert condition.context.tokens.isfinite().all()
    nothing = conditioner({}, 3, 2)
    assert torch.equal(nothing.per_frame, nothing.unconditional().per_frame)
    assert nothing.context is None or not nothing.context.known.any()


@pytest.mark.parametrize("into", ["attention", "modulation"])
def test_captions_are_dropped_frame_by_frame_in_training(folders, into):
    conditioner = opened(folders["t5"], into=into, dropout=0.3, part_dropout=0.5)
    said = {"caption": CAPTION.encode_text("a plane").expand(400, 12, -1)}
    condition = conditioner(said, 6, 400, generator("drop"))
    if condition.context is None:
        known = (condition.per_frame != condition.null).any(-1)
    else:
        known = condition.context.known.any(-1)
    assert 0.2 < (~known.any(1)).float().mean() < 0.5
    assert 0.2 < (known.any(1) & ~known.all(1)).float().mean() < 0.5
    again = conditioner(said, 6, 400, generator("drop"))
    assert torch.equal(condition.per_frame, again.per_frame)


# Kept captions ------------------------------------------------------------------------------------


def counted(conditioner: TextEncoderConditioner) -> list[Tensor]:
    """Note what the public model is asked."""
    asked: list[Tensor] = []
    conditioner.public.register_forward_pre_hook(
        lambda module, args, words: asked.append(words["input_ids"]), with_kwargs=True
    )
    return asked


def test_each_caption_is_read_once_and_remembered_as_it_was(folder):
    conditioner = opened(folder)
    asked = counted(conditioner)
    once = read(conditioner, [SAID[0], SAID[1], SAID[0], None])
    assert len(asked) == 2
    again = read(conditioner, [SAID[0], SAID[1], SAID[0], None])
    assert len(asked) == 2
    assert once.context is not None and again.context is not None
    assert torch.equal(once.context.tokens, again.context.tokens)
    fresh = read(opened(folder), [SAID[0], SAID[1], SAID[0], None])
    assert fresh.context is not None
    assert torch.equal(once.context.tokens, fresh.context.tokens)


def test_no_more_are_kept_than_there_is_room_for(folders, monkeypatch):
    monkeypatch.setattr(text_encoder, "_MOST_KEPT", 2)
    conditioner = opened(folders["t5"])
    asked = counted(conditioner)
    read(conditioner, SAID[:3])
    read(conditioner, [SAID[1]])
    assert list(conditioner._kept) == [SAID[2].encode(), SAID[1].encode()] and len(asked) == 3
    read(conditioner, [SAID[0]])
    read(conditioner, [SAID[1]])  # was said later than the third, and so is still there
    assert len(asked) == 4


def test_it_moves_and_changes_precision_with_its_world(folders):
    conditioner = opened(folders["clip"])
    expected = looked_at(read(conditioner, SAID), 1)
    found = looked_at(read(conditioner.double(), SAID), 1)
    assert {p.dtype for p in conditioner.public.parameters()} == {torch.float64}
    assert {tokens.dtype for tokens in conditioner._kept.values()} == {torch.float64}
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=1e-5)


# Frozen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("into", ["attention", "modulation"])
def test_gradients_reach_the_linear_layer_and_never_the_public_model(folders, into):
    conditioner = opened(folders["t5"], into=into).train().requires_grad_(True)
    expected = {"proj_in.weight", "proj_in.bias"} | ({"null"} if into == "modulation" else set())
    assert {name for name, _ in conditioner.named_parameters()} == expected
    said = read(conditioner, [*SAID, None])
    told = said.per_frame if said.context is None else said.context.tokens
    told.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in conditioner.parameters())
    assert not conditioner.public.training
    assert not any(p.requires_grad or p.grad is not None for p in conditioner.public.parameters())


def card(folder: Path, predictor: str = "flow", **settings) -> Card:
    encoder = {"kind": "kl"} | BLOCK
    if predictor in ("autoregressive", "masked"):
        encoder = {"kind": "fsq", "levels": [5, 4, 3]} | BLOCK
    return Card(
        fps=10.0,
        size=(32, 32),
        signals={"caption": CAPTION, "actions": Signal(role="action", size=2)},
        encoder=encoder,
        conditioner={"kind": "text_encoder", "model": str(folder), **settings},
        predictor={"kind": predictor, "width": 16, "depth": 1, "heads": 2},
    )


def built(card: Card) -> World:
    """Build a world, and move what starts at zero and would make every future the same."""
    world = World.build(card).eval()
    with torch.no_grad():
        for parameter in world.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return world


def futures(world: World, text: str | None) -> Tensor:
    clip = Clip(torch.full((4, 3, 32, 32), 90, dtype=torch.uint8), 10.0)
    return world.predict(clip, 0.4, text=text).frames.float()


def test_a_world_names_the_public_files_and_does_not_hold_them(folder, tmp_path):
    world = built(card(folder))
    world.save(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    ours = [name for name in stored if name.startswith("conditioner.")]
    assert sorted(ours) == [
        "conditioner._extra_state",
        "conditioner.proj_in.bias",
        "conditioner.proj_in.weight",
    ]
    assert bytes(stored["conditioner._extra_state"].tolist()).hex() == world.conditioner.sha256
    again = load(tmp_path, "cpu")
    assert torch.equal(futures(again, SAID[1]), futures(world, SAID[1]))
    assert not torch.equal(futures(world, SAID[0]), futures(world, SAID[1]))


@pytest.mark.parametrize("changed", ["weights", "tokenizer", "config"])
def test_a_world_refuses_public_files_that_have_changed(tmp_path, changed):
    model = save_tiny(tmp_path / "model")
    built(card(model)).save(tmp_path / "world")
    if changed == "weights":
        save_tiny(model)
    else:
        path, was, now = {
            "tokenizer": (model / "tokenizer.json", '"left"', '"port"'),
            "config": (model / "config.json", '"relu"', '"gelu"'),
        }[changed]
        assert was in path.read_text()
        path.write_text(path.read_text().replace(was, now))
    with pytest.raises(AvenirError, match=f"have changed: sha256.*set {SETTING} in card"):
        load(tmp_path / "world", "cpu")


def test_a_copy_reads_with_the_same_model(folders):
    world = built(card(folders["t5"]))
    twin = copy.deepcopy(world)
    assert twin.conditioner.public is world.conditioner.public
    assert twin.conditioner.proj_in.weight is not world.conditioner.proj_in.weight
    assert torch.equal(futures(twin, SAID[1]), futures(world, SAID[1]))


def test_a_world_whose_model_has_moved_says_where_to_name_it(tmp_path):
    model = save_tiny(tmp_path / "model")
    table = card(model).model_dump()
    parts = {"actions": {}, "text_encoder": {"model": str(model)}}
    table |= {"conditioner": {"kind": "joint", "parts": parts}}
    world = built(Card.model_validate(table))
    world.save(tmp_path / "world")
    model.rename(tmp_path / "moved")
    with pytest.raises(AvenirError, match=f"set {SETTING}, in the recipe or in card.json"):
        load(tmp_path / "world", "cpu")
    path = tmp_path / "world" / "card.json"
    path.write_text(path.read_text().replace(f'"{model}"', f'"{tmp_path / "moved"}"'))
    assert torch.equal(futures(load(tmp_path / "world", "cpu"), "left"), futures(world, "left"))


# With predictors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("predictor", ["flow", "autoregressive", "masked"])
def test_a_vector_steers_every_predictor(folders, predictor):
    world = built(card(folders["t5"], predictor, into="modulation"))
    assert futures(world, SAID[1]).shape == (4, 3, 32, 32)


def test_tokens_are_for_predictors_that_look(folders):
    with pytest.raises(AvenirError, match="'text_encoder' gives things to look at"):
        assembled(card(folders["t5"], "masked"))


@pytest.mark.parametrize("into", ["attention", "modulation"])
def test_it_is_a_part_among_others_and_can_be_guided(folders, into):
    parts = {"actions": {}, "text_encoder": {"model": str(folders["clip"]), "into": into}}
    table = card(folders["t5"]).model_dump()
    table |= {"conditioner": {"kind": "joint", "parts": parts}}
    said = []
    for guidance in (1.0, {"text_encoder": 1.0}, {"text_encoder": 4.0}):
        torch.manual_seed(0)
        table["predictor"]["sampling"] = {"guidance": guidance, "num_steps": 2}
        said.append(futures(built(Card.model_validate(table)), SAID[1]))
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])


def recipe(folder: Path, where: Path, into: str) -> Recipe:
    (where / "frames.toml").write_text(
        'task = "encoder"\n[data]\nkind = "synthetic"\n[encoder]\nkind = "kl"\nwidth = 8\n'
        "depth = 1\ndecoder_depth = 1\n[train]\nsteps = 2\nbatch_size = 2\nnum_samples = 0\n"
    )
    (where / "told.toml").write_text(
        f"""task = "predictor"
tokenizer = "frames.toml"
[data]
kind = "synthetic"
size = [32, 32]
captions = "some"
[conditioner]
kind = "text_encoder"
model = "{folder}"
into = "{into}"
[predictor]
kind = "flow"
width = 16
depth = 1
heads = 2
past = 2
chunk = 1
[train]
steps = 10
batch_size = 2
num_samples = 0
cache_recordings = 4
"""
    )
    return load_recipe(where / "told.toml")


@pytest.mark.parametrize("into", ["attention", "modulation"])
def test_it_is_trained_and_goes_on_where_it_stopped_bit_for_bit(
    folders, tmp_path, monkeypatch, into
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = train(recipe(folders["t5"], tmp_path, into), whole)
    trained = load_file(done / "model.safetensors")
    original, calls = step.TrainingStep.run, []

    def interrupted(self, batch, progress):
        if self.task.world.predictor is not None:
            calls.append(progress.step)
        if len(calls) == 5 + 7:  # five steps are its estimate
            signals.raise_signal(signals.SIGINT)
        return original(self, batch, progress)

    monkeypatch.setattr(step.TrainingStep, "run", interrupted)
    with pytest.raises(loop.Interrupted):
        train(recipe(folders["t5"], tmp_path, into), parts)
    assert list(parts.rglob(STATE))
    monkeypatch.undo()
    again = load_file(train(recipe(folders["t5"], tmp_path, into), parts) / "model.safetensors")
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    torch.manual_seed(0)
    fresh = World.build(load(done, "cpu").card).conditioner
    assert fresh is not None
    assert not torch.equal(
        fresh.state_dict()["proj_in.weight"], trained["conditioner.proj_in.weight"]
    )


# Finding ------------------------------------------------------------------------------------------


def test_a_model_that_is_nowhere_is_named_with_the_setting(tmp_path):
    with pytest.raises(AvenirError, match=f"none' is no folder.*set {SETTING}, in the recipe"):
        opened(tmp_path / "none")


def test_another_kind_of_model_is_refused_by_name(tmp_path):
    folder = save_tiny(tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(AvenirError, match="of type 'bert': give one of t5, clip"):
        opened(folder)


def test_weights_that_are_missing_are_never_made_up(tmp_path):
    folder = save_tiny(tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "block.1" in name)
    kept = {n: w for n, w in weights.items() if n != name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(AvenirError, match=r"lacks encoder\.block\.1"):
        opened(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(AvenirError, match="holds no model.*weights as safetensors"):
        opened(folder)


def test_a_model_needs_its_own_tokenizer(tmp_path):
    folder = save_tiny(tmp_path)
    words_of("t5", ("one", "more")).save_pretrained(folder)
    with pytest.raises(AvenirError, match="there are 17 in it, and the model knows 15"):
        opened(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(AvenirError, match="and it is damaged: .*; fetch it again"):
        opened(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(AvenirError, match=r"needs tokenizer\.json.*has none: save its tokenizer"):
        opened(folder)


def test_more_tokens_than_there_are_places_for_is_an_error(folders):
    with pytest.raises(AvenirError, match="length=41 was given to conditioner kind.*give 3 to 40"):
        opened(folders["clip"], length=41)


def test_what_is_missing_is_said_and_nothing_else_needs_it(monkeypatch):
    command = "import sys, avenir, avenir.cli, avenir.conditioners.text\n"
    command += "sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0
    for name in ("avenir.hub", "avenir.conditioners.text_encoder"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AvenirError, match=r"needs the module 'transformers'.*avenir\[hub\]"):
        find("conditioners", "text_encoder")


def test_a_training_batch_reads_nothing_of_what_it_drops(folders):
    """With all dropped, the public model is not asked, and what is trained still has a gradient."""
    world = built(card(folders["t5"], dropout=1.0))
    asked = counted(world.conditioner)
    said = {"caption": CAPTION.encode_text("a plane").expand(2, 16, -1)}
    t = world.predictor.num_train_frames
    condition = world.conditioner(said, t, 2, generator("drop"))
    latents = torch.randn(2, t, world.encoder.channels, 4, 4)
    losses = world.predictor.losses(latents, condition, Progress(0, 2, generator("losses")))
    losses["flow"].backward()
    assert not asked and world.conditioner.proj_in.weight.grad is not None
