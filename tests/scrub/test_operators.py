from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.scrub import Span
from pipeline.scrub.operators import OPERATORS, replace

TEXT = "Ada Lovelace, 🎉 ada@example.org"
FOUND = [Span(0, 12, "PERSON", 0.85), Span(16, 31, "EMAIL_ADDRESS", 1.0)]


def test_each_operator() -> None:
    assert replace(TEXT, FOUND, "placeholder") == "<PERSON>, 🎉 <EMAIL_ADDRESS>"
    assert replace(TEXT, FOUND, "redact") == ", 🎉 "
    assert replace(TEXT, FOUND, "mask") == "*** ********, 🎉 ***************"
    assert replace(TEXT, [], "placeholder") == TEXT


@given(
    st.text(alphabet="abc1 \n🎉", max_size=40),
    st.lists(st.integers(0, 40), max_size=8, unique=True),
    st.sampled_from(sorted(OPERATORS)),
)
def test_what_stands_outside_the_spans_stays_and_what_stands_inside_goes(text: str, cuts: list[int], operator: str) -> None:
    cuts = sorted(min(cut, len(text)) for cut in cuts)
    found = [Span(start, end, "X", 1.0) for start, end in zip(cuts[::2], cuts[1::2], strict=False) if start < end]
    marked = replace(text, found, operator)
    outside = "".join(character for at, character in enumerate(text) if not any(span.start <= at < span.end for span in found))
    if operator == "redact":
        assert marked == outside
    if operator == "mask":
        assert len(marked) == len(text)
        assert all(marked[at] == "*" or marked[at].isspace() for span in found for at in range(span.start, span.end))
    if operator == "placeholder":
        assert marked.replace("<X>", "") == outside
