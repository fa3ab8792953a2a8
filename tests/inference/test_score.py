"""Scores of texts: rouge-score's own figures, Korean words that count, and what a wrong tokenizer makes of them."""

import json

import pytest
from rouge_score import rouge_scorer

from ganeum.cli import main
from ganeum.errors import DataError
from ganeum.inference.score import Score, Splitter, score

ENGLISH = [
    ("the quick brown fox jumped", "The quick brown dogs jump over the log."),
    ("police killed the gunman", "police kill the gunman"),
    ("", "something"),
]


def test_english_is_rouge_scores_own():
    """On English texts the means are those of rouge-score itself with its stemmer, kind by kind."""
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    theirs = [scorer.score(reference, text) for text, reference in ENGLISH]
    found = score(ENGLISH)
    assert found.words == "english"
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        for name, their_name in (("precision", "precision"), ("recall", "recall"), ("f", "fmeasure")):
            expected = sum(getattr(one[kind], their_name) for one in theirs) / 3
            assert found.rouge[kind][name].mean == pytest.approx(expected)


def test_korean_words_count():
    """Of four words three are right in their order: ROUGE-1 is 3/4, ROUGE-2 (two of three pairs) 2/3, ROUGE-L 3/4."""
    found = score([("나는 어제 학교에 왔다", "나는 어제 학교에 갔다.")])
    assert found.words == "words"
    assert (0.75, 2 / 3, 0.75) == pytest.approx([found.rouge[k]["f"].mean for k in ("rouge1", "rouge2", "rougeL")])


def test_the_trap_of_the_default_tokenizer():
    """rouge-score's own tokenizer drops Hangul: the very same Korean sentence scores 0, and here 1."""
    same = "오늘은 날씨가 좋다"
    assert 0.0 == rouge_scorer.RougeScorer(["rouge1"]).score(same, same)["rouge1"].fmeasure
    assert 0.0 == score([(same, same)], "english").rouge["rouge1"]["f"].mean
    assert 1.0 == score([(same, same)]).rouge["rouge1"]["f"].mean


def test_syllables_see_what_particles_hide():
    """학교에 and 학교는 are two words but share two syllables of three."""
    pair = [("학교에", "학교는")]
    assert 0.0 == score(pair, "words").rouge["rouge1"]["f"].mean
    assert 2 / 3 == pytest.approx(score(pair, "syllables").rouge["rouge1"]["f"].mean)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8", ["한국"]),  # decomposed, as macOS writes it
        ("get_name(ＡＢ)", ["get", "name", "ab"]),
        ("Ça va: été!", ["ça", "va", "été"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs are marks, and belong to their word
    ],
)
def test_words_of_any_script(text, expected):
    """Compatible forms are one, punctuation separates, marks stay with their letters."""
    assert expected == Splitter("words").tokenize(text)


def test_how_many_are_right():
    """Two of four are right but for white space; the most frequent reference alone would be right in three."""
    found = score([("a", "a "), ("b", "a"), ("c", "c"), ("d", "a")])
    assert (0.5, 0.75) == (found.exact.mean, found.one_for_all)


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (81, 263, 0.2553, 0.3662), (10, 10, 0.7225, 1.0)],
)
def test_shares_have_wilsons_interval(right, of, low, high):
    """As statsmodels' proportion_confint(method="wilson") has it; 81 of 263 are Newcombe's example (1998)."""
    found = Score.share(right, of)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_means_have_the_bootstraps():
    """Of 400 pairs, half of them right, it is that of the normal distribution: 0.5 ± 1.96 · 0.5 / 20, every time."""
    given = [("a b", "a b")] * 200 + [("c d", "a b")] * 200
    one, again = score(given).rouge["rouge1"]["f"], score(given).rouge["rouge1"]["f"]
    assert one == again
    assert (one.low, one.mean, one.high) == pytest.approx((0.451, 0.5, 0.549), abs=0.005)


def test_the_command(tmp_path, capsys):
    """The table, with the columns that `ganeum generate` writes."""
    rows = [{"target": "the cat sat", "generated": "the cat sat"}, {"target": "a dog", "generated": "the dog"}]
    (tmp_path / "out.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(SystemExit) as end:
        main(["score", str(tmp_path / "out.jsonl")])
    assert end.value.code == 0
    assert (
        """\
2 rows, words: english
exactly right  50.0 % [9.5 – 90.5]  (one answer for all: 50.0 %)
               precision  recall     F1
rouge1             75.00   75.00  75.00 [50.00 – 100.00]
rouge2             50.00   50.00  50.00 [0.00 – 100.00]
rougeL             75.00   75.00  75.00 [50.00 – 100.00]
rougeLsum          75.00   75.00  75.00 [50.00 – 100.00]
[95 in 100: of the share Wilson's interval, of ROUGE the bootstrap's with 1,000 draws]
"""
        == capsys.readouterr().out
    )


def test_words_of_english_asked_of_korean_are_warned_of(tmp_path, capsys):
    """A score of 0 for a text against itself is not left to be wondered at; what is ASCII says nothing."""
    (tmp_path / "out.jsonl").write_text('{"target": "학교에 갔다", "generated": "학교에 갔다"}', encoding="utf-8")
    for words, told in (("english", "! of 1 reference only a-z and 0-9 count"), ("words", "")):
        with pytest.raises(SystemExit):
            main(["score", str(tmp_path / "out.jsonl"), "--words", words])
        err = capsys.readouterr().err
        assert err.startswith(told)
        assert bool(err) == bool(told)


def test_of_one_row_only_the_share_says_how_far_it_may_be_off(tmp_path, capsys):
    """A single pair's ROUGE has nothing beside it, also as JSON; that one of one is right may be luck."""
    (tmp_path / "out.jsonl").write_text('{"target": "a cat", "generated": "a cat"}')
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit):
            main(["score", str(tmp_path / "out.jsonl"), *more])
    told = capsys.readouterr().out
    assert told.startswith("1 row, words: english\nexactly right  100.0 % [20.7 – 100.0]  (one")
    assert "rouge1            100.00  100.00 100.00\n" in told
    assert {"mean": 1.0, "low": None, "high": None} == json.loads(told[told.index("{") :])["rouge"]["rouge1"]["f"]


def test_a_missing_column_names_the_option(tmp_path, capsys):
    """Of the two columns the one that is missing is named, and how to say another."""
    (tmp_path / "out.jsonl").write_text('{"summary": "a cat", "generated": "a cat"}')
    with pytest.raises(SystemExit):
        main(["score", str(tmp_path / "out.jsonl")])
    assert capsys.readouterr().err == (
        "DataError: row 1 has no column 'target'\n"
        f"  where  {tmp_path}/out.jsonl, row 1\n"
        "  why    it has summary, generated\n"
        "  try    --references NAME, one that every row has\n"
    )


def test_nothing_to_score():
    """An empty file is no score of 0."""
    with pytest.raises(DataError, match="there are no texts to score"):
        score([])
