"""Words in a row that two texts share."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.overlap import repeated


def test_case_and_marks_between_words_hide_nothing() -> None:
    record = "The quick brown fox jumps over the lazy dog."
    texts = ["he said: quick, BROWN fox jumps over the moon", "quick brown fox jumps over a dog"]
    assert repeated(texts, [record], 6) == [True, False]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=20), st.integers(0, 14))
def test_any_run_of_the_length_is_found_and_no_shorter_one(words: list[str], start: int) -> None:
    piece = words[start : start + 6]
    said = repeated([" ".join(["x", *piece, "y"])], ["unrelated", " ".join(words)], 6)[0]
    assert said == (len(piece) == 6)
