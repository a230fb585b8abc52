"""Files for the benchmarks: what is written passes the check, and every fault is caught."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from experiments.submit import main
from modessm_jax.data.hdf5 import write_trial
from modessm_jax.data.recordings import list_trials
from modessm_jax.data.validation import DataError
from modessm_jax.words.nbest import read_texts, write_texts
from modessm_jax.words.submission import check_submission, write_submission

WORDS = ("i", "can't", "well-known", "you", "see", "the", "time", "of", "day", "go")


def simulate(root: Path, sessions: int, trials: int) -> None:
    """A test split in the shape of T15: trials shared out to sessions, each in blocks of 20."""
    counts = [len(part) for part in np.array_split(np.arange(trials), sessions)]
    features = np.zeros((3, 1), np.float32)
    for day, count in enumerate(counts):
        session = f"t15.2023.{1 + day // 28:02d}.{1 + day % 28:02d}"
        (root / session).mkdir(parents=True)
        with h5py.File(root / session / "data_test.hdf5", "w") as file:
            for n in range(count):
                write_trial(file, session, 1 + n // 20, n % 20, features, None, None)


def sentences(index) -> dict:
    """A different sentence for each trial, in another order than the index."""
    random = np.random.default_rng(0)
    texts = {}
    for number in random.permutation(len(index)):
        digits = [WORDS[int(digit)] for digit in f"{number:04d}"]
        texts[index[number]] = " ".join(digits)
    return texts


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    simulate(folder, sessions=4, trials=90)
    return folder


@pytest.fixture(scope="module")
def index(root):
    return list(list_trials(root, "test"))


def round_trip(root: Path, folder: Path, trials: int, sessions: int) -> None:
    """From JSON lines through both files, by the command, back to every trial's sentence."""
    index = list(list_trials(root, "test"))
    assert len(index) == trials and len({session for session, _, _ in index}) == sessions
    texts = sentences(index)
    write_texts(folder / "test.jsonl", texts)
    for name in ("submission.csv", "submission.txt"):
        file = folder / name
        given = ["--data_root", str(root), "--hypotheses", str(folder / "test.jsonl")]
        main([*given, "--out", str(file)])
        assert check_submission(file, index, texts) == []
        lines = file.read_text("ascii").splitlines()
        if name.endswith("csv"):
            assert lines.pop(0) == "id,text"
            ids, lines = zip(*(line.split(",") for line in lines), strict=True)
            assert list(ids) == [str(number) for number in range(trials)]
        assert dict(zip(index, lines, strict=True)) == read_texts(folder / "test.jsonl")


def test_round_trip(root, tmp_path):
    round_trip(root, tmp_path, trials=90, sessions=4)


@pytest.mark.slow
def test_round_trip_in_the_shape_of_t15(tmp_path):
    simulate(tmp_path / "data", sessions=41, trials=1450)
    round_trip(tmp_path / "data", tmp_path, trials=1450, sessions=41)


def test_sentences_are_normalised(index, tmp_path):
    texts = sentences(index)
    texts[index[7]] = "  Well, that's FINE!"
    write_submission(tmp_path / "s.csv", index, texts)
    assert (tmp_path / "s.csv").read_text().splitlines()[8] == "7,well that's fine"


def change(texts, key, sentence):
    return {**texts, key: sentence}


def leave_out(texts, keys):
    return {key: text for key, text in texts.items() if key not in keys}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t, i: leave_out(t, i[4:5]), r"no sentence for \S+01/block 1/trial 4\. Decode"),
        (lambda t, i: leave_out(t, i[4:14]), r"trial 8 and 5 more trials\. Decode again"),
        (lambda t, i: change(t, ("x", 1, 2), "so"), "x/block 1/trial 2, which the split does not"),
        (lambda t, i: change(t, i[4], "?!"), r"empty for \S+01/block 1/trial 4, which a bench"),
    ],
    ids=["missing", "many missing", "of no trial", "empty"],
)
def test_nothing_is_written_unless_every_trial_has_its_sentence(index, tmp_path, spoil, words):
    with pytest.raises(DataError, match=words):
        write_submission(tmp_path / "s.csv", index, spoil(sentences(index), index))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sound(index, tmp_path_factory) -> list[str]:
    file = tmp_path_factory.mktemp("sound") / "sound.csv"
    write_submission(file, index, sentences(index))
    return file.read_text("ascii").splitlines()


def without(lines, line):
    return lines[: line - 1] + lines[line:]


def replaced(lines, line, *by):
    return [*lines[: line - 1], *by, *lines[line:]]


# The fault, and of every problem reported its line and a part of its words. Id 4 is in line 6.
FAULTS = {
    "missing": (
        lambda s: without(s, 6),
        [(6, "id 4 (t15.2023.01.01/block 1/trial 4) is missing. Decode again")],
    ),
    "missing at the end": (lambda s: s[:-1], [(91, "id 89 ")]),
    "doubled": (
        lambda s: replaced(s, 6, s[5], s[5]),
        [(7, "id 4 (t15.2023.01.01/block 1/trial 4) is doubled: it stands in line 6 already")],
    ),
    "doubled in place of another": (
        lambda s: replaced(s, 7, s[5]),
        [(7, "id 4 "), (7, "id 5 (t15.2023.01.01/block 1/trial 5) is missing")],
    ),
    "reordered": (
        lambda s: replaced(s, 6, s[6], s[5])[:7] + s[7:],
        [(7, "id 4 (t15.2023.01.01/block 1/trial 4) is out of order: it comes after id 5. Sort")],
    ),
    "extra": (lambda s: [*s, "90,so it goes"], [(92, "id 90 is none of the 90 trials, 0 to 89")]),
    "empty": (
        lambda s: replaced(s, 6, "4,"),
        [(6, "the sentence is empty (t15.2023.01.01/block 1/trial 4). Give what was decoded")],
    ),
    "punctuation alone": (lambda s: replaced(s, 6, "4, ."), [(6, "the sentence is empty")]),
    "non-ASCII": (
        lambda s: replaced(s, 6, "4,i can\u2019t"),
        [(6, "holds '\u2019', which is not ASCII. Use letters a to z")],
    ),
    "wrong header": (
        lambda s: replaced(s, 1, "id,sentence"),
        [(1, "the header is 'id,sentence'. Make id,text the first line")],
    ),
    "no header": (lambda s: s[1:], [(1, "the header is '0,")]),
    "not normalised": (
        lambda s: replaced(s, 6, '4,"Hello, you"'),
        [(6, "is 'Hello, you', which is normalised to 'hello you'. Write it like that")],
    ),
    "no id": (
        lambda s: replaced(s, 6, "so it goes"),
        [(6, "id 4"), (6, "is 'so it goes', not an")],
    ),
    "unquoted comma": (
        lambda s: replaced(s, 6, "4,hello, you"),
        [(6, "id 4"), (6, "is '4,hello, you', not an id")],
    ),
    "nothing": (lambda s: s[:0], None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_names_the_line_and_what_to_do(fault, sound, root, index, tmp_path, capsys):
    spoil, expected = FAULTS[fault]
    file = tmp_path / "submission.csv"
    file.write_text("".join(line + "\n" for line in spoil(sound)), "utf-8")
    problems = check_submission(file, index)
    if expected is None:
        expected = [(1, "the header is ''"), *[(2, "is missing")] * 90]
    assert [
        (p.line, words in str(p)) for p, (_, words) in zip(problems, expected, strict=True)
    ] == [(line, True) for line, _ in expected], problems
    with pytest.raises(SystemExit, match=f"{len(problems)} problems; do not submit it"):
        main(["--data_root", str(root), "--check", str(file)])
    assert f"line {problems[0].line}: {problems[0].what}" in capsys.readouterr().out


def quoted(lines):
    return [f'"{row}","{sentence}"' for row, sentence in (line.split(",") for line in lines)]


@pytest.mark.parametrize(
    "dress",
    [
        quoted,
        lambda lines: [*lines[:5], *quoted(lines[5:9]), *lines[9:]],
        lambda lines: ["\ufeff" + lines[0], *lines[1:]],
        lambda lines: [*lines[:5], "", *lines[5:], ""],
    ],
    ids=["all quoted", "some quoted", "a byte order mark", "blank lines"],
)
def test_whatever_is_valid_csv_is_valid(dress, sound, root, index, tmp_path, capsys):
    file = tmp_path / "submission.csv"
    file.write_text("\n".join(dress(sound)) + "\n", "utf-8")
    assert check_submission(file, index, sentences(index)) == []
    main(["--data_root", str(root), "--check", str(file)])
    assert "90 sentences of the test split, ready to submit" in capsys.readouterr().out


def test_lines_are_those_of_the_file_where_a_quoted_sentence_has_two(sound, index, tmp_path):
    file = tmp_path / "submission.csv"
    lines = [*sound[:5], '4,"two\nlines"', "", "5,so it goes,on", *sound[7:-1], '89,"never closed']
    file.write_text("\n".join(lines) + "\n")
    assert [(p.line, p.what.partition(",")[0]) for p in check_submission(file, index)] == [
        (6, "is 'two\\nlines'"),
        (7, "id 5 (t15.2023.01.01/block 1/trial 5) is missing"),
        (9, "is '5"),
        (93, "id 89 (t15.2023.01.04/block 2/trial 1) is missing"),
        (93, "is not valid CSV (unexpected end of data)"),
    ]


def test_a_sound_file_passes_with_either_end_of_lines(sound, root, tmp_path, capsys):
    for end in ("\n", "\r\n"):
        file = tmp_path / "submission.csv"
        file.write_bytes(end.join(sound).encode())  # and none after the last
        main(["--data_root", str(root), "--check", str(file)])
        assert "90 sentences of the test split, ready to submit" in capsys.readouterr().out


def test_plain_text_is_checked_by_count_and_against_the_sentences(sound, index, tmp_path):
    file, texts = tmp_path / "submission.txt", sentences(index)
    rows = [line.partition(",")[2] for line in sound[1:]]

    def problems(lines):
        file.write_text("\n".join(lines), "ascii")
        return [(p.line, p.what) for p in check_submission(file, index, texts)]

    assert problems(rows) == []
    assert problems(rows[:-2])[0] == (
        89,
        "the file ends after 88 sentences: 2 are missing of 90 trials",
    )
    assert (91, "1 lines are extra: there are 90 trials") in problems([*rows, "more"])
    swapped = [rows[1], rows[0], *rows[2:]]
    assert [line for line, _ in problems(swapped)] == [1, 2]
    assert problems(swapped)[0][1] == (
        f"is {rows[1]!r}, but {rows[0]!r} was decoded (t15.2023.01.01/block 1/trial 0)"
    )


def test_shuffled_sentences_under_sound_ids_show_against_what_was_decoded(
    sound, index, root, tmp_path, capsys
):
    file, texts = tmp_path / "submission.csv", sentences(index)
    ids, rows = zip(*(line.split(",") for line in sound[1:]), strict=True)
    shuffled = [f"{a},{b}" for a, b in zip(ids, rows[1:] + rows[:1], strict=True)]
    file.write_text("\n".join(["id,text", *shuffled]))
    assert check_submission(file, index) == []
    assert len(check_submission(file, index, texts)) == 90
    write_texts(tmp_path / "test.jsonl", texts)
    given = ["--data_root", str(root), "--hypotheses", str(tmp_path / "test.jsonl")]
    with pytest.raises(SystemExit, match="90 problems"):
        main([*given, "--check", str(file)])
    assert "... and 70 more" in capsys.readouterr().out


def test_other_suffixes_and_missing_files_are_refused(index, tmp_path):
    with pytest.raises(DataError, match=r"has the suffix '\.tsv'\. Name it \.csv for"):
        write_submission(tmp_path / "s.tsv", index, sentences(index))
    with pytest.raises(DataError, match=r"s\.csv: cannot be read \(No such file"):
        check_submission(tmp_path / "s.csv", index)


def test_a_file_that_cannot_be_written_is_named(root, index, tmp_path):
    hypotheses = tmp_path / "test.jsonl"
    write_texts(hypotheses, sentences(index))
    with pytest.raises(SystemExit, match=r"test\.jsonl"):
        out = hypotheses / "b2t.csv"  # in a folder that is none
        main(["--data_root", str(root), "--hypotheses", str(hypotheses), "--out", str(out)])
