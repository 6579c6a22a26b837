"""The frozen encoder runs once: windows get EEG tokens that are kept, and kept tokens know whose they are.

Encoding is in float32 whatever ``precision`` a run trains in; only what is kept may be rounded to bfloat16.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from neurolm.config import UserError, as_dict, digest
from neurolm.eeg.shards import StoredWindow
from neurolm.eeg.token_shards import TokenOrigin
from neurolm.eeg.token_store import TokenStore, refuse_other_origin
from neurolm.eeg.tokens import StoredTokens, TokenDtype
from neurolm.models.neural_tokenizer import NeuralTokenizer
from neurolm.sequences import collate

DECIDING = ("encoder.", "latent_head.", "standardisation.", "quantizer.codebook")
"""Beginnings of the names of the weights that decide what the tokens are; decoders do not."""


class EncoderError(UserError):
    """A tokenizer whose tokens cannot be kept."""


@torch.inference_mode()
def encode_windows(
    tokenizer: NeuralTokenizer, windows: Sequence[StoredWindow], dtype: TokenDtype, batch_size: int = 64
) -> list[StoredWindow]:
    """The windows with EEG tokens in place of signals, in the order given.

    Raises:
        WindowError: a window is not whole seconds.
        EncoderError: the codebook has more rows than 16 bits can count.
    """
    if tokenizer.config.codebook_size > np.iinfo(np.uint16).max + 1:
        raise EncoderError(f"codebook_size {tokenizer.config.codebook_size}: codes are kept in 16 bits, up to 65536")
    device = next(tokenizer.parameters()).device
    encoded = list(windows)
    for start in range(0, len(windows), batch_size):
        part = windows[start : start + batch_size]
        for group in collate(part, np.arange(start, start + len(part)), text=None, tasks=None).groups:
            moved = group.to(device)
            features = tokenizer.encode(moved.signal, moved.channel_index, moved.time_indices, moved.num_channels)
            codes = tokenizer.codes(features).cpu().numpy().astype(np.uint16)
            kept = _as_stored(features.cpu(), dtype)
            for row, place in enumerate(group.position.tolist()):
                window = windows[place]
                tokens = StoredTokens(kept[row], codes[row])
                encoded[place] = replace(window, signal=window.signal[:, :0], tokens=tokens)
    return encoded


def token_origin(tokenizer: NeuralTokenizer, data_digest: str, dtype: TokenDtype) -> TokenOrigin:
    """Whose tokens this tokenizer makes of that data; equal for a tokenizer alone and inside a NeuroLM."""
    settings = as_dict(tokenizer.config)
    compat_pad_to = settings.pop("compat_pad_to")
    checksum = hashlib.sha256(digest(settings).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        if name.startswith(DECIDING):
            checksum.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
            checksum.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return TokenOrigin(checksum.hexdigest()[:16], data_digest, compat_pad_to, dtype)


def refuse_other_tokens(store: TokenStore, tokenizer: NeuralTokenizer, data_digest: str, dtype: TokenDtype) -> None:
    """A model may only read what its own encoder would compute.

    Raises:
        TokenMismatch: the tokens are of another tokenizer or data, or in another form.
        EncoderError: the encoder is trained, so that tokens kept before would not be its own after a step.
    """
    if any(parameter.requires_grad for parameter in tokenizer.parameters()):
        raise EncoderError(
            f"{store.path}: data.tokens is {dtype}, but the tokenizer inside the model is not frozen in this run: its "
            "EEG tokens change with every step. Freeze it, or read signals with data.tokens=none"
        )
    refuse_other_origin(store.path, store.manifest.origin, token_origin(tokenizer, data_digest, dtype))


def _as_stored(features: torch.Tensor, dtype: TokenDtype) -> np.ndarray:
    """Features as numpy holds them; bfloat16 is rounded to nearest even by torch."""
    if dtype == "float32":
        return features.numpy()
    return features.to(torch.bfloat16).view(torch.uint16).numpy()
