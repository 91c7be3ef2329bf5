class AlignedTask(EncoderTask):
    """Train a tokenizer while more is asked of its latents; what asks is thrown away at the end."""

    def __init__(
        self,
        recipe: Recipe,
        data: Source,
        world: World,
        config: AlignmentConfig,
        teacher: Encoder | None,
    ) -> None:
        super().__init__(recipe, data, world)
        if not isinstance(world.encoder, Tokenizer):
            raise AvenirError(
                f"[alignment] was given for encoder {recipe.encoder['kind']!r}, which cannot "
                "decode; it is for tokenizers, such as kind 'kl'"
            )
        if config.layer is not None:
            raise AvenirError(
                f"alignment.layer is {config.layer} in a tokenizer's recipe; it says where to look "
                "into a predictor: leave it out"
            )
        self.tokenizer = world.encoder
        self.most_hidden = min(world.encoder.look_back, recipe.train.num_groups - 1)
        if config.future and not self.most_hidden:
            raise AvenirError(
                f"alignment.future is {config.future}, with look_back {world.encoder.look_back} "
                f"and train.num_groups {recipe.train.num_groups}; what is hidden at the end of a "
                "window is decoded from earlier latents of it: set encoder.look_back to at least "
                "1 and train.num_groups to at least 2"
            )
        self.teacher = None if teacher is None else teacher.requires_grad_(False).eval()
        own = world.encoder.compression, world.encoder.channels
        features = (None, None) if teacher is None else (teacher.compression, teacher.channels)
        self.alignment = Alignment(config, *own, *features)
        self.alignment.to(world.encoder.latent_mean.device)
        self.both = nn.ModuleDict({"encoder": world.encoder, "alignment": self.alignment})

    @property
    def trained(self) -> nn.Module:
        """Return the tokenizer and what aligns it."""
        return self.both

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Decode and align from the same latents; the teacher sees true colours."""
        coloured = self._coloured(batch, progress).video
        assert batch.video is not None and coloured is not None
        video = padded(coloured, self.tokenizer.compression)
        posterior = self.tokenizer.raw_posterior(video)
        mean, aside = balanced(posterior.mean, self.alignment.share(progress))

        def hide(latents: Latents) -> Latents:
            return self.alignment.without_future(latents, self.most_hidden, progress)

        posterior = posterior._replace(mean=mean)
        losses = self.tokenizer.decoding_losses(posterior, video, progress, hide)
        features = None if self.teacher is None else seen_by(self.teacher, batch.video)
        # What decoding draws comes first: with and without alignment it draws the same.
        return losses | self.alignment(aside, features, progress.generator)

    def groups(self) -> list[ParameterGroup]:
        """Ask the encoder, whose first group makes the latents and descends alignment as well."""
        first, *others = self.tokenizer.parameter_groups()
        groups = [replace(first, weights=first.weights | ALIGNING), *others]
        if self.alignment.padding is not None:
            groups.append(ParameterGroup([self.alignment.padding], first.weights))
        return [*groups, *_projecting(self.alignment)]


ALIGNING = {"directions": 1.0, "relations": 1.0, "local_correlation": 1.0}
"""The terms of alignment, which come weighted."""


def _projecting(alignment: Alignment) -> list[ParameterGroup]:
    """Say what is learnt with alignment and descends it alone."""
    learnt = [p for p in alignment.parameters() if p is not alignment.padding]
    return [ParameterGroup(learnt, ALIGNING)] if learnt else []


@torch.no_grad()
def seen_by(teacher: Encoder, video: Video) -> Latents:
    """Return what a teacher sees in true frames."""
    return teacher.encode(video)


class AlignedPredictorTask(PredictorTask):
    """Train a predictor while its tokens, in the frames it is to predict, are drawn to a teacher.

    Generated frames are learnt from what they look like to one who knows (REPA, 2410.06940). What
    aligns is thrown away at the end.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Source,
        world: World,
        config: AlignmentConfig,
        teacher: Encoder | None,
    ) -> None:
        super().__init__(recipe, data, world)
        if teacher is None or config.future or config.local_correlation:
            raise AvenirError(
                "[alignment] of a predictor draws its tokens to a teacher; future and "
                "local_correlation are for tokenizers: name one with alignment.teacher, and leave "
                "them out"
            )
        if recipe.train.cache_recordings != 0 or isinstance(data, Cached):
            raise AvenirError(
                "[alignment] shows a teacher the frames of every window, and latents that were "
                "encoded once have none: set train.cache_recordings = 0, on data with frames"
            )
        depth = self.predictor.depth
        self.layer = config.layer or max(1, round(depth / 3))
        if self.layer > depth:
            raise AvenirError(
                f"alignment.layer is {config.layer} and the predictor has {depth} blocks: name one "
                f"from 1 to {depth}"
            )
        self.teacher = teacher.requires_grad_(False).eval()
        f_t, f_h, f_w = world.encoder.compression
        patch = self.predictor.patch
        token = Compression(f_t, patch * f_h, patch * f_w)
        seen = teacher.compression, teacher.channels
        self.alignment = Alignment(config, token, self.predictor.width, *seen, mixed=True)
        self.alignment.to(world.encoder.latent_mean.device)
        self.both = nn.ModuleDict({"steered": self.steered, "alignment": self.alignment})

    @property
    def trained(self) -> nn.Module:
        """Return predictor, conditioner and what aligns."""
        return self.both

    def losses(self, batch: Batch, progress: Progress, tap: Tap | None = None) -> dict[str, Tensor]:
        """Predict, and align the tokens of the frames that are predicted."""
        assert batch.video is not None
        aside = []

        def through(tokens: Tensor, counts: Tensor) -> Tensor:
            tokens, twin = balanced(tokens, self.alignment.share(progress))
            aside.append((twin, counts))
            return tokens

        losses = super().losses(batch, progress, Tap(self.layer, through))
        [(tokens, counts)] = aside
        features = seen_by(self.teacher, batch.video)
        # What prediction draws comes first: with and without alignment it draws the same.
        return losses | self.alignment(tokens, features, progress.generator, counts)

    def groups(self) -> list[ParameterGroup]:
        """Descend every loss with weight one; what aligns descends alignment."""
        return [*super().groups(), *_projecting(self.alignment)]


