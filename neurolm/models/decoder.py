"""Decoders of the neural tokenizer: from a window's codes to what is reconstructed of each token."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neurolm.models.covariance import NUM_BANDS
from neurolm.models.neural_tokenizer_config import NeuralTokenizerConfig
from neurolm.models.place_embedding import NUM_CHANNEL_ROWS, PlaceEmbedding
from neurolm.models.transformer import Transformer, initialise_linear


class Decoder(nn.Module):
    """Codebook rows to one reconstructed target of so many values a token."""

    def __init__(self, config: NeuralTokenizerConfig, output_size: int) -> None:
        super().__init__()
        hidden_size = config.hidden_size
        self.linear = nn.Linear(config.codebook_dim, hidden_size)
        self.place = PlaceEmbedding(hidden_size, config.embedding_init_std)
        self.transformer = Transformer(config.transformer(config.decoder_layers))
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.head = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, output_size))
        initialise_linear(self.linear)
        self.head.apply(initialise_linear)

    def forward(
        self,
        latents: Float[Tensor, "batch tokens latent"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
        num_channels: int | None = None,
    ) -> Float[Tensor, "batch tokens outputs"]:
        """Reconstruct each token from the whole window's codes."""
        x = self.linear(latents) + self.place(channel_index, time_index)
        output: Tensor = self.head(self.norm(self.transformer(x)))
        return output

    @torch.no_grad()
    def start(self, targets: Sequence[Float[Tensor, "batch tokens outputs"]]) -> None:
        """Start from the mean of these targets, as far as all windows have the same ones."""
        bias = self.get_parameter("head.2.bias")
        size = min([len(bias), *(target.shape[-1] for target in targets)])
        bias[:size] = torch.cat([target[..., :size].flatten(0, 1) for target in targets]).mean(0)


class CovarianceDecoder(Decoder):
    """Codebook rows to rows of log-covariance matrices, of whatever channels the window has."""

    def __init__(self, config: NeuralTokenizerConfig) -> None:
        super().__init__(config, NUM_BANDS * (1 + NUM_CHANNEL_ROWS))

    def forward(
        self,
        latents: Float[Tensor, "batch tokens latent"],
        channel_index: Int[Tensor, "... tokens"],
        time_index: Int[Tensor, "... tokens"],
        num_channels: int | None = None,
    ) -> Float[Tensor, "batch tokens outputs"]:
        """By band the variance, then the coupling with each channel of the window."""
        whole = super().forward(latents, channel_index, time_index)
        variance, coupling = whole.split([NUM_BANDS, NUM_BANDS * NUM_CHANNEL_ROWS], dim=-1)
        channels = channel_index[..., :num_channels]
        by_band = coupling.unflatten(-1, (NUM_BANDS, NUM_CHANNEL_ROWS))
        places = channels.expand(len(whole), -1)[:, None, None].expand(*by_band.shape[:-1], -1)
        return torch.cat([variance, by_band.gather(-1, places).flatten(2)], dim=-1)

    @torch.no_grad()
    def start(self, targets: Sequence[Float[Tensor, "batch tokens outputs"]]) -> None:
        """Start from the mean variance of each band."""
        super().start([target[..., :NUM_BANDS] for target in targets])
