"""Rules for ages: an age over 89 identifies, and any age does beside a place."""

from __future__ import annotations

from pipeline.scrub._secrets import FAIR, STRONG, Rule

_NUMBER_WORD = (
    r"(?:(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:[ -](?:one|two|three|four|five|six|seven|eight|nine))?|"
    r"ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|one|two|three|four|five|six|seven|eight|nine)"
)
AGES = (
    Rule(
        rf"(?i)\b(?:\d{{1,3}}|{_NUMBER_WORD})(?:[ -]?(?:and a half))?[ -]?(?:years?|yrs?|y/?o|months?|"
        rf"weeks?)[ .-]{{0,2}}(?:old|of age)\b",
        STRONG,
    ),
    Rule(r"(?i)\b\d{1,3}[ -]?(?:y/o|yo|y\.o\.)(?!\w)", STRONG),
    Rule(rf"(?i)\b(?:aged?|at the age of|age[ ]?[:=])[ ]?(?P<value>\d{{1,3}}|{_NUMBER_WORD})\b(?!\s*(?:%|days?|hours?))", FAIR),
    Rule(r"(?i)\b\d{2,3}[- ]year[- ]old\b", STRONG),
    Rule(rf"(?i)\baged[ ](?P<value>(?:\d{{1,2}}|{_NUMBER_WORD})[ ](?:months?|weeks?|days?))\b", FAIR),
    Rule(
        rf"\b(?:[Hh]e|[Ss]he|who)[ ](?:is|was)[ ](?:(?:now|then|already|only|still|just|about)[ ])?"
        rf"(?P<value>[1-9]\d|{_NUMBER_WORD})(?=[.,;]|[ ](?:and|when|at the time)\b)",
        FAIR,
    ),
    Rule(r"\p{Lu}\p{Ll}{2,20},[ ](?:(?:then|now|aged)[ ])?(?P<value>[1-9]\d)(?=,[ ]\p{Ll})", FAIR),
    Rule(r"(?i)\b(?:early|mid|late)[ -](?:to[ -]late[ -])?(?:twen|thir|for|fif|six|seven|eigh|nine)ties\b", FAIR),
)
