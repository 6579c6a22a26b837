from pathlib import Path

import pytest

from neurolm.baselines.settings import BASELINES
from neurolm.config import ConfigError
from tests.baselines.toy import toy_run


def test_one_system_may_be_trained_otherwise(tmp_path: Path) -> None:
    changes = {"labram": {"epochs": 3, "optimizer.learning_rate": 1e-4}, "biot": {"optimizer": {"beta2": 0.9}}}
    run = toy_run(tmp_path, training_of=changes)
    labram = run.training_for("labram")
    assert (labram.epochs, labram.optimizer.learning_rate, labram.optimizer.beta2) == (3, 1e-4, 0.999)
    assert run.training_for("biot").optimizer.beta2 == 0.9
    assert run.training_for("biot").optimizer.learning_rate == 2e-3  # a section adds, it does not replace
    assert all(run.training_for(name) == run.training for name in BASELINES if name not in changes)


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training_of\.labram: .*no such setting; did you mean"):
        toy_run(tmp_path, training_of={"labram": {"optimizer.learnin_rate": 1e-4}})
    with pytest.raises(ConfigError, match="eegnett"):
        toy_run(tmp_path, baselines=["eegnett"])
    with pytest.raises(ConfigError, match="at least 1 item"):
        toy_run(tmp_path, baselines=[])
