"""Where and when a token is: learned embeddings of channel and second."""

from jaxtyping import Float, Int
from torch import Tensor, nn

NUM_CHANNEL_ROWS = 256
"""Rows of a channel embedding; the vocabulary of channels uses the first 139."""
PAD_CHANNEL = 136
"""Row of the channel embedding that the released code gives to padding."""
NUM_SECONDS = 64
"""Rows of the time embedding: the longest window in seconds."""


class PlaceEmbedding(nn.Module):
    """The sum of learned embeddings of channel and second, which start with deviation ``init_std``."""

    def __init__(self, hidden_size: int, init_std: float) -> None:
        super().__init__()
        self.channel = nn.Embedding(NUM_CHANNEL_ROWS, hidden_size)
        self.time = nn.Embedding(NUM_SECONDS, hidden_size)
        for table in (self.channel, self.time):
            nn.init.normal_(table.weight, std=init_std)

    def forward(
        self, channel_index: Int[Tensor, "*any"], time_index: Int[Tensor, "*any"]
    ) -> Float[Tensor, "*any hidden"]:
        """Where and when each token is."""
        where: Tensor = self.channel(channel_index)
        return where + self.time(time_index)


def channels_of_a_second(time_index: Int[Tensor, "... tokens"]) -> int:
    """How many tokens share the first one's second; all seconds have the same channels."""
    first = time_index.reshape(-1, time_index.shape[-1])[0]
    return int((first == first[0]).sum())
