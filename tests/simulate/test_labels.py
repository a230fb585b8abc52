import json

import pytest

from modessm_jax.data.recordings import read_recordings
from modessm_jax.phonemes import symbols
from modessm_jax.simulate.files import TRUTH, write_dataset
from modessm_jax.simulate.labels import read_plan

HEADER = "sample_id,session,split,block,trial,ground_truth_phonemes,ground_truth_text\n"
ROWS = (
    "a,t15.2023.08.13,val,7,3,M AY  |  K AE T  | ,My cat.\n"
    "b,t15.2023.08.11,train,2,4,Y EH S  | ,Yes.\n"
    'c,t15.2023.08.11,train,2,0,"IH T S  |  F AY N  | ","It\u2019s fine, really."\n'
    "d,t15.2023.08.11,train,10,1,N OW  | ,No.\n"
)
RIG = {"electrodes": 4, "seed": 5, "tuning_loss": 0.08}


def table(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_days_blocks_trials_and_sentences_are_those_of_the_table(tmp_path):
    plan = read_plan(table(tmp_path, HEADER + ROWS), **RIG)
    assert [(s.name, s.day.isoformat()) for s in plan.sessions] == [
        ("t15.2023.08.11", "2023-08-11"),
        ("t15.2023.08.13", "2023-08-13"),
    ]
    blocks = plan.sessions[0].blocks
    assert [(b.number, [p.number for p in b.prompts]) for b in blocks] == [(2, [0, 4]), (10, [1])]
    assert blocks[0].mode != blocks[1].mode
    sounds = [symbol.strip() for symbol in symbols(blocks[0].prompts[0].phonemes.tolist())]
    assert sounds == ["IH", "T", "S", "|", "F", "AY", "N", "|"]


def test_our_own_reader_reads_what_is_simulated_of_it(tmp_path):
    root = tmp_path / "simulated"
    plan = read_plan(table(tmp_path, HEADER + ROWS), **RIG)
    for overwrite in (False, True):  # the second time over the first
        write_dataset(root, plan, overwrite=overwrite, report=lambda line: None)
    read = read_recordings(root, "train")
    assert [(t.session, t.block, t.number, t.sentence) for t in read.trials] == [
        ("t15.2023.08.11", 2, 0, "It\u2019s fine, really."),
        ("t15.2023.08.11", 2, 4, "Yes."),
        ("t15.2023.08.11", 10, 1, "No."),
    ]
    assert len(read_recordings(root, "val").trials) == 1
    assert set(json.loads((root / TRUTH).read_text())["t15.2023.08.11"]) == {"2", "10"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("session,split\n", "line 1: there is no column block, trial"),
        (HEADER, "has no trials"),
        (HEADER + ROWS + ROWS, "line 6: this trial is in the table twice"),
        (HEADER + ROWS.replace("t15.2023.08.13", "first"), "line 2: session 'first' does not end"),
        (HEADER + ROWS.replace("08.13", "08.33"), "line 2: "),
        (HEADER + ROWS.replace(",val,", ",dev,"), "line 2: split 'dev' is not train, val, test"),
        (HEADER + ROWS.replace(",7,3,", ",7,x,"), "line 2: trial is 'x', not a whole number"),
        (HEADER + ROWS.replace("M AY", "M QQ"), "line 2: 'QQ' is not an ARPAbet phoneme"),
        (HEADER + ROWS.replace("Y EH S  | ", ""), "line 3: ground_truth_phonemes has 0"),
        (HEADER + ROWS.replace("Yes.", "y" * 501), "line 3: ground_truth_text has 501"),
    ],
)
def test_a_malformed_table_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_plan(table(tmp_path, text), **RIG)
