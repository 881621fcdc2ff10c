"""Rules for passwords, keys and tokens, and what a rule is."""

from __future__ import annotations

from typing import NamedTuple

STRONG, FAIR, WEAK = 0.9, 0.6, 0.05


class Rule(NamedTuple):
    """A regular expression and the score of its match."""

    pattern: str
    score: float


SECRETS = (
    Rule(
        r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----[\s\S]{1,8000}?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)",
        1.0,
    ),
    Rule(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}(?![A-Za-z0-9])", 1.0),  # Amazon
    Rule(r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_\w{22,255}|glpat-[\w-]{20,64})(?![A-Za-z0-9])", 1.0),
    Rule(r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,250}", 1.0),  # Slack
    Rule(r"(?<![A-Za-z0-9])AIza[\w-]{35}(?![\w-])", 1.0),  # Google
    Rule(r"(?<![A-Za-z0-9])(?:[rsp]k_(?:live|test)_[A-Za-z0-9]{16,247}|whsec_[A-Za-z0-9+/=]{16,99})", 1.0),  # Stripe
    Rule(
        r"(?<![A-Za-z0-9])(?:sk-(?:ant-|proj-)?[\w-]{20,250}|hf_[A-Za-z0-9]{30,60}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,250}|SG\.[\w-]{16,64}\.[\w-]{16,64})",
        1.0,
    ),
    Rule(r"(?<![\w-])eyJ[\w-]{8,4000}\.eyJ[\w-]{8,8000}(?:\.[\w-]{0,2000})?", 1.0),  # JSON Web Tokens, RFC 7519
    Rule(r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,64}:(?P<value>[^\s@/]{1,128})@", 1.0),  # in a connection string
    Rule(r"(?i)\b(?:authorization:?[ ]{0,4})?(?:bearer|basic)[ ]{1,4}(?P<value>[A-Za-z0-9._~+/-]{16,4000}={0,2})", STRONG),
    Rule(
        r"(?i)(?<![A-Za-z])(?:pass(?:word|wd|phrase|code)?|pwd|pw|secret|token|pin(?:[ ]code)?|otp|cvv2?|cvc|"
        r"(?:api|access|secret|private|client|auth|encryption|account|storage)[ _-]?(?:key|secret|token))"
        r"(?:[\"']?[ ]{0,3}(?::=|[:=]|=>)[ ]{0,3}|[ ](?:is|was|set to|changed to|reset to)[ :]{1,3})"
        r"[\"'`<]?(?P<value>(?=[^\s]{0,40}[\d!@#$%^&*_+])[^\s\"'`<>,;]{3,512})",
        STRONG,
    ),
    Rule(
        r"(?i)(?<![A-Za-z])(?:password|passwd|pwd|pass)[\"']?[ ]{0,3}[:=][ ]{0,3}[\"'`]?(?P<value>[^\s\"'`<>,;]{4,128})", FAIR
    ),
    Rule(
        r"(?<![A-Za-z0-9/+=_-])(?=[A-Za-z0-9/+=_-]{0,60}\d)(?=[A-Za-z0-9/+_-]{0,60}[a-z])(?=[A-Za-z0-9/+_-]{0,60}[A-Z])[A-Za-z0-9+_]{32,512}={0,2}(?![A-Za-z0-9/+=_-])",
        FAIR,
    ),
    Rule(r"(?<![\w-])(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9A-F]{32}|[0-9A-F]{40}|[0-9A-F]{64})(?![\w-])", FAIR),
    Rule(r"(?i)(?<![\w-])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![\w-])", FAIR),
)
