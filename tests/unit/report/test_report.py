"""Table 1 from measurements: averaging, refusals, what the claims say at their borders, and the two
forms of output.
"""

import json
import re

import pytest
from measurements import measurement, result

from fairseq_seqkd.errors import Refusal
from fairseq_seqkd.evaluation import records
from fairseq_seqkd.report import formatting, page, report
from fairseq_seqkd.report import table1 as table
from fairseq_seqkd.report import table2 as speed_table
from fairseq_seqkd.report import table3 as pruning_table

SEQ_KD = {"bleu_greedy": 18.9, "bleu_beam5": 19.0, "ppl": 22.7, "mode_probability": 0.169}


SPEED = {
    "name": "A",
    "engine": "fairseq",
    "beam": 5,
    "size_bytes": 1,
    "nonzero_params": 1,
    "words_per_second": 1.0,
    "words_per_second_rounds": [1.0],
    "bleu": 1.0,
    "sacrebleu_signature": "s",
    "distillation_signature": None,
}
FACTS = {
    key: result("A")[key] for key in ("settings", "data_sha256", "versions", "machine", "date")
}


def holds(student, taught):
    claims = table.make_report(
        [measurement("Student", **student), measurement("Seq-KD", **{**SEQ_KD, **taught})]
    ).claims
    return [claim.holds for claim in claims]


def test_scores_of_two_models_of_comet_are_not_put_into_one_column():
    by = [{"comet_beam5": 0.8, "comet_signature": f"comet:2|model:{name}"} for name in "ab"]
    with pytest.raises(
        Refusal, match="COMET of B is by another model .*b.* evaluate all with one --comet"
    ):
        table.make_report([measurement("A", **by[0]), measurement("C"), measurement("B", **by[1])])
    some = table.make_rows(
        [measurement("A", 1, **by[0]), measurement("A", 2)]
    )  # of seeds that were not all scored there is no mean
    assert some[0].comet_beam5 is None and "comet_beam5" not in some[0].deviations
    both = table.make_rows([measurement("A", 1, **by[0]), measurement("A", 2, **by[0])])
    assert both[0].comet_beam5 == 0.8 and both[0].deviations["comet_beam5"] == 0


@pytest.mark.parametrize(
    "machines,drawn",
    [(["a toaster, one thread"] * 2, True), (["a toaster, one thread", "a kettle"], False)],
)
def test_speeds_of_different_machines_are_not_drawn_together(machines, drawn):
    pytest.importorskip("matplotlib")
    made = report.make_report(
        [measurement(name, machine=machine) for name, machine in zip("AB", machines)]
    )
    assert ("speed" in page.draw(made)) == drawn


def test_rows_keep_their_order_and_average_over_seeds():
    results = [
        measurement("Teacher", bleu_greedy=17.7),
        measurement("Student", 2, bleu_greedy=14.0, ppl=8.0, hit_limit_greedy=1),
        measurement("Seq-KD", 1, **SEQ_KD),
        measurement("Student", 1, bleu_greedy=15.0, ppl=9.0, hit_limit_greedy=2),
        measurement("Student", 3, bleu_greedy=16.0, ppl=10.0, hit_limit_greedy=6),
    ]
    rows = table.make_rows(results)
    assert [row.name for row in rows] == ["Teacher", "Student", "Seq-KD"]
    student = rows[1]
    assert (
        student.bleu_greedy == 15.0 and student.deviations["bleu_greedy"] == 1.0
    )  # of 14, 15, 16, divided by n - 1
    assert student.ppl == 9.0 and student.deviations["ppl"] == 1.0
    assert student.hit_limit_greedy == 3.0 and "hit_limit_greedy" not in student.deviations
    assert (
        student.params == 84_000_000
        and student.bleu_beam5 == 17.6
        and student.deviations["bleu_beam5"] == 0
    )
    assert [seed.seed for seed in student.seeds] == [2, 1, 3]
    assert [seed.bleu_greedy for seed in student.seeds] == [14.0, 15.0, 16.0]
    assert not rows[0].seeds and not rows[0].deviations


def test_a_row_names_the_signatures_of_all_its_seeds():
    rows = table.make_rows(
        [
            measurement("A", 1, distillation_signature="x"),
            measurement("A", 2, distillation_signature="y"),
            measurement("A", 3, distillation_signature="x"),
            measurement("B"),
        ]
    )
    assert rows[0].distillation_signature == "x & y" and rows[1].distillation_signature is None


def test_the_paper_itself_holds():
    assert holds({}, {}) == [True, True, True, True]


@pytest.mark.parametrize(
    "student, taught, claim, expected",
    [
        ({}, {"bleu_greedy": 17.3}, 0, True),  # 0.3 below, on the border
        ({}, {"bleu_greedy": 17.29}, 0, False),
        (
            {"bleu_greedy": 17.0},
            {"bleu_beam5": 19.2},
            1,
            True,
        ),  # gaps 0.6 and 0.3: more than a third, but small
        ({"bleu_greedy": 17.0}, {"bleu_beam5": 19.21}, 1, False),
        ({}, {"bleu_beam5": 19.86}, 1, True),  # gaps 2.9 and 0.96: less than a third
        ({}, {"bleu_beam5": 19.87}, 1, False),
        ({}, {"bleu_beam5": 17.9}, 1, False),  # the other way round is a gap too
        ({}, {"ppl": 8.2}, 2, False),
        ({}, {"ppl": 8.21}, 2, True),
        ({}, {"mode_probability": 0.027}, 3, True),  # three times 0.009
        ({}, {"mode_probability": 0.0269}, 3, False),
        ({"mode_probability": 0.0}, {"mode_probability": 0.1}, 3, True),
        ({"mode_probability": 0.0}, {"mode_probability": 0.0}, 3, False),
    ],
)
def test_claims_at_their_borders(student, taught, claim, expected):
    assert holds(student, taught)[claim] is expected


def test_claims_state_their_numbers():
    report = table.make_report([measurement("Student"), measurement("Seq-KD", **SEQ_KD)])
    text = table.to_markdown(report)
    assert "The claims of the paper" in text
    assert "18.90 against 17.60 BLEU, +1.30" in text
    assert "0.10 BLEU apart, 2.90 for Student" in text
    assert "22.70 against 8.20" in text
    assert "16.9% against 0.9%, 18.8 times as much" in text
    assert text.count("**Holds.**") == 4
    worse = table.to_markdown(
        table.make_report([measurement("Student"), measurement("Seq-KD", **{**SEQ_KD, "ppl": 8.0})])
    )
    assert worse.count("**Holds.**") == 3 and worse.count("**Does not hold.**") == 1


@pytest.mark.parametrize("names", [["Student"], ["Seq-KD", "Teacher"], ["student", "seq-kd"]])
def test_no_claims_without_their_rows(names):
    report = table.make_report([measurement(name) for name in names])
    assert report.claims == []
    assert "The claims of the paper" not in table.to_markdown(report)


def lines_of_table(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_markdown_has_gains_over_the_student():
    text = table.to_markdown(
        table.make_report([measurement("Student"), measurement("Seq-KD", **SEQ_KD)], title="En-De")
    )
    assert text.startswith("# En-De\n")
    head, _, student, taught = lines_of_table(text)
    assert head[:8] == [
        "Model",
        "Params",
        "BLEU K=1",
        "gain",
        "BLEU K=5",
        "gain",
        "PPL",
        "p(t = ŷ)",
    ]
    assert student[:8] == ["Student", "84.00M", "14.70", "", "17.60", "", "8.20", "0.9%"]
    assert taught[:8] == ["Seq-KD", "84.00M", "18.90", "+4.20", "19.00", "+1.40", "22.70", "16.9%"]
    assert taught[8:] == ["1,234", "55.5", "1.02", "0.98", "3", "0"]
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1  # aligned


def test_no_gains_without_a_student():
    head = lines_of_table(
        table.to_markdown(table.make_report([measurement("A"), measurement("B")]))
    )[0]
    assert "gain" not in head


def test_markdown_shows_deviations_and_every_signature_once():
    rows = [
        measurement(
            "Seq-KD",
            seed,
            bleu_greedy=18.0 + seed,
            distillation_signature="criterion:seq_kd|view:seq_kd",
        )
        for seed in (1, 2)
    ]
    text = table.to_markdown(
        table.make_report(
            [
                measurement("Student"),
                *rows,
                measurement("X", distillation_signature="criterion:seq_kd|view:seq_kd"),
            ]
        )
    )
    assert "19.50 ± 0.71" in text
    assert text.count("nrefs:1|tok:13a") == 1
    assert "- **Seq-KD, X**: `criterion:seq_kd|view:seq_kd`" in text
    assert (
        "a toaster" in text
        and "torch 2" in text
        and "2026-01-01" in text
        and "2,737 sentences" in text
    )


def test_a_name_with_a_bar_stays_in_its_cell():
    line = [
        line
        for line in table.to_markdown(table.make_report([measurement("a|b")])).splitlines()
        if "a\\|b" in line
    ]
    assert len(line) == 1


def test_json_is_not_rounded_and_has_every_fact():
    report = table.make_report(
        [measurement("Student", bleu_greedy=100 / 3), measurement("B", machine="another")]
    )
    again = json.loads(records.to_json(report.as_json()))
    assert again["rows"][0]["bleu_greedy"] == 100 / 3 and again["claims"] == []
    assert (
        again["split"] == "test"
        and again["settings"]["max_len_b"] == 10
        and again["machine"] == ["a toaster", "another"]
    )
    assert "not comparable between rows" in table.to_markdown(report)


@pytest.mark.parametrize(
    "results, sentence",
    [
        ([], "there are no results"),
        ([measurement("A", ppl=None)], "has no ppl"),
        ([measurement("A"), measurement("A")], "two results for A"),
        (
            [measurement("A"), measurement("A", seed=1)],
            "results of A are not of seeds of one system: one has a seed, and one has none",
        ),
        (
            [measurement("A", seed=1, params=1000), measurement("A", seed=2, params=1001)],
            "one has 1,000 parameters, and one has 1,001",
        ),
        (
            [measurement("A"), measurement("B", data_sha256="e")],
            "B was measured on other data than A",
        ),
        (
            [measurement("A"), measurement("B", settings={**FACTS["settings"], "split": "valid"})],
            "B was measured on other settings than A",
        ),
    ],
)
def test_refusals(results, sentence):
    with pytest.raises(Refusal, match=sentence):
        table.make_report(results)


BENCH = {"speeds": [SPEED], **FACTS}


def bench(**changes):
    return records.decode({**BENCH, **changes})


def test_what_is_not_whole_is_left_out_of_pruning():
    for changes in ({"nonzero_params": 0}, {"params": None, "nonzero_params": 5}):
        assert pruning_table.make_rows(table.make_rows([measurement("A", **changes)])) == []


def test_speeds_name_their_unit():
    assert "words/s" in speed_table.markdown(bench())
    letters = speed_table.markdown(bench(counted="characters"))
    assert "| characters/s K=5 |" in re.sub(" +", " ", letters)
    assert "source characters per second" in letters and "words" not in letters


@pytest.mark.parametrize(
    "settings,text",
    [
        ({"post_process": None}, "sacrebleu on the tokens as they are, greedy"),
        ({"post_process": "@@ "}, "sacrebleu on text, subwords joined (@@), greedy"),
        (
            {"post_process": "@@ ", "undone": "--tokenizer moses"},
            "on text, subwords joined (@@), --tokenizer moses undone, greedy",
        ),
    ],
)
def test_the_report_says_what_text_was_scored(settings, text):
    settings = {**FACTS["settings"], **settings}
    assert text in table.to_markdown(table.make_report([measurement("A", settings=settings)]))


def test_speeds_with_another_length_limit_do_not_stand_beside_results():
    speeds = bench(settings={**FACTS["settings"], "max_len_a": 0.5})
    with pytest.raises(
        Refusal, match="the speeds were measured with max_len_a 0.5, the results with 1.2"
    ):
        report.make_report([measurement("A")], [speeds])


def test_eight_bits_that_were_not_computed_as_such_are_named():
    texts = [
        speed_table.markdown(
            bench(speeds=[SPEED, {**SPEED, "engine": "ctranslate2-int8", "computed_in": computed}])
        )
        for computed in ("float32", "int8")
    ]
    assert "- **ctranslate2-int8**: computed in float32: " in texts[0]
    assert "computed in" not in texts[1]


def test_speeds_of_other_text_do_not_stand_beside_results():
    settings = FACTS["settings"]
    undone = {**settings, "undone": "--tokenizer moses"}
    with pytest.raises(
        Refusal, match="measured with undone None, the results with --tokenizer moses"
    ):
        report.make_report([measurement("A", settings=undone)], [bench()])
    batched = {**settings, "max_tokens": 4000}
    made = report.make_report([measurement("A", settings=batched)], [bench()])
    assert made.table2 == [bench()]


def test_a_note_has_a_term_a_text_and_literals():
    assert formatting.Note("PPL", "per token.").markdown() == "- **PPL**: per token."
    note = formatting.Note("*", "by", ["x|y", "z"])
    assert note.markdown() == "- **\\***: by `x|y`, `z`"


@pytest.mark.parametrize(
    "share, text",
    [(0.169, "16.9%"), (0.009, "0.9%"), (0.00014, "0.014%"), (0.0, "0.0%"), (1.0, "100.0%")],
)
def test_percent(share, text):
    assert formatting.percent(share) == text
