"""One line for each recorded array set at the end of the run: the largest error that any of its tests met."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.golden.recorded import Golden

VALUES, GRADIENTS = 1e-5, 1e-4
"""Largest relative errors |ours - theirs| / |theirs|: of values, and of gradients and several steps."""


class Parity:
    """Compares and remembers."""

    def __init__(self) -> None:
        self.worst: dict[str, tuple[float, str]] = {}
        self.identical: dict[str, int] = {}

    def close(self, array_set: str, name: str, ours: object, theirs: object, limit: float = VALUES) -> None:
        """Numbers: the norm of the difference, relative to the norm of what was recorded."""
        found, expected = (torch.as_tensor(one, dtype=torch.double).detach() for one in (ours, theirs))
        assert found.shape == expected.shape, f"{name}: {tuple(found.shape)}, recorded {tuple(expected.shape)}"
        size = float(expected.norm())
        error = float((found - expected).norm()) / (size or 1.0)
        self.worst[array_set] = max(self.worst.get(array_set, (0.0, name)), (error, name))
        assert error <= limit, f"{array_set} {name}: relative error {error:.2e} is more than {limit:g}"

    def same(self, array_set: str, name: str, ours: object, theirs: object) -> None:
        """Codes, ids, masks, names: equal or wrong."""
        equal = torch.equal(ours, theirs) if isinstance(ours, Tensor) and isinstance(theirs, Tensor) else ours == theirs
        self.identical[array_set] = self.identical.get(array_set, 0) + 1
        assert equal, f"{array_set} {name}: found {ours}, recorded {theirs}"

    def lines(self) -> Iterator[str]:
        """The table."""
        for array_set in sorted(self.worst.keys() | self.identical.keys()):
            error, name = self.worst.get(array_set, (None, ""))
            largest = "" if error is None else f"largest relative error {error:.1e} ({name})"
            same = self.identical.get(array_set, 0)
            yield f"{array_set:24}" + "; ".join(part for part in (largest, f"{same} identical" if same else "") if part)


PARITY = Parity()


@pytest.fixture
def parity() -> Parity:
    return PARITY


@pytest.fixture(scope="session")
def released(golden: Path) -> Golden:
    return Golden(golden)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(PARITY.lines())
    if lines:
        terminalreporter.section("parity with the released code")
        for line in lines:
            terminalreporter.write_line(line)
