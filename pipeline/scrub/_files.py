"""Rules for the numbers and dates of files: what registries of courts and offices of many countries write."""

from __future__ import annotations

from pipeline.scrub._secrets import FAIR, STRONG, Rule

_THREE_DIGITS = r"(?=[-/A-Z0-9]{0,24}?\d[-/A-Z]{0,4}\d[-/A-Z]{0,4}\d)"
MORE_RECORDS = (
    Rule(r"(?i:\bnos?\.?)[ ]?(?P<value>\d{1,6}[ ](?i:of)[ ](?:19|20)\d{2})\b", STRONG),  # No. 12 of 2004
    Rule(
        r"(?i:\b(?:decision|judgment|ruling|appeal|petition|complaint|lawsuit|cause|suit)[ ]nos?\.?[ ])"
        r"(?P<value>\d{1,7})(?![\w/-])",
        FAIR,
    ),
    Rule(rf"(?<![\w/-]){_THREE_DIGITS}[A-Z]{{1,4}}(?:[-/][A-Z0-9]{{1,8}}){{2,5}}(?![\w/-])", FAIR),  # CR-05-AB-0012-2009
    Rule(r"(?<![\w/-])\p{Lu}{1,4}[ ]\d{3,6}-\d{2,4}(?![\w-])", FAIR),  # B 1234-05
    Rule(r"(?<![\w/.-])\p{Lu}\p{L}{0,4}\.?[ ]\d{2}/\d{3,6}(?![\w/])", FAIR),  # the year before the number
    Rule(r"(?<![\w-])[A-Z]\d{5,9}(?:-\d{1,3})?(?![\w-])", FAIR),
    Rule(
        r"(?i:\b(?:plates?|vehicle|registration|hull)(?:[ ](?:numbers?|nos?\.?|mark))?[ :]{1,2})"
        r"(?P<value>(?=[A-Z -]{0,5}\d)[A-Z0-9]{1,4}[ -][A-Z0-9]{2,5})(?![\w-])",
        FAIR,
    ),
)
MORE_DATES = (
    Rule(r"(?<![\w.,/-])(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![\w,/-]|\.\d)", FAIR),  # ISO 8601, basic
    Rule(
        r"\b(?:(?:Orthodox|Greek)[ ])?(?:Easter(?:[ ](?:Sunday|Monday))?|Good[ ]Friday|Christmas(?:[ ](?:Eve|Day))?|Ramadan|"
        r"New[ ]Year['’]s[ ](?:Eve|Day)|Passover|Diwali|Thanksgiving|Whitsun|Pentecost)"
        r"(?:[ ]Day)?,?[ ](?:of[ ])?(?:19|20)\d{2}\b",
        FAIR,
    ),
    Rule(r"(?<![\w.,:])(?:[01]?\d|2[0-3])(?:h[0-5]\d\b|[.:][0-5]\d[ ]?[ap]\.?m\b\.?)", FAIR),
)
