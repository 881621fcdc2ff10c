"""Rules for amounts: money, measures, sentences of imprisonment, lengths of time and shares.

A sum that was claimed, paid or earned, or the term that somebody served, stands in registers and newspapers beside a name.
Money and measures count wherever they stand; lengths of time and percentages mostly beside a word of `CONTEXT`.
"""

from __future__ import annotations

from pipeline.scrub._secrets import FAIR, STRONG, WEAK, Rule

_SMALL = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen)"
_TENS = r"(?:(?:twen|thir|for|fif|six|seven|eigh|nine)ty(?:[ -](?:one|two|three|four|five|six|seven|eight|nine))?)"
NUMBER_WORD = rf"(?:{_TENS}|{_SMALL})"
_DIGITS = r"\d{1,12}(?:[.,’'\u00a0 ]\d{2,3}(?!\d)){0,5}(?:[.,]\d{1,2}(?!\d))?"
_SCALE = r"(?:[ ]?(?:hundred|thousand|million|billion|bn|lakhs?|crores?)\b|[km]\b)"
_WORDS = (
    rf"(?:{NUMBER_WORD}|an?(?=[ ](?:hundred|thousand|million)\b))(?:[ ](?:and[ ])?(?:{NUMBER_WORD}\b|hundred"
    rf"|thousand|million)){{0,5}}+"
)
_SPELLED = r"one|t(?:wo|wel|wen|hree|hir|en)|f(?:our|ort|if|iv)|s(?:ix|eve)|eig|nine|ele|an?[ ](?:h|t|m)"
_STARTS = rf"(?=\d|(?i:{_SPELLED}))"  # cheap to look at
_NUMBER = rf"(?:{_DIGITS}{_SCALE}?|{_WORDS})"

# --- money: ISO 4217 codes, signs, and names of currencies in use and of those that the euro replaced ------------------
_CODE = (
    r"(?:AED|ALL|AMD|ARS|ATS|AUD|AZN|BAM|BEF|BGL|BGN|BRL|BYN|CAD|CHF|CLP|CNY|COP|CYP|CZK|DEM|DKK|EEK|EGP|ESP"
    r"|EUR|FIM|FRF|GBP|GEL|"
    r"GRD|HKD|HRK|HUF|IDR|IEP|ILS|INR|ISK|ITL|JPY|KES|KRW|KZT|LTL|LVL|MAD|MDL|MKD|MTL|MXN|MYR|NGN|NLG|NOK|NZD"
    r"|PEN|PHP|PKR|PLN|PLZ|"
    r"PTE|ROL|RON|RSD|RUB|RUR|SAR|SEK|SGD|SIT|SKK|THB|TND|TRL|TRY|TWD|UAH|USD|UZS|VND|YUM|ZAR)"
)
_SIGN = r"(?:(?:US|AU|CA|NZ|HK|[ACS])?\$|[€£¥₹₽₺₴₩₪₫฿]|\bKshs?\.?|\bRM(?=[ ]?\d)|\bRs\.?|\bFr\.|\bDM\b)"
_CURRENCY = (
    r"(?:euros?|dollars?|pounds?(?:[ ]sterling)?|sterling|cents?|pence|rou?bles?|z[lł]ot(?:ys?|ych|ies)"
    r"|lev[as]?|lei|forints?|"
    r"korun[aysů]{1,2}|koron[ay]s?|crowns|kron(?:a|or|e|er|ur)|francs?|marks|deutschmarks?|liras?|lire|yen"
    r"|yuan|renminbi|rupees?|"
    r"dirhams?|dinars?|denars?|pesos?|reais|rands?|hryvni?as?|drachmas?|guilders?|kunas?|tolars?|lit[ai][is]?|lats|kroons?|"
    r"manats?|drams?|laris?|tenge|shekels?|riyals?|baht|pesetas?|escudos?|schillings?|shillings?|naira|quid|bucks)\b"
)
_OF = r"(?:US[ ]|\p{Lu}[\p{Ll}-]+[ ]){0,2}"  # new Turkish liras, United States dollars
_EACH = r"(?:[ ](?:an?|per|each)[ ](?:hour|day|week|month|quarter|year|annum|square[ ]met(?:re|er)|hectare)\b)?"
_CODED = rf"(?:[ ]\({_CODE}\))?{_EACH}"
_MONEY = (
    Rule(rf"(?<!\p{{L}}){_SIGN}[ ]?{_DIGITS}{_SCALE}?{_EACH}", STRONG),
    Rule(rf"(?<!\p{{L}}){_CODE}[ \u00a0]?{_DIGITS}{_SCALE}?{_EACH}", STRONG),
    Rule(rf"(?<![\w.,]){_DIGITS}{_SCALE}?[ ]?(?:[€£₽₺₴₩₪]|(?:{_CODE}|Kč|zł|kr)(?!\p{{L}}))", STRONG),
    Rule(rf"(?<![\w.,]){_STARTS}(?i:{_NUMBER})[ -](?:new[ ])?{_OF}(?i:{_CURRENCY}){_CODED}", STRONG),
    Rule(rf"(?<![\w.,]){_STARTS}(?i:{_NUMBER})[ ]{_OF}\p{{Ll}}{{3,12}}[ ]\({_CODE}\)", STRONG),
)

# --- measures --------------------------------------------------------------------------------------------------------
_MEASURE = (  # no milligrams and millilitres: a dose says little about a person, and much to who reads a clinical text
    r"(?:kg|kilo(?:gram(?:me)?)?s?|grams?|grammes?|tonn?es?|tons|ounces|oz|lbs?|stone|litres?|liters?|gallons|km|cm|mm|"
    r"(?:kilo|centi|milli)?met(?:re|er)s?|miles?|feet|foot|ft|inch(?:es)?|yards|hectares?|acres?|m2|m²|hp|kwh|"
    r"sq(?:uare|\.)?[ ](?:met(?:re|er)s?|feet|foot|ft|yards|miles|kilomet(?:re|er)s|m)|cubic[ ]met(?:re|er)s)(?!\p{L})"
)
_SIZES = (
    Rule(rf"(?i)(?<![\w.,])(?:{_DIGITS}[ ]?(?:by|x|×)[ ]?)?{_DIGITS}{_SCALE}?[ -]?{_MEASURE}", FAIR),
    Rule(rf"(?i)(?<!\w)(?={_SPELLED}){_WORDS}[ -]{_MEASURE}", FAIR),
    Rule(r"(?i)(?<![\w.,])\d{1,5}(?:[.,]\d{1,2})?[ ]?(?:%|per[ ]?cent\b|percent\b)", WEAK),
)

# --- terms and lengths of time ---------------------------------------------------------------------------------------
_COUNT = rf"(?:\d{{1,4}}|{NUMBER_WORD})"
_HALF = r"(?:[ ]and[ ]a[ ]half)?"
_LENGTH = rf"(?:{_COUNT}{_HALF}[ -](?:years?|months?|weeks?|days?|hours?)|an?[ ](?:year|month|week)(?:[ ]and[ ]a[ ]half)?)"
_TERM = rf"{_LENGTH}(?:(?:,|,?[ ]and)[ ]{_LENGTH}){{0,3}}"
_TIMES = (
    Rule(
        rf"(?i)\b(?:{_TERM}['’]?|life)[ ](?:of[ ])?(?:rigorous[ ]|strict[ ]|suspended[ ])?"
        r"(?:imprisonment|(?:in[ ])?(?:prison|jail|custody|detention)\b|deprivation[ ]of[ ]liberty|community[ ]service|"
        r"hard[ ]labour|(?:prison[ ])?sentence\b|probation)",
        STRONG,
    ),
    Rule(rf"(?i)\b(?:suspended[ ])?(?:sentence|term|tariff)[ ]of[ ](?P<value>{_TERM})\b", STRONG),
    Rule(rf"(?i)\b{_LENGTH}(?:(?:,|,?[ ]and)[ ]{_LENGTH}){{1,3}}\b", STRONG),
    Rule(
        rf"(?i)\b(?:for|over|nearly|almost|than|after|about|some|within"
        rf"|of)[ ](?P<value>{_COUNT}{_HALF}[ ]years)\b(?![ -]old)",
        FAIR,
    ),
    Rule(rf"(?i)\b(?P<value>{_COUNT}{_HALF}[ ](?:years?|months?|weeks?|days?))[ ](?:later|earlier)\b", FAIR),
    Rule(rf"(?i)\b{_COUNT}{_HALF}[ -](?:years?|months?|weeks?|days?|hours?)\b(?![ -](?:old|ago|of[ ]age))", WEAK),
)

AMOUNTS = (*_MONEY, *_SIZES, *_TIMES)
# Beside these a length of time or a share is about somebody: detention and trials, work and earnings, illness, family.
AMOUNT_CONTEXT = (
    *("sentence", "imprison", "prison", "custody", "detention", "detain", "remand", "arrest", "jail", "probation", "tariff"),
    *(
        "serving",
        "served",
        "suspended",
        "proceedings",
        "pending",
        "delay",
        "lasted",
        "adjourn",
        "prolong",
        "extend",
        "excluded",
    ),
    *("employed", "worked", "unemployed", "married", "divorce", "separated", "pregnan", "cohabit", "hospitali", "in hospital"),
    *("unfit", "bedridden", "in care", "sick leave", "incapacit", "disab", "invalid", "share", "stake", "salary", "wage"),
    *("pension", "earn", "stay of", "a period of", "ban on", "banned", "disqualif", "visit", "contact"),
)
