"""Public encoders on tiny random models of the same classes, against the library's own forward."""

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor

transformers = pytest.importorskip("transformers")

from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: E402

from avenir import hub  # noqa: E402
from avenir.card import Card  # noqa: E402
from avenir.clip import Batch, Progress  # noqa: E402
from avenir.device import generator  # noqa: E402
from avenir.encoders.hub import FAMILIES, Hub, HubConfig, _sizes  # noqa: E402
from avenir.errors import AvenirError  # noqa: E402
from avenir.training.loop import cost_of, train  # noqa: E402
from avenir.training.objectives import make_source  # noqa: E402
from avenir.training.recipe import load_recipe  # noqa: E402
from avenir.world import World, load  # noqa: E402

PATCH = 4
SETTING = "`model` of encoder kind 'hub'"
IMAGENET = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
HALF = (torch.full((3,), 0.5), torch.full((3,), 0.5))
PREFIX = {
    "vit": 1,
    "dinov2": 1,
    "dinov2_with_registers": 3,
    "dinov3_vit": 4,
    "dinov3_convnext": 1,
    "siglip": 0,
    "siglip_vision_model": 0,
    "vjepa2": 0,
}
"""Tokens of no place that stand before those of patches."""
IMAGES = [family for family in FAMILIES if family != "vjepa2"]
LAYERED = [family for family in FAMILIES if family != "dinov3_convnext"]
SIZES = [(16, 16), (12, 20), (20, 12), (40, 24)]


def tiny(family: str):
    """Draw a model of a family that is as small as it goes, no weight left at zero."""
    small = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes = {"image_size": 16, "patch_size": PATCH}
    wide = {"intermediate_size": 32}
    vision = small | sizes | wide
    configs = {
        "vit": lambda: transformers.ViTConfig(**vision),
        "dinov2": lambda: transformers.Dinov2Config(**small, **sizes, mlp_ratio=2),
        "dinov2_with_registers": lambda: transformers.Dinov2WithRegistersConfig(
            **small, **sizes, mlp_ratio=2, num_register_tokens=2
        ),
        "dinov3_vit": lambda: transformers.DINOv3ViTConfig(**vision, num_register_tokens=3),
        "dinov3_convnext": lambda: transformers.DINOv3ConvNextConfig(
            hidden_sizes=[8], depths=[2], layer_scale_init_value=0.1
        ),
        "siglip_vision_model": lambda: transformers.SiglipVisionConfig(**vision),
        "vjepa2": lambda: transformers.VJEPA2Config(
            **small,
            patch_size=PATCH,
            crop_size=16,
            frames_per_clip=4,
            pred_hidden_size=12,
            pred_num_attention_heads=2,
            pred_num_hidden_layers=1,
        ),
    }
    if family == "siglip":
        text = {"vocab_size": 8, "max_position_embeddings": 4, "bos_token_id": 0, "eos_token_id": 1}
        config = transformers.SiglipConfig(
            text_config=small | wide | text | {"pad_token_id": 0}, vision_config=vision
        )
        model = transformers.SiglipModel(config)
    else:
        model = getattr(transformers, FAMILIES[family].model)(configs[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def save_tiny(folder: Path, family: str = "vjepa2") -> Path:
    """Write a tiny random model as `save_pretrained` does."""
    tiny(family).save_pretrained(folder)
    return folder


def opened(folder: Path, **settings) -> Hub:
    return Hub(HubConfig(model=str(folder), **settings))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("public")
    return {family: save_tiny(root / family, family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def folder(request, folders) -> Path:
    return folders[request.param]


def family_of(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["model_type"]


def own(folder: Path):
    """Open a model as the library does."""
    return getattr(transformers, FAMILIES[family_of(folder)].model).from_pretrained(folder).eval()


def pixels(frames: Tensor, colours: tuple[Tensor, Tensor]) -> Tensor:
    mean, std = (value[:, None, None] for value in colours)
    return (frames * 0.5 + 0.5 - mean) / std


def random_video(*size: int, frames: int = 2, rows: int = 2) -> Tensor:
    return torch.rand(rows, frames, 3, *size) * 2 - 1


@torch.no_grad()
def library(folder: Path, frames: Tensor, layers: int = 1) -> Tensor:
    """Let the library see frames `n C H W` of an image model, and lay its tokens on their grid."""
    family, model = family_of(folder), own(folder)
    colours = HALF if family.startswith("siglip") else IMAGENET
    asked = {"interpolate_pos_encoding": True} if family[:3] in ("vit", "sig") else {}
    seen = model(pixels(frames, colours), output_hidden_states=True, **asked)
    tokens = seen.last_hidden_state
    if layers > 1:
        name = {"dinov3_vit": "norm", "siglip": "post_layernorm"}
        name["siglip_vision_model"] = name["siglip"]
        norm = getattr(model, name.get(family, "layernorm"))
        tokens = sum(norm(state) for state in seen.hidden_states[-layers:]) / layers
    patch = PATCH
    return rearrange(
        tokens[:, PREFIX[family] :], "n (h w) c -> n c h w", h=frames.shape[2] // patch
    )


# Agreement with the library -----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", IMAGES)
def test_latents_of_images_are_the_librarys_patch_tokens(folders, family, size):
    video = random_video(*size)
    latents = opened(folders[family]).encode(video)
    expected = library(folders[family], video.flatten(0, 1)).unflatten(0, (2, 2))
    assert latents.shape == (2, 2, expected.shape[2], size[0] // PATCH, size[1] // PATCH)
    torch.testing.assert_close(latents, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", [f for f in LAYERED if f != "vjepa2"])
def test_several_layers_are_averaged_under_the_last_norm(folders, family):
    video = random_video(12, 20, frames=1, rows=1)
    latents = opened(folders[family], layers=2).encode(video)
    expected = library(folders[family], video[0], layers=2)
    torch.testing.assert_close(latents[0], expected, atol=2e-6, rtol=1e-6)
    assert not torch.allclose(expected, library(folders[family], video[0]), atol=1e-2)


@torch.no_grad()
def library_clips(folder: Path, video: Tensor, side: int) -> Tensor:
    """Let V-JEPA 2, set to frames of a `side`, see each group of two frames as a clip."""
    trained = own(folder)
    config = transformers.VJEPA2Config.from_pretrained(folder, crop_size=side)
    model = transformers.VJEPA2Model(config).eval()
    model.load_state_dict(trained.state_dict())
    clips = pixels(rearrange(video, "b (t f) C H W -> (b t) f C H W", f=2), IMAGENET)
    tokens = model(clips, skip_predictor=True).last_hidden_state
    h = video.shape[3] // PATCH
    return rearrange(tokens, "(b t) (h w) c -> b t c h w", b=len(video), h=h)


@pytest.mark.parametrize(("size", "side"), [((16, 16), 16), ((24, 24), 24), ((12, 20), 20)])
def test_latents_of_clips_are_the_librarys_tokens_at_its_own_size(folders, size, side):
    # A frame no higher than wide has the positions of the upper part of a square.
    video = random_video(*size, frames=4)
    latents = opened(folders["vjepa2"]).encode(video)
    expected = library_clips(folders["vjepa2"], video, side)
    torch.testing.assert_close(latents, expected, atol=1e-6, rtol=1e-6)


def test_the_library_misplaces_tokens_of_other_sizes(folders):
    """Should it learn better, `_clip_layers` can go."""
    video = random_video(24, 24)
    wrong = library_clips(folders["vjepa2"], video, 16)
    assert not torch.allclose(wrong, opened(folders["vjepa2"]).encode(video), atol=1e-4)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_token_of_a_clip_is_told_its_row_and_column(folders, size):
    encoder = opened(folders["vjepa2"])
    attention, told = encoder.public.encoder.layer[0].attention, []
    original = attention.get_position_ids

    def listen(x, masks=None):
        told.append(original(x, masks))
        return told[-1]

    attention.get_position_ids = listen
    encoder.encode(random_video(*size, rows=1))
    h, w = size[0] // PATCH, size[1] // PATCH
    time, row, column = (ids[0, 0].reshape(h, w) for ids in told[0])
    assert torch.equal(time, torch.zeros(h, w, dtype=time.dtype))
    assert torch.equal(row, torch.arange(h)[:, None].expand(h, w))
    assert torch.equal(column, torch.arange(w).expand(h, w))


def test_layers_of_clips_are_averaged_under_the_last_norm(folders):
    video, model = random_video(16, 16), own(folders["vjepa2"])
    clips = pixels(video, IMAGENET)
    with torch.no_grad():
        states = model(clips, skip_predictor=True, output_hidden_states=True).hidden_states
        expected = (model.encoder.layernorm(states[-1]) + model.encoder.layernorm(states[-2])) / 2
    latents = opened(folders["vjepa2"], layers=2).encode(video)
    expected = rearrange(expected, "b (h w) c -> b 1 c h w", h=4)
    torch.testing.assert_close(latents, expected, atol=2e-6, rtol=1e-6)


# Where things are ---------------------------------------------------------------------------------


def most_changed(encoder: Hub, size: tuple[int, int], where: tuple[int, int, int]) -> tuple:
    """Repaint one block of one group in eight videos, and find the latent that changes most."""
    f_t, f_h, f_w = encoder.compression
    t, r, c = where
    video = 0.1 * random_video(*size, frames=3 * f_t, rows=8)
    bright, colours = video.clone(), torch.rand(8, 1, 3, 1, 1).round() * 2 - 1
    rows, columns = slice(r * f_h, (r + 1) * f_h), slice(c * f_w, (c + 1) * f_w)
    bright[:, t * f_t : (t + 1) * f_t, :, rows, columns] = colours
    change = (encoder.encode(bright) - encoder.encode(video)).norm(dim=2).mean(0)
    assert change[[i for i in range(3) if i != t]].abs().max() == 0
    return tuple(int(i) for i in torch.unravel_index(change.argmax(), change.shape))


@pytest.mark.parametrize("where", [(0, 0, 0), (1, 2, 1), (2, 1, 2), (1, 0, 2)], ids=str)
@pytest.mark.parametrize("grid", [(3, 5), (5, 3)], ids=str)
def test_a_bright_patch_changes_most_the_latent_at_its_place(folder, grid, where):
    size = (grid[0] * PATCH, grid[1] * PATCH)
    assert most_changed(opened(folder), size, where) == where


@pytest.mark.parametrize("block", [2, 3, 8])
def test_frames_are_resized_until_a_patch_covers_a_block(folder, block):
    encoder = opened(folder, block=block)
    assert encoder.compression[1:] == (block, block)
    for where in [(0, 0, 4), (1, 2, 1)]:
        assert most_changed(encoder, (3 * block, 5 * block), where) == where


def test_resizing_is_bilinear_and_antialiased(folders):
    frames = random_video(24, 40, frames=1, rows=1)[0]
    small = torch.nn.functional.interpolate(frames, (12, 20), mode="bilinear", antialias=True)
    latents = opened(folders["dinov2"], block=8).encode(frames[None])[0]
    torch.testing.assert_close(latents, library(folders["dinov2"], small), atol=1e-6, rtol=1e-6)


def test_the_published_convnext_has_patches_of_32_pixels():
    assert _sizes(transformers.DINOv3ConvNextConfig()) == (32, 768, 1)


# The contract -------------------------------------------------------------------------------------


def test_groups_and_rows_do_not_meet_and_edges_are_repeated(folder):
    encoder = opened(folder)
    f_t, block, _ = encoder.compression
    assert encoder.compression == (2 if family_of(folder) == "vjepa2" else 1, PATCH, PATCH)
    video = random_video(3 * block, 5 * block, frames=3 * f_t)
    latents = encoder.encode(video)
    assert latents.shape == (2, 3, encoder.channels, 3, 5)
    assert torch.equal(latents, encoder.encode(video))
    torch.testing.assert_close(latents[:1, 1:], encoder.encode(video[:1, f_t:]))
    cut = video[..., : 3 * block - 1, :]
    whole = torch.cat([cut, cut[..., -1:, :]], dim=-2)
    torch.testing.assert_close(encoder.encode(cut), encoder.encode(whole))


def test_it_is_frozen_says_so_and_cannot_be_woken(folder):
    encoder = opened(folder)
    video = random_video(16, 16)
    before = encoder.encode(video)
    encoder.train().requires_grad_(True)
    assert torch.equal(encoder.encode(video), before)
    assert not encoder.encode(video).requires_grad
    assert list(encoder.parameters()) == []
    assert not encoder.can_decode
    with pytest.raises(AvenirError, match="use it as a teacher"):
        encoder.losses(Batch(video, {}), Progress(0, 1, generator("test")))
    assert encoder.parameter_groups() == []


def test_a_recipe_makes_a_run_of_it_and_a_tokenizer_learns_from_that(folders, tmp_path):
    few = ["data.size=[32, 32]", "data.train_recordings=8"]
    words = [*few, f"encoder.model={folders['dinov2']}"]
    recipe = load_recipe("recipes/hub.toml", words)
    assert "nothing to train" in list(cost_of(recipe))[0]
    teacher = train(recipe, tmp_path)
    world = World.load(teacher, "cpu")
    source = make_source(recipe.data)
    latents = world.encoder.encode(source.read(source.spread("train", 8, 8)).video)
    torch.testing.assert_close(latents.std((0, 1, 3, 4)), torch.ones(24), atol=0.3, rtol=0)
    assert world.card.provenance["key"] == recipe.key(source.fingerprint, {})
    small = ["train.steps=2", "train.batch_size=2", "encoder.width=8", "train.num_samples=0"]
    aligned = ["recipes/quickstart_tokenizer.toml", [*few, *small, f"alignment.teacher={teacher}"]]
    losses = (train(load_recipe(*aligned), tmp_path) / "metrics.jsonl").read_text()
    assert "directions" in losses


def test_it_moves_and_changes_precision_with_its_world(folder):
    encoder, video = opened(folder), random_video(16, 16)
    expected = encoder.encode(video)
    latents = encoder.double().encode(video.double())
    assert latents.dtype == torch.float64
    torch.testing.assert_close(latents.float(), expected, atol=1e-4, rtol=1e-3)


# Colours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name"),
    [("dinov2", "preprocessor_config.json"), ("vjepa2", "video_preprocessor_config.json")],
)
def test_a_model_says_what_colours_it_wants(tmp_path, family, name):
    folder = save_tiny(tmp_path, family)
    colours = ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    said = {"image_mean": colours[0], "image_std": colours[1]}
    (folder / name).write_text(json.dumps(said))
    encoder = opened(folder)
    assert torch.equal(encoder.pixel_mean.flatten(), torch.tensor(colours[0]))
    assert torch.equal(encoder.pixel_std.flatten(), torch.tensor(colours[1]))


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[1]",
        '{"image_mean": 3}',
        '{"image_mean": [0.5, 0.5]}',
        '{"image_std": [0.5, 0.5, 0.0]}',
        '{"image_std": ["a", "b", "c"]}',
        '{"image_mean": [NaN, 0.5, 0.5]}',
    ],
)
def test_colours_that_are_none_are_refused(tmp_path, said):
    folder = save_tiny(tmp_path, "dinov2")
    (folder / "preprocessor_config.json").write_text(said)
    with pytest.raises(AvenirError, match=r"damaged preprocessor_config\.json"):
        opened(folder)


# Saving -------------------------------------------------------------------------------------------


def saved_world(folder: Path, model: Path) -> World:
    table = {"kind": "hub", "model": str(model)}
    world = World.build(Card(fps=10.0, size=(16, 16), encoder=table))
    world.encoder.latent_mean.fill_(0.5)
    world.save(folder)
    return world


def test_a_world_names_public_weights_and_does_not_hold_them(tmp_path, folder):
    world, video = saved_world(tmp_path, folder), random_video(16, 16)
    stored = load_file(tmp_path / "model.safetensors")
    named = hashlib.sha256((folder / "model.safetensors").read_bytes()).digest()
    assert bytes(stored.pop("encoder._extra_state").tolist()) == named
    assert sorted(stored) == ["encoder.latent_mean", "encoder.latent_std"]
    again = load(tmp_path, "cpu").encoder
    assert torch.equal(again.encode(video), world.encoder.encode(video))


def test_a_world_refuses_public_weights_that_have_changed(tmp_path):
    model = save_tiny(tmp_path / "model", "dinov2")
    saved_world(tmp_path / "world", model)
    save_tiny(model, "dinov2")
    with pytest.raises(AvenirError, match=f"have changed: sha256.*set {SETTING} in card"):
        load(tmp_path / "world", "cpu")


def test_a_copy_reads_with_the_same_model(folder):
    encoder, video = opened(folder), random_video(16, 16)
    twin = copy.deepcopy(encoder)
    assert twin.public is encoder.public
    assert twin.latent_mean is not encoder.latent_mean
    assert torch.equal(twin.encode(video), encoder.encode(video))


def test_shards_are_hashed_in_the_order_of_their_names(tmp_path):
    weights = tiny("dinov2")
    weights.save_pretrained(tmp_path, max_shard_size="10KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    whole = b"".join(shard.read_bytes() for shard in shards)
    assert opened(tmp_path).sha256 == hashlib.sha256(whole).hexdigest()


# Finding ------------------------------------------------------------------------------------------


def test_a_cached_model_is_opened_without_asking_the_network(monkeypatch, folders):
    asked = []

    def download(name, **options):
        asked.append((name, options.get("local_files_only", False)))
        return str(folders["dinov2"])

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert opened(Path("lab/model")).channels == 24
    assert asked == [("lab/model", True)]


def test_a_name_that_is_not_cached_is_fetched(monkeypatch, folders):
    asked = []

    def download(name, **options):
        asked.append(options.get("local_files_only", False))
        if asked[-1]:
            raise LocalEntryNotFoundError("not cached")
        return str(folders["vit"])

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert opened(Path("lab/model")).channels == 24
    assert asked == [True, False]


def test_a_cache_without_weights_is_filled(monkeypatch, folders, tmp_path):
    def download(name, **options):
        return str(tmp_path if options.get("local_files_only") else folders["vit"])

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert opened(Path("lab/model")).channels == 24


def test_a_model_that_is_nowhere_is_named_with_the_cure(monkeypatch):
    def download(name, **options):
        raise LocalEntryNotFoundError("neither cached nor to be had")

    monkeypatch.setattr(hub, "snapshot_download", download)
    cure = f"set {SETTING}, in the recipe or in card.json.*save_pretrained"
    with pytest.raises(AvenirError, match=f"'lab/none' is no folder.*could not be fetched.*{cure}"):
        opened(Path("lab/none"))


@pytest.mark.parametrize(
    "name", ["/lab/none", "./none", "../none", ".none", "~/none", "~nobody", "models/lab/none"]
)
def test_a_path_is_not_asked_of_the_hub(monkeypatch, tmp_path, name):
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **options: asked.append(name))
    monkeypatch.chdir(tmp_path)
    cure = f"set {SETTING}, in the recipe or in card.json.*absolute path"
    with pytest.raises(AvenirError, match=f"{name}' is no folder; a path is not asked.*{cure}"):
        Hub(HubConfig(model=name))
    assert not asked


def test_a_folder_without_a_model_says_what_it_needs(tmp_path):
    with pytest.raises(AvenirError, match=r"holds no model: it needs config\.json"):
        opened(tmp_path)


def test_another_kind_of_model_is_refused_by_name(tmp_path):
    folder = save_tiny(tmp_path, "dinov2")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(AvenirError, match="of type 'bert': give one of vit, dinov2"):
        opened(folder)


@pytest.mark.parametrize("said", ["[]", "1", '{"model_type": ["dinov2"]}', "{", "{}"])
def test_a_config_that_says_no_type_is_no_model(tmp_path, said):
    folder = save_tiny(tmp_path, "dinov2")
    (folder / "config.json").write_text(said)
    with pytest.raises(AvenirError, match=r"holds no model: it needs config\.json"):
        opened(folder)


@pytest.mark.parametrize("wrong", [{"hidden_size": "abc"}, {"num_attention_heads": 0}], ids=str)
def test_a_config_that_builds_no_model_is_damaged(tmp_path, wrong):
    folder = save_tiny(tmp_path, "dinov2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(AvenirError, match="is damaged: .*; fetch it again"):
        opened(folder)


def test_weights_that_are_missing_or_damaged_are_never_made_up(tmp_path):
    folder = save_tiny(tmp_path, "dinov2")
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.startswith("encoder"))
    save_file({n: w for n, w in weights.items() if n != name}, path, {"format": "pt"})
    with pytest.raises(AvenirError, match="lacks encoder"):
        opened(folder)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AvenirError, match="is damaged"):
        opened(folder)


def test_more_layers_than_there_are_is_an_error(folders):
    with pytest.raises(AvenirError, match="layers=4 was given.*give 1 to 3"):
        opened(folders["dinov2"], layers=4)
    with pytest.raises(AvenirError, match="give 1 to 1"):
        opened(folders["dinov3_convnext"], layers=2)


def test_opening_is_silent_and_leaves_reports_as_they_were(folders, capfd):
    before = transformers.utils.logging.get_verbosity()
    opened(folders["siglip"])
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == before
    assert transformers.utils.logging.is_progress_bar_enabled()
