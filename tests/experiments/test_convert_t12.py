from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from experiments.convert_t12 import convert, main, read_mat
from modessm_jax.data.recordings import read_recordings
from modessm_jax.data.validation import DataError
from modessm_jax.language.pronunciations import Pronunciations

SENTENCES = ["The cat sat.", "They 'll go?", "A dog", "What now"]
BLOCKS = [3, 3, 5, 5]
DAY = "t12.2022.05.05"


@pytest.fixture(scope="module")
def pronunciations() -> Pronunciations:
    return Pronunciations()


def cells(arrays: list[np.ndarray]) -> np.ndarray:
    """A MATLAB cell array, which is one row of objects."""
    cell = np.empty((1, len(arrays)), object)
    for number, array in enumerate(arrays):
        cell[0, number] = array
    return cell


def fields(sentences: list[str] = SENTENCES) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    lengths = [20 + number for number in range(len(sentences))]
    counts = [random.poisson(2.0, (bins, 256)).astype(np.float64) for bins in lengths]
    return {
        "tx1": cells(counts),
        "tx2": cells([count // 2 for count in counts]),
        "spikePow": cells([random.gamma(2.0, 30.0, (bins, 256)) for bins in lengths]),
        "sentenceText": np.array(sentences),
        "blockIdx": np.array(BLOCKS[: len(sentences)], np.uint8)[:, None],
    }


def save(source: Path, folder: str, content: dict[str, np.ndarray], day: str = DAY) -> Path:
    (source / folder).mkdir(parents=True, exist_ok=True)
    file = source / folder / f"{day}.mat"
    scipy.io.savemat(file, content)
    return file


@pytest.fixture
def source(tmp_path) -> Path:
    source = tmp_path / "competitionData"
    save(source, "train", fields())
    save(source, "train", fields(), "t12.2022.04.28")
    save(source, "test", fields(["See the snow", "Yes"]))
    save(source, "competitionHoldOut", fields(["", "", ""]))
    return source


def test_conversion_gives_trials_of_the_one_layout(source, tmp_path, pronunciations):
    counts = convert(source, tmp_path / "out", pronunciations)
    assert counts == {"train": 8, "val": 2, "test": 3}
    train = read_recordings(tmp_path / "out", "train")
    assert train.channels == 256
    assert train.sessions == ("t12.2022.04.28", DAY)
    assert [trial.name for trial in train.trials[4:]] == [
        f"{DAY}/block 3/trial 0",
        f"{DAY}/block 3/trial 1",
        f"{DAY}/block 5/trial 0",
        f"{DAY}/block 5/trial 1",
    ]
    assert train.trials[5].sentence == "they'll go"
    labels = train.trials[5].labels
    assert labels is not None
    assert labels.tolist() == pronunciations.ids("they'll go").tolist()
    assert train.bins.tolist() == [20, 21, 22, 23] * 2
    assert not train.repaired
    val, test = (read_recordings(tmp_path / "out", split) for split in ("val", "test"))
    assert [trial.sentence for trial in val.trials] == ["see the snow", "yes"]
    assert not test.labelled
    assert test.sessions == train.sessions
    assert not list(tmp_path.rglob("*.partial"))


def test_features_are_area_6v_of_both_kinds_in_logarithms(source):
    content = fields()
    utterances = read_mat(source / "train" / f"{DAY}.mat", labelled=True, zscore=False)
    for number, utterance in enumerate(utterances):
        np.testing.assert_allclose(
            utterance.features,
            np.hstack(
                [
                    np.log1p(content["tx1"][0, number][:, :128]),
                    np.log(content["spikePow"][0, number][:, :128]),
                ]
            ),
        )
    plain = read_mat(source / "train" / f"{DAY}.mat", labelled=True, log=False, zscore=False)
    np.testing.assert_array_equal(plain[2].features[:, :128], content["tx1"][0, 2][:, :128])
    np.testing.assert_array_equal(plain[2].features[:, 128:], content["spikePow"][0, 2][:, :128])


def test_each_block_has_mean_zero_and_deviation_one(source):
    utterances = read_mat(source / "train" / f"{DAY}.mat", labelled=True)
    for block in (3, 5):
        whole = np.concatenate([one.features for one in utterances if one.block == block])
        np.testing.assert_allclose(whole.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(whole.std(axis=0), 1)


def test_a_constant_channel_is_zero_and_power_without_logarithm_is_repaired(
    tmp_path, pronunciations
):
    content = fields()
    for number in (0, 1):
        content["tx1"][0, number][:, 7] = 3.0
    content["spikePow"][0, 0][4, 9] = 0.0
    save(tmp_path / "mat", "train", content)
    convert(tmp_path / "mat", tmp_path / "out", pronunciations)
    train = read_recordings(tmp_path / "out", "train")
    assert not train.features(0)[:, 7].any()
    assert train.features(0)[4, 128 + 9] == 0
    (repaired,) = train.repaired
    assert repaired.trial == f"{DAY}/block 3/trial 0"
    assert repaired.reason == "1 dead and 1 non-finite channels of 256"
    others = np.delete(train.features(0)[:, 128 + 9], 4)
    assert np.isfinite(others).all()
    assert others.all()


def test_words_without_pronunciation_are_listed_and_can_be_left_out_of_training(
    source, tmp_path, pronunciations
):
    save(source, "train", fields(["The snark sat", "They go", "A boojum", "What now"]))
    with pytest.raises(DataError) as caught:
        convert(source, tmp_path / "out", pronunciations)
    message = str(caught.value)
    assert message.startswith(f"{source}, train, sentenceText: 2 words")
    assert "boojum, snark" in message
    assert not (tmp_path / "out").exists()
    counts = convert(source, tmp_path / "out", pronunciations, exclude_unknown=True)
    assert counts == {"train": 6, "val": 2, "test": 3}
    train = read_recordings(tmp_path / "out", "train", sessions=(DAY,))
    assert [(trial.block, trial.number) for trial in train.trials] == [(3, 1), (5, 1)]
    save(source, "test", fields(["A snark"]))
    with pytest.raises(DataError, match="1 words have no known pronunciation: snark"):
        convert(source, tmp_path / "out", pronunciations, exclude_unknown=True)


def test_a_session_without_a_trial_left_has_no_file(source, tmp_path, pronunciations, caplog):
    convert(source, tmp_path / "out", pronunciations)
    save(source, "train", fields(["A snark", "The boojum"]))
    counts = convert(source, tmp_path / "out", pronunciations, exclude_unknown=True)
    assert counts["train"] == 4  # of the other day
    assert not (tmp_path / "out" / DAY / "data_train.hdf5").exists()
    assert f"{DAY}/data_train.hdf5, no trial is left" in caplog.text
    assert len(read_recordings(tmp_path / "out", "train")) == 4


def test_a_sentence_of_no_words_is_named(source, pronunciations, tmp_path):
    save(source, "train", fields(["A dog", "!?"]))
    with pytest.raises(DataError, match=r"sentenceText: of sentence 1 .* holds no words"):
        convert(source, tmp_path / "out", pronunciations)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("tx1", None, "the variable is missing"),
        ("spikePow", None, "the variable is missing"),
        ("sentenceText", None, "the variable is missing"),
        ("blockIdx", None, "the variable is missing"),
        ("tx1", np.zeros((4, 5)), "not a cell array"),
        ("spikePow", cells([np.zeros((20, 256))]), "has 1 entries, but tx1 has 4 sentences"),
        ("blockIdx", np.ones((5, 1)), "has 5 entries, but tx1 has 4"),
        ("blockIdx", np.array(["a"]), "not of numbers"),
        ("sentenceText", np.array(["a", "b"]), "has 2 entries"),
        ("sentenceText", np.ones(4), "not of text"),
        ("tx1", cells([np.zeros((20, 64))] * 4), "not numbers [bins, 256]"),
        ("tx1", cells([np.zeros((20, 256))] * 4), "has 21 bins, but tx1 has 20"),
    ],
)
def test_errors_name_the_file_and_field(tmp_path, field, value, words):
    content = fields()
    del content[field]
    if value is not None:
        content[field] = value
    file = save(tmp_path, "train", content)
    with pytest.raises(DataError) as caught:
        read_mat(file, labelled=True)
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)
    assert ("spikePow" if "21 bins" in words else field) in str(caught.value)


@pytest.mark.parametrize("kept", [0, 60, 5000])
def test_truncated_files_are_named(source, kept):
    file = source / "train" / f"{DAY}.mat"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DataError) as caught:
        read_mat(file, labelled=True)
    assert str(caught.value).startswith(f"{file}: cannot be read as a MATLAB file, it ")
    assert ("it is empty" in str(caught.value)) == (kept == 0)


def test_a_file_of_version_7_3_is_named(source):
    file = source / "train" / f"{DAY}.mat"
    with h5py.File(file, "w", userblock_size=512) as handle:
        handle["tx1"] = np.zeros(3)
    data = bytearray(file.read_bytes())
    data[:128] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"of version 7\.3.*with -v7") as caught:
        read_mat(file, labelled=True)
    assert "truncated" not in str(caught.value)
    file.write_bytes(b"<!DOCTYPE html><html></html>")
    with pytest.raises(DataError, match="it is a web page"):
        read_mat(file, labelled=True)


@pytest.mark.parametrize("block", [np.nan, np.inf, -1, 2.5, 2**31])
@pytest.mark.parametrize("folder", ["train", "test", "competitionHoldOut"])
def test_a_block_that_is_no_number_is_refused_before_anything_is_written(
    source, tmp_path, pronunciations, block, folder
):
    content = fields(["See the snow", "Yes"])
    content["blockIdx"] = np.array([[3.0], [block]])
    file = save(source, folder, content, "t12.2023.01.01")
    with pytest.raises(
        DataError, match=r"blockIdx: is .* for sentence 1 \(from 0\), not a whole number"
    ) as c:
        convert(source, tmp_path / "out", pronunciations)
    assert str(c.value).startswith(str(file))
    assert not (tmp_path / "out").exists()


def test_what_our_own_reader_would_refuse_is_not_written(source, tmp_path, pronunciations):
    content = fields(["Yes", "This is far too long a sentence for so very few bins of it"])
    file = save(source, "test", content)
    with pytest.raises(DataError, match="more labels than n_time_steps = 21 frames") as caught:
        convert(source, tmp_path / "out", pronunciations)
    assert str(caught.value).startswith(f"{file}: ")
    assert not (tmp_path / "out" / DAY / "data_val.hdf5").exists()


def test_typographic_sentences_keep_their_words(source, tmp_path, pronunciations):
    save(source, "test", fields(["We\u2019re here\u2014now.", "Yes\tno"]))
    convert(source, tmp_path / "out", pronunciations)
    val = read_recordings(tmp_path / "out", "val")
    assert [trial.sentence for trial in val.trials] == ["we're here now", "yes no"]
    save(source, "test", fields(["Room 360", "Yes"]))
    with pytest.raises(DataError, match="1 words have no known pronunciation: 360"):
        convert(source, tmp_path / "out", pronunciations)


@pytest.mark.parametrize("given", ["..", "train"])
def test_a_folder_too_high_or_too_low_is_recognised(source, tmp_path, pronunciations, given):
    with pytest.raises(
        DataError, match=r"holds no \.mat file in train.* Give .*/competitionData\.$"
    ):
        convert((source / given).resolve(), tmp_path / "out", pronunciations)


def test_a_folder_without_recordings_says_where_they_are(tmp_path, pronunciations):
    with pytest.raises(DataError, match=r"10\.5061/dryad\.x69p8czpq"):
        convert(tmp_path / "gone", tmp_path / "out", pronunciations)


def test_the_command_converts_and_reports(source, tmp_path, capsys):
    (tmp_path / "own.txt").write_text("cat K AE1 T\n")
    added = ["--additions", str(tmp_path / "own.txt")]  # as `language_model lexicon` calls them
    main(["--mat", str(source), "--out", str(tmp_path / "out"), *added])
    assert capsys.readouterr().out == "train: 8 sentences\nval: 2 sentences\ntest: 3 sentences\n"
    with pytest.raises(SystemExit, match=r"holds no \.mat file"):
        main(["--mat", str(tmp_path / "out"), "--out", str(tmp_path / "out")])
