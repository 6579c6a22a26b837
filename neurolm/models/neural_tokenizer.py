"""The text-aligned neural tokenizer: EEG patches to vectors, vectors to codes, codes back to signal and spectrum.

- encoder: temporal convolution of each patch (or log-covariance of its second), plus embeddings of channel and second,
  a transformer that sees the whole window in both directions, a final layer norm. Its output, the *features*, the
  language model reads;
- latents: two linear layers with tanh, unit length, fp32; the codebook's nearest row is the token's code;
- decoders: one to the signal, one to the Fourier amplitudes (or to the log-covariance), each a smaller transformer.

Stage 1 trains all of it; the later stages need only the encoder and the codes (``with_decoders=False``).
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from neurolm.config import UserError
from neurolm.models.covariance import LogCovariance, covariance_target, log_covariance
from neurolm.models.covariance_embedding import CovarianceEmbedding
from neurolm.models.decoder import CovarianceDecoder, Decoder
from neurolm.models.losses import NUM_BINS, frequency_target, raw_target, squared_errors_of
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.patch_embedding import POINTS, PatchEmbedding
from neurolm.models.place_embedding import PAD_CHANNEL, PlaceEmbedding, channels_of_a_second
from neurolm.models.quantizer import Quantizer
from neurolm.models.standardisation import EPSILON, RunningStandardisation
from neurolm.models.transformer import Transformer, initialise_linear


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

    patch_embedding: PatchEmbedding | CovarianceEmbedding

    def __init__(self, config: NeuralTokenizerConfig) -> None:
        super().__init__()
        if config.patch_input == "covariance":
            self.patch_embedding = CovarianceEmbedding(config.hidden_size)
        else:
            self.patch_embedding = PatchEmbedding(config.hidden_size, config.norm)
            initialise_linear(self.patch_embedding.linear)
        self.place = PlaceEmbedding(config.hidden_size, config.embedding_init_std)
        self.transformer = Transformer(config.transformer(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=1e-6)

    def forward(
        self,
        signal: Float[Tensor, "batch tokens points"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
        weights: Float[Tensor, " padded_tokens"] | None = None,
        num_channels: int | None = None,
        rows: LogCovariance | None = None,
    ) -> Float[Tensor, "batch padded_tokens hidden"]:
        """Encode windows; every token sees its whole window.

        With ``weights`` of one entry more than there are tokens, a zero token is added at the end that stands for the
        released code's padding: it enters the group norms with its weight, sees the window, and is seen by no token.
        Log-covariances need the number of channels of a second; ``rows`` are they where somebody has them already.
        """
        if isinstance(self.patch_embedding, CovarianceEmbedding):
            if rows is None:
                assert num_channels is not None
                rows = log_covariance(signal, num_channels)
            patches = self.patch_embedding(rows, channel_index[..., :num_channels])
            return self._see(patches, channel_index, time_index, None)
        visible = None
        if weights is not None:
            signal = F.pad(signal, (0, 0, 0, 1))
            channel_index = F.pad(channel_index, (0, 1), value=PAD_CHANNEL)
            time_index = F.pad(time_index, (0, 1))
            visible = torch.ones(1, 1, 1, len(weights), dtype=torch.bool, device=signal.device)
            visible[..., -1] = False
        return self._see(self.patch_embedding(signal, weights), channel_index, time_index, visible)

    def _see(
        self, patches: Tensor, channel_index: Tensor, time_index: Tensor, visible: Tensor | None
    ) -> Float[Tensor, "batch padded_tokens hidden"]:
        features: Tensor = self.norm(self.transformer(patches + self.place(channel_index, time_index), visible))
        return features


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
        self.decoders = nn.ModuleDict(
            {name: _decoder(config, name) for name in config.targets} if with_decoders else {}
        )
        if not with_decoders:
            self.register_load_state_dict_pre_hook(_leave_out_decoders)

    def encode(
        self,
        signal: Float[Tensor, "batch tokens points"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
        num_channels: int | None = None,
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Features of each token. ``signal`` is in 100 microvolt, tokens in time-major order.

        ``num_channels``, of a second, is counted in ``time_index`` where it matters and is not given.
        """
        num_channels = self._channels(time_index, num_channels)
        features: Tensor = self.encoder(signal, channel_index, time_index, self.token_weights(signal), num_channels)
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
        num_channels: int | None = None,
    ) -> dict[str, Float[Tensor, "batch tokens outputs"]]:
        """What the decoders make of each token: see `target`."""
        places = channel_index, time_index, self._channels(time_index, num_channels)
        return {name: decoder(latents, *places) for name, decoder in self.decoders.items()}

    def forward(
        self,
        signal: Float[Tensor, "batch tokens points"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
        num_channels: int | None = None,
    ) -> TokenizerOutput:
        """Encode, quantize and reconstruct: the terms of Eq. 3.

        With ``compat_pad_to`` the commitment loss and the codebook's statistics count padding tokens, and sums are
        divided by the padded number of tokens, as in the released code.
        """
        num_tokens, num_channels = signal.shape[1], self._channels(time_index, num_channels)
        weights = self.token_weights(signal)
        rows = log_covariance(signal, num_channels) if num_channels is not None and self._needs_covariance else None
        features = self.encoder(signal, channel_index, time_index, weights, num_channels, rows)
        latents = self.latents(features)
        quantized = self.quantizer(latents, weights)
        commitment = quantized.squared_error if weights is None else quantized.squared_error * weights[:, None]

        squared_errors, by_window = {"commitment": commitment.sum()}, {}
        reconstructed = self.reconstruct(quantized.latents[:, :num_tokens], channel_index, time_index, num_channels)
        sizes = {"commitment": self.config.codebook_dim}
        for name, output in reconstructed.items():
            squares = squared_errors_of(output, self.target(name, signal, num_channels, rows))
            squared_errors[name], by_window[name] = squares.sum(), squares.detach().sum((1, 2))
            sizes[name] = output.shape[-1]
        counted_tokens = signal.shape[0] * (self.config.compat_pad_to or num_tokens)
        return TokenizerOutput(
            features=features[:, :num_tokens],
            latents=latents[:, :num_tokens],
            codes=quantized.codes[:, :num_tokens],
            squared_errors=squared_errors,
            by_window=by_window,
            counts={name: counted_tokens * sizes[name] for name in squared_errors},
        )

    def start_decoders(self, signals: Iterable[tuple[Float[Tensor, "batch tokens points"], int]]) -> None:
        """With ``decoder_start`` mean: let every decoder start from the mean target of windows of so many channels."""
        if self.config.decoder_start == "zero":
            return
        groups = list(signals)
        for name, decoder in self.decoders.items():
            decoder.start([self.target(name, *group) for group in groups])  # type: ignore[operator]

    def target(
        self,
        name: str,
        signal: Float[Tensor, "batch tokens points"],
        num_channels: int | None = None,
        rows: LogCovariance | None = None,
    ) -> Float[Tensor, "batch tokens outputs"]:
        """What the decoder ``name`` should give for these windows.

        Standardised signal (``raw``), Fourier amplitudes (``frequency``) or log-covariance (``covariance``), whose
        ``rows`` are counted unless they are given.
        """
        if name == "covariance":
            if rows is None:
                assert num_channels is not None
                rows = log_covariance(signal, num_channels)
            return covariance_target(rows)
        if not signal.numel():  # neither deviations nor transforms exist of nothing
            return signal.new_zeros(*signal.shape[:-1], POINTS if name == "raw" else NUM_BINS)
        return raw_target(signal) if name == "raw" else frequency_target(signal, self.config.amplitude)

    @property
    def _needs_covariance(self) -> bool:
        return "covariance" in (self.config.patch_input, self.config.reconstruct)

    def _channels(self, time_index: Tensor, num_channels: int | None) -> int | None:
        """Channels of a second, if they matter; where they are not given a GPU is waited for."""
        if num_channels is None and self._needs_covariance:
            return channels_of_a_second(time_index)
        return num_channels

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


def _decoder(config: NeuralTokenizerConfig, name: str) -> Decoder:
    if name == "covariance":
        return CovarianceDecoder(config)
    return Decoder(config, {"raw": POINTS, "frequency": NUM_BINS}[name])


def _leave_out_decoders(module: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a model without decoders load the weights of a whole tokenizer; every other key must match."""
    for key in [key for key in weights if key.startswith(f"{prefix}decoders.")]:
        del weights[key]
