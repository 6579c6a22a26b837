"""What a fresh process has not imported; import-linter checks the source, this checks what really happens."""

import ast
import subprocess
import sys

import pytest

PROGRAM = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(sorted({"ray", "deepspeed", "optuna", "mlflow", "torch"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["neurolm.models.neurolm", "neurolm.training.worker", "neurolm.inference"], ["torch"]),
        (["neurolm.planning.plan", "neurolm.planning.table"], ["torch"]),
        (["neurolm.datasets.ingest", "neurolm.datasets.download", "neurolm.cli"], []),
    ],
)
def test_a_fresh_process_has_imported_no_more_than(modules: list[str], expected: list[str]) -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM, *modules], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [ast.literal_eval(line) for line in result.stdout.splitlines()] == [expected] * len(modules)
