"""Captions, read by a frozen public text model: T5's encoder or CLIP's text tower.

Latent diffusion (2112.10752) looks at the tokens of a caption by cross-attention; others take them
from a model that was trained on far more text than they will see, and leave it as it is (Imagen,
2205.11487; Cosmos-Predict1, 2501.03575, with T5-XXL). T5: 1910.10683. CLIP: 2103.00020.

Each caption is read by itself, without padding, so that what is read depends on nothing else: not
on the captions beside it, nor on those before. That keeps runs that are resumed, and
futures that are played again, the same bit for bit, and captions that were read can be kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from avenir import hub
from avenir.clip import Condition, Context
from avenir.conditioners import Conditioner, ConditionSpec, kept_frames, of_latent_frames
from avenir.config import Config
from avenir.errors import AvenirError
from avenir.shapes import Latents

FAMILIES = {"t5": "T5EncoderModel", "clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"}
"""Classes of transformers, by the `model_type` of a model's config.json."""

_CONFIG, _TOKENS = "config.json", "tokenizer.json"

_MOST_KEPT = 512
"""Captions that are kept as they were read: half a megabyte each, of T5-XXL and 32 tokens."""


class TextEncoderConfig(Config):
    """A caption of every frame, read by a public model."""

    kind: str = "text_encoder"
    model: str
    """A folder that `save_pretrained` wrote, with its tokenizer.json, or a name on the Hugging Face
    hub."""
    length: int = Field(32, ge=3, le=4096)
    """Most tokens of a caption that are read, those that begin and end it included."""
    into: Literal["attention", "modulation"] = "attention"
    """Every token to be looked at by cross-attention, or their mean as the one vector of a frame,
    which every predictor takes."""
    dropout: float = Field(0.1, ge=0, le=1)
    """Chance that all captions of a window are absent, which guidance needs."""
    part_dropout: float = Field(0.2, ge=0, le=1)
    """Chance that captions are absent up to some frame, or from some frame on."""


class TextEncoderConditioner(hub.Frozen, Conditioner):
    """Captions `b T s`, UTF-8 bytes with zeros behind them, to tokens or a vector per latent frame.

    Raises AvenirError for a model that is nowhere, damaged, of another family, without a tokenizer,
    or with fewer places than `length`.
    """

    Config = TextEncoderConfig
    setting = "`model` of conditioner kind 'text_encoder'"
    null: Tensor

    def __init__(self, config: TextEncoderConfig, spec: ConditionSpec) -> None:
        super().__init__()
        self.config, self.f_t = config, spec.f_t
        self.size = spec.sizes["caption"]
        folder = hub.folder_of(config.model, self.setting)
        family = FAMILIES[hub.type_of(folder, config.model, FAMILIES)]
        model = hub.opened(folder, family, config.model)
        places = getattr(model.config, "max_position_embeddings", config.length)
        if config.length > places:
            raise AvenirError(
                f"length={config.length} was given to conditioner kind 'text_encoder'; "
                f"{config.model!r} reads {places} tokens: give 3 to {places}"
            )
        self.tokenizer = _tokenizer(folder, model, config.model)
        # Other tokens would be other words, and other heads or activations read them otherwise:
        # the files that tell them belong to the model.
        files = [*hub.weights_in(folder), folder / _TOKENS, folder / _CONFIG]
        self.keep(model, config.model, files)
        self._kept: dict[bytes, Float[Tensor, "n c"]] = {}
        self.proj_in = nn.Linear(model.config.hidden_size, spec.width)
        if config.into == "modulation":
            self.null = nn.Parameter(0.02 * torch.randn(1, 1, spec.width))
        else:
            self.register_buffer("null", torch.zeros(1, 1, spec.width), persistent=False)

    @classmethod
    def needs(cls, settings: TextEncoderConfig) -> tuple[str, ...]:
        """Read captions."""
        return ("caption",)

    @classmethod
    def gives_context(cls, settings: TextEncoderConfig) -> bool:
        """Say whether tokens are looked at."""
        return settings.into == "attention"

    def forward(
        self,
        signals: dict[str, Tensor],
        num_frames: int,
        batch_size: int,
        generator: torch.Generator | None = None,
        latents: Latents | None = None,
    ) -> Condition:
        """Read the caption of the last frame of every latent frame; NaN means unknown."""
        config, shape = self.config, (batch_size, num_frames, self.size)
        captions = of_latent_frames(signals.get("caption"), shape, self.f_t, self.null.device)
        known = captions.isfinite().all(-1)
        if generator is not None:
            known = known & kept_frames(
                batch_size, num_frames, config.dropout, config.part_dropout, generator
            )
        context = self._read(captions, known)
        if config.into == "attention":
            return Condition(self.null.expand(*known.shape, -1), self.null, context=context)
        vectors = torch.where(known[..., None], context.tokens[:, :, 0], self.null)
        return Condition(vectors, self.null)

    def fit(self, signals: Sequence[dict[str, Tensor]]) -> None:
        """Take nothing: the scale of the model's features is taken out of each of them."""

    def _read(self, rows: Float[Tensor, "b t s"], known: Bool[Tensor, "b t"]) -> Context:
        """Read what is known, every caption once, and bring it to the width of the predictor."""
        captions = [bytes(row).rstrip(b"\0") for row in rows[known].byte().cpu().numpy()]
        number = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
        most = self.config.length if self.config.into == "attention" else 1
        read = self.proj_in.weight.new_zeros(len(number), most, self.proj_in.in_features)
        there = torch.zeros(len(number), most, dtype=torch.bool, device=known.device)
        for caption, row in number.items():
            tokens = self._tokens_of(caption)
            read[row, : len(tokens)], there[row, : len(tokens)] = tokens, True
        entered = self.proj_in(layer_norm(read, read.shape[-1:]))
        places = torch.tensor([number[c] for c in captions], dtype=torch.long, device=known.device)
        every = entered.new_zeros(*known.shape, *entered.shape[1:])
        seen = there.new_zeros(*known.shape, most)
        every[known], seen[known] = entered[places], there[places]
        return Context.everywhere(every, seen)

    def _tokens_of(self, caption: bytes) -> Float[Tensor, "n c"]:
        """Read a caption, or look it up: those that were not used for longest are dropped."""
        tokens = self._kept.pop(caption, None)
        if tokens is None:
            tokens = self._tokens(caption.decode(errors="replace"))
        self._kept[caption] = tokens
        if len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return tokens

    @torch.no_grad()
    def _tokens(self, caption: str) -> Float[Tensor, "n c"]:
        """Return the last hidden state of every token of a caption, or the mean of all of them.

        The mean, and not CLIP's own pooled output: T5 has none, and so both are read alike.
        """
        asked = self.tokenizer(caption, truncation=True, max_length=self.config.length)
        ids = torch.tensor([asked.input_ids], device=self.null.device)
        hidden = self.public(input_ids=ids).last_hidden_state[0]
        return hidden if self.config.into == "attention" else hidden.mean(0, keepdim=True)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # What was read lies where the model was, in the precision that it had.
        self._kept.clear()
        return super()._apply(fn, recurse)


def _tokenizer(folder: Path, model: Any, name: str) -> Any:
    """Open the model's own tokenizer; AvenirError when there is none, or that of another model."""
    cure = f"{name!r} needs {_TOKENS}, which says what its tokens are"
    if not (folder / _TOKENS).is_file():
        raise AvenirError(
            f"{cure}, and has none: save its tokenizer there, by "
            "`AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)`"
        )
    try:
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / _TOKENS))
    except Exception as error:  # the library has no class of its own for a file it cannot read
        raise AvenirError(f"{cure}, and it is damaged: {error}; fetch it again") from None
    if len(tokenizer) > model.config.vocab_size:
        raise AvenirError(
            f"{cure}: there are {len(tokenizer)} in it, and the model knows "
            f"{model.config.vocab_size}: put its own there"
        )
    return tokenizer
