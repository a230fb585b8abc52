from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from modessm_jax.data.corpora import corpora_of_session, read_corpora
from modessm_jax.data.validation import DataError

HEADER = "Date,Post-implant day,Block number,Number of sentences,Corpus,Split\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "blocks.csv"
    file.write_text(text)
    return file


def test_blocks_are_found_by_the_date_a_session_is_named_for(tmp_path):
    table = written(
        tmp_path,
        HEADER + "2023-08-11,25,2,20,50-Word,Train\n2023-08-11,25,3,30,Harvard,Val/Test\n"
        "2023-08-12,26,2,30,Random,Val/Test\n",
    )
    corpora = read_corpora(table)
    assert corpora[date(2023, 8, 12), 2] == "Random"
    assert corpora_of_session(corpora, "t15.2023.08.11") == {2: "50-Word", 3: "Harvard"}
    assert corpora_of_session(corpora, "t15.2023.08.13") == {}
    assert corpora_of_session(corpora, "fsdd.george") == {}


def test_whatever_is_valid_csv_is_a_table(tmp_path):
    quoted = (
        HEADER + '2023-08-11,25,"2",20,"Harvard,\n list\u20281",Train\n2023-08-12,26,3,1,x,Val\n'
    )
    corpora = read_corpora(written(tmp_path, quoted))
    assert corpora == {
        (date(2023, 8, 11), 2): "Harvard,\n list\u20281",
        (date(2023, 8, 12), 3): "x",
    }


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "line 1, Date, Block number, Corpus", "missing"),
        ("Date,Block number\n", "line 1, Corpus", "the column is missing"),
        (HEADER + "11/08/2023,25,2,20,x,Train\n", "line 2, Date", "not a date"),
        (HEADER + "\n2023-08-11,25,two,20,x,Train\n", "line 3, Block number", "is 'two'"),
        (HEADER + "2023-08-11,25\n", "line 2, Block number", "is None"),
        (HEADER + "2023-08-11,25,2,20,,Train\n", "line 2, Corpus", "is empty"),
        (
            HEADER + "2023-08-11,25,2,20,x,Train\n2023-08-11,25,2,20,y,Train\n",
            "line 3, Corpus",
            "an earlier line gives 'x' for 2023-08-11 block 2",
        ),
    ],
)
def test_malformed_tables_name_the_line(tmp_path, text, place, words):
    table = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_corpora(table)
    assert str(caught.value).startswith(f"{table}, {place}: ")
    assert words in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        read_corpora(tmp_path / "gone.csv")


def test_the_published_table_is_read_whole(shared_data):
    corpora = read_corpora(shared_data / "recorded" / "t15_blocks.csv")
    assert len(corpora) == 265
    counts = Counter(corpora.values())
    assert counts["Switchboard"] == 182
    assert counts["50-Word"] == 25
    assert corpora_of_session(corpora, "t15.2025.04.13") == {
        2: "Switchboard",
        7: "Switchboard",
        8: "Switchboard",
    }
