"""A small model in which everything is there that makes a training state hard to keep."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurolm.training.optimizer import OptimizerConfig
from neurolm.training.stage import Stage

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, min_learning_rate=1e-3, weight_decay=0.1, epsilon=1e-4)
TOTAL_STEPS = 20
BATCH_SIZE = 8


class OddModel(Stage):
    """Odd sizes, a tied weight, a frozen module, buffers of several dtypes, a weight that never gets a gradient."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.frozen = nn.Linear(5, 7).requires_grad_(False)
        self.inner = nn.Linear(7, 13)
        self.norm = nn.LayerNorm(13)
        self.unused = nn.Linear(3, 11)
        self.table = nn.Embedding(17, 13)
        self.head = nn.Linear(13, 17, bias=False)
        self.head.weight = self.table.weight
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.register_buffer("codebook", torch.randn(3, 5))
        self.register_buffer("updates", torch.tensor(seed))
        self.register_buffer("flag", torch.tensor(seed == 0))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, signal: Tensor, ids: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The share in the mean loss of some of a batch's windows."""
        dtype = self.inner.weight.dtype
        hidden = self.norm(F.gelu(self.inner(self.frozen(signal.to(dtype) + self.codebook[0].to(dtype)))))
        logits = self.head(hidden + self.table(ids)) * self.scale
        return {"loss": F.cross_entropy(logits.float(), targets, reduction="sum") / BATCH_SIZE}


def batch(step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """A worker's windows of a step: signals [windows 5], ids and targets [windows]."""
    generator = torch.Generator().manual_seed(step)
    ids, targets = torch.randint(0, 17, (2, BATCH_SIZE), generator=generator)
    mine = slice(rank, None, world_size)
    return torch.randn(BATCH_SIZE, 5, generator=generator)[mine], ids[mine], targets[mine]
