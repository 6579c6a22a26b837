"""Settings of the neural tokenizer."""

from typing import Literal

from pydantic import Field

from neurolm.config import UserError, config
from neurolm.models.transformer import TransformerConfig


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
    reconstruct: Literal["raw", "frequency", "both", "covariance"] = "both"
    """What the decoders reconstruct: the signal, its Fourier amplitudes, both, or the channels' log-covariance."""
    amplitude: Literal["linear", "log"] = "linear"
    """Scale of the Fourier amplitudes that are reconstructed."""
    patch_input: Literal["signal", "covariance"] = "signal"
    """What a patch's vector is computed from: the signal, by temporal convolution, or its second's log-covariance.

    signal, as in the paper. With covariance a patch is told how its channel goes with the others in each band, which
    needs every channel of the second and takes eigenvalues of matrices of that size.
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
        if self.patch_input == "covariance" and (self.compat_pad_to is not None or self.norm == "token"):
            raise UserError(
                "patch_input 'covariance' has no convolution: leave compat_pad_to at null and norm at window"
            )
        if self.reconstruct == "covariance" and self.compat_pad_to is not None:
            raise UserError("compat_pad_to is of published models, which reconstruct no covariance; leave it at null")

    @property
    def targets(self) -> tuple[Literal["raw", "frequency", "covariance"], ...]:
        """Names of the reconstructed targets."""
        return ("frequency", "raw") if self.reconstruct == "both" else (self.reconstruct,)

    def transformer(self, num_layers: int) -> TransformerConfig:
        """Encoder's or decoder's transformer of so many blocks."""
        return TransformerConfig(hidden_size=self.hidden_size, num_layers=num_layers, num_heads=self.num_heads)
