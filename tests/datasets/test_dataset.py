import re

import pytest

from neurolm.datasets import LAYOUTS
from neurolm.datasets.dataset import EEGDataset
from neurolm.eeg.channels import channel_index


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_data_set_declares_its_facts(name: str) -> None:
    data_set: EEGDataset = LAYOUTS[name]
    assert data_set.name == name
    assert data_set.mains_hz in (50, 60)
    indices = [channel_index(channel) for channel in data_set.channels]
    assert len(set(indices)) == len(indices)
    assert len(set(data_set.labels)) == len(data_set.labels)
    assert data_set.url.startswith(("https://", "http://"))
    assert data_set.licence
    assert data_set.citation
    assert re.compile(data_set.published_name).fullmatch("Musterfrau.edf") is None
    assert data_set.paper_counts is None or min(data_set.paper_counts) > 0
