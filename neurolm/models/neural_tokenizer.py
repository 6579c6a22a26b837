"""The text-aligned neural tokenizer: EEG patches to vectors, vectors to codes, codes back to signal and spectrum.

- encoder: temporal convolution (or spectrum) of each patch, plus embeddings of channel and second, a transformer that
  sees the whole window in both directions, a final layer norm. Its output, the *features*, the language model reads;
- latents: two linear layers with tanh, unit length, fp32; the codebook's nearest row is the token's code;
- decoders: one to the signal, one to the Fourier amplitudes, each a smaller transformer with its own embeddings.

Stage 1 trains all of it; the later stages need only the encoder and the codes (``with_decoders=False``).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from neurolm.config import UserError, config
from neurolm.models.losses import NUM_BINS, frequency_target, raw_target, squared_errors_of
from neurolm.models.patch_embedding import POINTS, PatchEmbedding
from neurolm.models.quantizer import Quantizer
from neurolm.models.spectrum_embedding import SpectrumEmbedding
from neurolm.models.standardisation import EPSILON, RunningStandardisation
from neurolm.models.transformer import Transformer, TransformerConfig, initialise_linear

NUM_CHANNEL_ROWS = 256
"""Rows of the channel embedding; the vocabulary of channels uses the first 139."""
PAD_CHANNEL = 136
"""Row of the channel embedding that the released code gives to padding."""
NUM_SECONDS = 64
"""Rows of the time embedding: the longest window in seconds."""


@config
class NeuralTokenizerConfig:
    """The neural tokenizer; defaults are those of the released checkpoints (paper, Table 7)."""

    hidden_size: int = Field(default=768, ge=1)
    """Width of encoder and decoders."""
    num_layers: int = Field(default=12, ge=1)
    """Blocks of the encoder."""
    num_heads: int = Field(default=12, ge=1)
    """Attention heads of encoder and decoders; must divide the width."""
    decoder_layers: int = Field(default=4, ge=1)
    """Blocks of each decoder; the paper says 3, the released checkpoint has 4."""
    codebook_size: int = Field(default=8192, ge=2)
    """Number of codes."""
    codebook_dim: int = Field(default=128, ge=1)
    """Length of a code's vector."""
    embedding_init_std: float = Field(default=1.0, gt=0)
    """Initial deviation of channel and time embeddings; in small models 1 drowns the signal, 0.02 does not."""
    reconstruct: Literal["raw", "frequency", "both"] = "both"
    """What the decoders reconstruct: the signal, its Fourier amplitudes, or both."""
    amplitude: Literal["linear", "log"] = "linear"
    """Scale of the Fourier amplitudes that are reconstructed."""
    patch_input: Literal["signal", "spectrum"] = "signal"
    """What a patch's vector is computed from: the signal, by temporal convolution, or its log amplitudes by frequency.

    signal, as in the paper; with spectrum a small tokenizer trains in three quarters of the time, to features as good.
    """
    norm: Literal["window", "token"] = "window"
    """Whether the temporal convolution normalises over the window, as released, or within each patch."""
    latent_norm: Literal["none", "running"] = "none"
    """Whether latents are standardised by running statistics before unit length; keeps small codebooks from collapsing.

    none, as released.
    """
    decoder_start: Literal["zero", "mean"] = "zero"
    """Output bias that decoders start from: 0, as released, or the mean target of the first batch.

    A small, fast encoder otherwise learns that mean in its own stead, by giving all patches the same large offset.
    """
    commitment_weight: float = Field(default=1.0, ge=0)
    """Weight of the commitment loss beside the reconstruction losses."""
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    """How much of a code's vector one update of the codebook keeps."""
    revive_below: float = Field(default=0.0, ge=0, lt=1)
    """Codes used less than this share of the average are moved next to busy ones; 0 never moves one, as released."""
    compat_pad_to: int | None = Field(default=None, ge=1)
    """Published weights: behave as if windows were zero-padded to so many tokens (1024 in stages 1 and 2, 276 in 3)."""

    distance_dtype: Literal["fp32", "autocast"] = "fp32"
    """Precision of the search for the nearest code; autocast, as released: bf16 where training is, and codes flip."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise UserError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.compat_pad_to is not None and self.norm == "token":
            raise UserError("compat_pad_to is meaningless with norm 'token', where no patch sees another's padding")
        if self.patch_input == "spectrum" and (self.compat_pad_to is not None or self.norm == "token"):
            raise UserError("patch_input 'spectrum' has no convolution: leave compat_pad_to at null and norm at window")

    @property
    def targets(self) -> tuple[Literal["raw", "frequency"], ...]:
        """Names of the reconstructed targets."""
        return ("frequency", "raw") if self.reconstruct == "both" else (self.reconstruct,)


class TokenizerOutput(NamedTuple):
    """One forward pass: what the windows became, and summed squared errors with the number of their terms."""

    features: Float[Tensor, "batch tokens hidden"]
    latents: Float[Tensor, "batch tokens latent"]
    codes: Int[Tensor, "batch tokens"]
    squared_errors: dict[str, Float[Tensor, ""]]
    """Sums by name: ``commitment`` (unweighted), ``raw``, ``frequency`` (those that are reconstructed)."""
    by_window: dict[str, Float[Tensor, " batch"]]
    """Parts of ``raw`` and ``frequency``, without gradients."""
    counts: dict[str, int]
    """How many elements each sum has; a loss is its sum divided by the count of the whole batch."""


class Encoder(nn.Module):
    """Patches to features."""

    def __init__(self, config: NeuralTokenizerConfig) -> None:
        super().__init__()
        if config.patch_input == "spectrum":
            self.patch_embedding: nn.Module = SpectrumEmbedding(config.hidden_size)
        else:
            self.patch_embedding = PatchEmbedding(config.hidden_size, config.norm)
            initialise_linear(self.patch_embedding.linear)
        self.place = PlaceEmbedding(config)
        self.transformer = Transformer(_transformer_config(config, config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)

    def forward(
        self,
        signal: Float[Tensor, "batch tokens points"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
        weights: Float[Tensor, " padded_tokens"] | None = None,
    ) -> Float[Tensor, "batch padded_tokens hidden"]:
        """Encode windows; every token sees its whole window.

        With ``weights`` of one entry more than there are tokens, a zero token is added at the end that stands for the
        released code's padding: it enters the group norms with its weight, sees the window, and is seen by no token.
        """
        visible = None
        if weights is not None:
            signal = F.pad(signal, (0, 0, 0, 1))
            channel_index = F.pad(channel_index, (0, 1), value=PAD_CHANNEL)
            time_index = F.pad(time_index, (0, 1))
            visible = torch.ones(1, 1, 1, len(weights), dtype=torch.bool, device=signal.device)
            visible[..., -1] = False
        x = self.patch_embedding(signal, weights) + self.place(channel_index, time_index)
        features: Tensor = self.norm(self.transformer(x, visible))
        return features


class PlaceEmbedding(nn.Module):
    """The sum of learned embeddings of channel and second."""

    def __init__(self, config: NeuralTokenizerConfig) -> None:
        super().__init__()
        self.channel = nn.Embedding(NUM_CHANNEL_ROWS, config.hidden_size)
        self.time = nn.Embedding(NUM_SECONDS, config.hidden_size)
        for table in (self.channel, self.time):
            nn.init.normal_(table.weight, std=config.embedding_init_std)

    def forward(
        self, channel_index: Int[Tensor, "*any"], time_index: Int[Tensor, "*any"]
    ) -> Float[Tensor, "*any hidden"]:
        """Where and when each token is."""
        where: Tensor = self.channel(channel_index)
        return where + self.time(time_index)


class Decoder(nn.Module):
    """Codebook rows to one reconstructed target."""

    def __init__(self, config: NeuralTokenizerConfig, output_size: int) -> None:
        super().__init__()
        hidden_size = config.hidden_size
        self.linear = nn.Linear(config.codebook_dim, hidden_size)
        self.place = PlaceEmbedding(config)
        self.transformer = Transformer(_transformer_config(config, config.decoder_layers))
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.head = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, output_size))
        initialise_linear(self.linear)
        self.head.apply(initialise_linear)

    def forward(
        self,
        latents: Float[Tensor, "batch tokens latent"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
    ) -> Float[Tensor, "batch tokens outputs"]:
        """Reconstruct each token from the whole window's codes."""
        x = self.linear(latents) + self.place(channel_index, time_index)
        output: Tensor = self.head(self.norm(self.transformer(x)))
        return output


class NeuralTokenizer(nn.Module):
    """Encoder, quantizer and, for stage 1, decoders."""

    def __init__(self, config: NeuralTokenizerConfig, with_decoders: bool = True) -> None:
        super().__init__()
        self.config = config
        hidden_size = config.hidden_size
        self.encoder = Encoder(config)
        self.latent_head = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, config.codebook_dim)
        )
        self.latent_head.apply(initialise_linear)
        if config.latent_norm == "running":
            # At the released deviation of 0.02 one fast step moves all latents further than they are apart.
            for linear in self.latent_head:
                if isinstance(linear, nn.Linear):
                    nn.init.orthogonal_(linear.weight)
        self.standardisation = RunningStandardisation(config.codebook_dim) if config.latent_norm == "running" else None
        self.quantizer = Quantizer(
            config.codebook_size, config.codebook_dim, config.ema_decay, config.revive_below, config.distance_dtype
        )
        sizes = {"raw": POINTS, "frequency": NUM_BINS}
        self.decoders = nn.ModuleDict(
            {name: Decoder(config, sizes[name]) for name in config.targets} if with_decoders else {}
        )
        if not with_decoders:
            self.register_load_state_dict_pre_hook(_leave_out_decoders)

    def encode(
        self,
        signal: Float[Tensor, "batch tokens points"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Features of each token. ``signal`` is in 100 microvolt, tokens in time-major order."""
        features: Tensor = self.encoder(signal, channel_index, time_index, self.token_weights(signal))
        return features[:, : signal.shape[1]]

    def latents(self, features: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens latent"]:
        """What the codebook is compared with: vectors of unit length, in fp32 even under autocast."""
        projected = self.project(features)
        return F.normalize(projected if self.standardisation is None else self.standardisation(projected), dim=-1)

    def project(self, features: Float[Tensor, "*tokens hidden"]) -> Float[Tensor, "*tokens latent"]:
        """Latents before they are standardised and get unit length, in fp32 even under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            projected: Tensor = self.latent_head(features.to(next(self.latent_head.parameters()).dtype))
            return projected.float()

    def start_codebook(self, projected: Float[Tensor, "samples latent"], seed: int) -> None:
        """Start the running statistics and then the codebook, by k-means, from the first batch's projections."""
        if self.standardisation is not None:
            self.standardisation.start(projected)
            projected = (projected - self.standardisation.mean) / (self.standardisation.variance + EPSILON).sqrt()
        self.quantizer.start(F.normalize(projected, dim=-1), seed=seed)

    def update_codebook(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Apply what was collected since the last step; ``reduce`` sums over workers."""
        self.quantizer.update(reduce)
        if self.standardisation is not None:
            self.standardisation.update(reduce)

    def forget_assignments(self) -> None:
        """Drop what was collected since the last step."""
        self.quantizer.sums.zero_()
        self.quantizer.counts.zero_()
        if self.standardisation is not None:
            self.standardisation.sums.zero_()

    def codes(self, features: Float[Tensor, "*tokens hidden"]) -> Int[Tensor, "*tokens"]:
        """The code of each token (Eq. 1)."""
        return self.quantizer.nearest(self.latents(features))

    def reconstruct(
        self,
        latents: Float[Tensor, "batch tokens latent"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
    ) -> dict[str, Float[Tensor, "batch tokens outputs"]]:
        """Standardised signal (``raw``) and amplitudes (``frequency``), as far as they are reconstructed."""
        return {name: decoder(latents, channel_index, time_index) for name, decoder in self.decoders.items()}

    def forward(
        self,
        signal: Float[Tensor, "batch tokens points"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
    ) -> TokenizerOutput:
        """Encode, quantize and reconstruct: the terms of Eq. 3.

        With ``compat_pad_to`` the commitment loss and the codebook's statistics count padding tokens, and sums are
        divided by the padded number of tokens, as in the released code.
        """
        num_tokens = signal.shape[1]
        weights = self.token_weights(signal)
        features = self.encoder(signal, channel_index, time_index, weights)
        latents = self.latents(features)
        quantized = self.quantizer(latents, weights)
        commitment = quantized.squared_error if weights is None else quantized.squared_error * weights[:, None]

        squared_errors, by_window = {"commitment": commitment.sum()}, {}
        reconstructed = self.reconstruct(quantized.latents[:, :num_tokens], channel_index, time_index)
        for name, output in reconstructed.items():
            squares = squared_errors_of(output, self.target(name, signal))
            squared_errors[name], by_window[name] = squares.sum(), squares.detach().sum((1, 2))
        counted_tokens = signal.shape[0] * (self.config.compat_pad_to or num_tokens)
        sizes = {"commitment": self.config.codebook_dim, "raw": POINTS, "frequency": NUM_BINS}
        return TokenizerOutput(
            features=features[:, :num_tokens],
            latents=latents[:, :num_tokens],
            codes=quantized.codes[:, :num_tokens],
            squared_errors=squared_errors,
            by_window=by_window,
            counts={name: counted_tokens * sizes[name] for name in squared_errors},
        )

    @torch.no_grad()
    def start_decoders(self, signals: Iterable[Float[Tensor, "batch tokens points"]]) -> None:
        """With ``decoder_start`` mean: let every decoder start from the mean target of these windows."""
        if self.config.decoder_start == "zero":
            return
        groups = list(signals)
        for name in self.decoders:
            targets = torch.cat([self.target(name, signal).flatten(0, 1) for signal in groups])
            self.decoders.get_parameter(f"{name}.head.2.bias").copy_(targets.mean(0))

    def target(self, name: str, signal: Float[Tensor, "batch tokens points"]) -> Float[Tensor, "batch tokens outputs"]:
        """What the decoder ``name`` should give for these windows."""
        if not signal.numel():  # neither deviations nor transforms exist of nothing
            return signal.new_zeros(*signal.shape[:-1], POINTS if name == "raw" else NUM_BINS)
        return raw_target(signal) if name == "raw" else frequency_target(signal, self.config.amplitude)

    def token_weights(self, signal: Tensor) -> Tensor | None:
        """With virtual padding: 1 for each token of a window, then the number of padding tokens."""
        num_tokens, pad_to = signal.shape[1], self.config.compat_pad_to
        if pad_to is None or num_tokens == pad_to:
            return None
        if num_tokens > pad_to:
            raise UserError(f"a window of {num_tokens} tokens is longer than compat_pad_to = {pad_to}")
        weights = signal.new_ones(num_tokens + 1)
        weights[-1] = pad_to - num_tokens
        return weights


def _transformer_config(config: NeuralTokenizerConfig, num_layers: int) -> TransformerConfig:
    return TransformerConfig(hidden_size=config.hidden_size, num_layers=num_layers, num_heads=config.num_heads)


def _leave_out_decoders(module: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a model without decoders load the weights of a whole tokenizer; every other key must match."""
    for key in [key for key in weights if key.startswith(f"{prefix}decoders.")]:
        del weights[key]
