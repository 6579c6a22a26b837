from pathlib import Path

import pytest

from neurolm.datasets import LAYOUTS, PRETRAINING
from neurolm.datasets.assignment import assign, straddling_subjects
from neurolm.datasets.dataset import DataSetError
from neurolm.datasets.splits import SplitConfig, SplitError
from neurolm.eeg.channels import channel_index
from neurolm.eeg.preprocessing import PreprocessingConfig, preprocess
from neurolm.text.instructions import TASKS
from tests.datasets.miniatures import MINIATURES


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_miniature_in_the_real_layout(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    expected = MINIATURES[name](tmp_path)
    sources = layout.find(tmp_path)

    assert len(sources) == len({source.recording for source in sources}) == expected.recordings
    assert sorted({source.subject for source in sources}) == expected.subjects
    assert [source.path for source in sources] == sorted(source.path for source in sources)

    first = next(source for source in sources if not source.path.is_symlink())
    recording = layout.read(first)
    assert layout.sampling_rate_hz in (None, recording.sampling_rate_hz)
    prepared = preprocess(recording, PreprocessingConfig(), layout.mains_hz)
    windows, dropped = layout.windows(first, prepared)
    assert [window.label for window in windows] == expected.labels
    assert dict(dropped) == expected.dropped
    indices = tuple(channel_index(channel) for channel in layout.channels)
    for window in windows:
        assert window.signal.shape == (expected.num_channels or len(indices), expected.window_s * 200)
        assert window.channel_indices == indices or expected.num_channels
        assert 1 < window.signal.std() < 30  # µV, whatever the file's unit is

    for rule, published in (("paper", layout.paper_split), ("released", layout.released_split)):
        try:
            assignment = published(sources)
        except SplitError as error:
            assert name in str(error)
            continue
        assert {source.path for source, _ in assignment} == {source.path for source in sources}
        assert rule in layout.straddling_rules or not straddling_subjects(assignment)
    assert not straddling_subjects(assign(layout, sources, SplitConfig()))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_another_folder_is_refused_with_the_expected_layout(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    for other in (
        "holiday.edf",
        "notes.csv",
        "clip_1.mat",
        "features/1_20160518.mat",
        "take_1.bdf",
        "session.cnt",
        "x.pkl",
    ):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).touch()
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataSetError) as caught:
            layout.find(folder)
        assert str(folder) in str(caught.value)
        assert layout.title in str(caught.value)
        assert layout.layout in str(caught.value)


def test_labels_are_those_of_the_papers_tasks() -> None:
    for name in ("tuab", "tuev", "tusl", "seed", "hmc", "workload"):
        assert tuple(TASKS[name].answers) == LAYOUTS[TASKS[name].data_set].labels


def test_pretraining_sets_are_unlabelled() -> None:
    assert all(not data_set.labels for data_set in PRETRAINING)
    assert len(PRETRAINING) == 15
