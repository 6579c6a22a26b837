"""The record of a test that kills something."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def kill_report() -> Callable[..., None]:
    """Print what a kill test measured, and append it as a line of JSON to the file that NEUROLM_KILL_REPORT names."""

    def record(case: str, **measured: Any) -> None:
        line = json.dumps({"case": case, "time": round(time.time()), **measured})
        print(f"\n{line}")
        if path := os.environ.get("NEUROLM_KILL_REPORT"):
            with open(path, "a") as file:
                file.write(line + "\n")

    return record
