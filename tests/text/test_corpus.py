from pathlib import Path

import numpy as np
import pytest

from neurolm.text.bpe import gpt2_bpe
from neurolm.text.corpus import CorpusConfig, CorpusError, TextCorpus, package_documents, prose_paragraphs


class Counting:
    """A text of ids that count up, so that a crop shows where it was cut."""

    num_ids, end_of_text = 50257, 50256

    def encode(self, text: str) -> list[int]:
        return list(range(999))


@pytest.fixture
def counting(tmp_path: Path) -> TextCorpus:
    path = tmp_path / "any.txt"
    path.write_text("any")
    corpus = TextCorpus(CorpusConfig(path=path, val_fraction=0.1), Counting())  # type: ignore[arg-type]
    assert len(corpus.ids["train"]) == 900 and len(corpus.ids["val"]) == 100
    return corpus


def test_a_crop_is_a_run_of_ids_with_one_more_to_predict(counting: TextCorpus) -> None:
    batch = counting.batch(step=0, batch_size=50, length=7, seed=0)
    assert batch.shape == (50, 8) and batch.dtype == np.int64
    assert (np.diff(batch, axis=1) == 1).all()


def test_crops_depend_on_seed_and_step_alone(counting: TextCorpus) -> None:
    first = counting.batch(step=5, batch_size=4, length=7, seed=1)
    counting.batch(step=6, batch_size=4, length=7, seed=1)
    assert (counting.batch(step=5, batch_size=4, length=7, seed=1) == first).all()
    assert (counting.batch(step=6, batch_size=4, length=7, seed=1) != first).any()
    assert (counting.batch(step=5, batch_size=4, length=7, seed=2) != first).any()


def test_validation_crops_share_no_id_with_training(counting: TextCorpus) -> None:
    train = counting.batch(step=0, batch_size=20_000, length=7, seed=0)
    val = counting.batch(step=0, batch_size=20_000, length=7, seed=0, split="val")
    assert (train.min(), train.max()) == (0, 899) and (val[:, :-1].min(), val[:, :-1].max(), val.max()) == (
        900,
        998,
        50256,
    )


def test_a_text_shorter_than_a_crop_is_refused(counting: TextCorpus) -> None:
    with pytest.raises(CorpusError, match="val part of the text has 100 ids, fewer than the 101 of one crop"):
        counting.batch(step=0, batch_size=1, length=100, seed=0, split="val")


def test_held_out_crops_follow_one_another_and_their_bytes_are_counted(tmp_path: Path) -> None:
    """Each crop predicts what comes after its first id; together that is one run of ids, read once."""
    path = tmp_path / "mine.txt"
    path.write_text("Ein Tag.<|endoftext|>" * 20 + "Größe und Maß.")
    code = gpt2_bpe()
    corpus = TextCorpus(CorpusConfig(path=path, val_fraction=0.5), code)
    val = corpus.ids["val"].astype(int).tolist()
    crops, num_bytes = corpus.held_out(3, 4)
    assert crops.tolist() == [val[0:5], val[4:9], val[8:13]]
    words = code.decode([one for one in val[1:13] if one != 50256])
    assert num_bytes == len(words.encode())
    everything, all_bytes = corpus.held_out(10**6, 4)
    assert len(everything) == (len(val) - 1) // 4
    assert "Größe" in code.decode(val) and all_bytes > num_bytes
    (short,), _ = corpus.held_out(2, 10**6)
    assert short.tolist() == val


def test_documents_of_a_file_are_each_ended(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Hello world\n<|endoftext|>\nHello world\n")
    ids = TextCorpus(CorpusConfig(path=path), gpt2_bpe()).ids
    assert [*ids["train"], *ids["val"]] == [15496, 995, 50256, 15496, 995, 50256]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such text file"), (b" \n", "no text"), (b"\xff\xfe\xff", "UTF-8")]
)
def test_an_unusable_file_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"mine.txt.*{message}"):
        TextCorpus(CorpusConfig(path=path), gpt2_bpe())


def test_prose_is_sentences_only() -> None:
    source = '''"""Short.

    Every sentence of this paragraph says something about the signal, over a line and a half, and the reader
    :func:`mne.io.read_raw` goes with it, because roles of the markup are resolved to the name that they show.

    axis : int, the axis along which the filter is applied, which is described here at some length.

        >>> This looks like a sentence of sufficient length but it is code in an interactive session.
    """'''
    sentence = (
        "Every sentence of this paragraph says something about the signal, over a line and a half, and the reader "
        "read_raw goes with it, because roles of the markup are resolved to the name that they show."
    )
    assert list(prose_paragraphs(source)) == [sentence]


def test_installed_packages_give_enough_english() -> None:
    documents = package_documents(("sklearn",))
    text = " ".join(documents)
    assert len(text) > 100_000
    assert text.count(" the ") > 2_000  # one word in twenty or so
    assert len(gpt2_bpe().encode(text)) < len(text) / 4  # GPT-2 knows the language


def test_a_missing_package_is_named() -> None:
    with pytest.raises(CorpusError, match="no_such_prose is not installed"):
        package_documents(("no_such_prose",))
