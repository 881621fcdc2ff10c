"""Rules for what somebody is or has: occupation, origin, health, family.

No such word names a person, and all of them together do. A noun alone is no finding (`ask a doctor`, `the nurse rang`): it
counts where it is said of somebody, after a verb of being or working, between commas after a name, or beside a word such as
`retired`; a condition counts after `diagnosed with` and the like.
"""

from __future__ import annotations

from pipeline.scrub._secrets import FAIR, STRONG, Rule

# --- occupation and standing -----------------------------------------------------------------------------------------
_NOUN = (  # what the endings below do not make
    r"(?:architect|artist|agent|accountant|assistant|barman|barmaid|bailiff|butcher|chef|chief|clerk|civil[ ]servant|cook|"
    r"coach|dentist|doctor|(?:vice-)?chair(?:man|woman|person)?|(?:deputy[ ])?mayor|editor(?:-in-chief)?|expert|guard|guide|"
    r"labourer|mechanic|midwife|model|nanny|notary|nun|nurse|paramedic|pharmacist|physician|pilot|poet|president|priest|"
    r"judge|prosecutor|secretary|soldier|student|pupil|surgeon|sailor|tailor|councillor|counsellor|chancellor|governor|technician|therapist|undergraduate|warden|attorney|"
    r"lieutenant|sergeant|corporal|captain|major|colonel|general|constable|cadet|conscript|private|admiral|imam|rabbi|pastor|"
    r"monk|vicar|chaplain|bishop|consul|diplomat|ambassador|athlete|acrobat|prostitute|"
    r"pensioner|widow(?:er)?|orphan|minor|invalid|refugee|asylum[ -]seeker|prisoner|inmate|detainee|convict|recidivist|"
    r"homosexual|lesbian|transsexual|transgender[ ](?:man|woman)|bachelor|spinster|housewife|homemaker|breadwinner|"
    r"alcoholic|drug[ ](?:addict|user)|addict|smoker|native[ ]speaker|citizen|national|immigrant|migrant|"
    r"(?:jewish|muslim|christian|catholic|protestant|orthodox|buddhist|hindu|sikh)|jew|muslim|christian|catholic|protestant|"
    r"buddhist|hindu|sikh|atheist|pacifist|conscientious[ ]objector|jehovah['’]s[ ]witness|vegetarian|twin|only[ ]child|"
    r"single[ ](?:mother|father|parent)|(?:mother|father|parent)(?=[ ]of[ ])|graduate|apprentice|trainee|intern|cleric|"
    r"shepherd|steward(?:ess)?|waitress|actress|hostess|seamstress|typist|servant|attendant|chauffeur|courier"
    r"|analyst|consultant|electrician|"
    r"bricklayer|police(?:[ ]officer|man|woman)|\p{Ll}{3,12}(?:smith|wright|monger|woman|keeper)|[\p{Ll}]{2,9}(?<!hu|wo)man)"
)
_NOT = (  # the same endings, and nobody's trade
    r"(?!(?:number|matter|letter|order|paper|computer|member|september|october|november|december|offer|answer"
    r"|danger|disaster|"
    r"factor|error|mirror|floor|door|reminder|border|corner|counter|cover|centre|center|chapter|daughter"
    r"|mother|father|sister|"
    r"brother|dinner|summer|winter|ladder|leader|layer|river|tower|shower|trailer|printer|router|server|folder|header|filter|"
    r"power|further|another|other|older|newer|bigger|smaller|larger|better|later|minor|major|former|proper"
    r"|similar|never|ever|"
    r"over|under|after|per|tumor|motor|doctor|author|editor|monitor|sensor|conductor|reactor|vector|favor|flavor|color|honor|"
    r"transfer|refer|user|customer|caller|holder|buyer|winner|loser|newcomer|stranger|killer|career|volunteer|charger|"
    r"adapter|carrier|barrier|supplier|courier|deal[ ]breaker|blocker|speaker|scanner|timer|poster|starter|reader|marker|"
    r"human|woman|german|roman|ottoman|list|twist|wrist|artist|assist|exist|waist|checklist|wishlist|mist|fist|gist|toner|"
    r"hamburger|blister|wonder|laser|buffer|cluster|character|register|parameter|meter|super|sector|visitor"
    r"|passenger|survivor|prisoner of war|competitor|contributor|investor|trigger|prayer|murder|"
    r"manner|banner|partner|owner|player|driver['’]s|container|feeder|booster|fever|liver|cancer|ulcer|fibre|timber|rubber)"
    r"\b)"
)
_ENDS = (  # no noun follows, so that `a cheaper offer` is no trade
    r"(?=\s*(?:[.,;:!?)\"”]|\Z)|[ ](?:and|or|but|at|by|from|in|of|for|with|who|whose|on|to|when|while|since"
    r"|living|working|employed|"
    r"practising|aged|born|then|until|before|after|under)\b)"
)
_ENDING = rf"\p{{Ll}}{{5,17}}+(?<=er|[tcs]or|ist|ician|ologist)\b{_ENDS}"
_WORD = rf"(?:(?:{_NOT}{_ENDING}|{_NOUN})\b)"
_ABOUT = r"(?:\p{Ll}{3,16}+(?:-\p{Ll}{1,10}|['’]s)?[ ])"  # words before the noun
_STRONG_WORD = (
    r"(?:retired|former|unemployed|self-employed|practising|serving|seasonal|freelance|unskilled|trainee|disabled|elderly|"
    r"trained|qualified|ex-)"
)
_AT = r"(?:[ ](?:by[ ](?:profession|trade|training|occupation)|of[ ](?:parliament|law|medicine|science|philosophy))\b)?"
_NP = rf"(?:{_ABOUT}){{0,2}}?{_WORD}{_AT}"
_PEOPLE = r"\p{Lu}[\p{Ll}-]+(?:[ -]\p{Lu}[\p{Ll}-]+)?"
_BE = r"(?:is|was|am|are|were|been|being|become|became|remained|i['’]m|(?:he|she)['’]s)"
_WORK = (
    Rule(
        rf"(?i)\b{_BE}[ ](?:(?:then|also|now|currently|himself|herself|both|previously|already|still|at[ ]the[ ]time)[ ])?"
        rf"(?P<value>(?:an?|the)[ ]{_NP})",
        FAIR,
    ),
    Rule(
        r"(?i)\b(?:work(?:s|ed|ing)?|employ(?:ed|ment)|job|serv(?:ed|ing)|post|position|practi[sc](?:es|ed|ing)"
        r"|trained|qualified|"
        rf"career|engaged|dismissed|hired|appointed|elected)[ ]as[ ](?P<value>(?:(?:an?|the)[ ])?{_NP})",
        FAIR,
    ),
    Rule(
        rf"(?i:,[ ](?P<value>(?:an?|the)[ ]{_NP}))(?=[,;.)]|[ ](?:and|at|by|from|in|living|who|of|aged|born|working|with|for|"
        r"practising|employed|specialising|whose|on|resident|which)\b)",
        FAIR,
    ),
    Rule(rf"(?i)\b(?:an?|the)[ ](?:(?:\p{{L}}{{3,14}})[ ])?{_STRONG_WORD}[ -]?(?:\p{{Ll}}{{3,16}}[ ])?{_WORD}{_AT}", STRONG),
    Rule(
        r"(?i)\b(?:was|is|were|been|became|remained|am|being)[ ](?P<value>unemployed|self-employed|retired"
        r"|illiterate|homeless)\b",
        STRONG,
    ),
    Rule(rf"(?i)\b(?:rank|profession|post)[ ]of[ ](?:an?[ ])?(?P<value>{_NP})", FAIR),
    Rule(r"(?i)\bmembers?[ ]of[ ]parliament\b", FAIR),
    Rule(r"(?ri)\b(?:\p{L}{3,15}[ -]){0,2}\p{L}{3,20}[ ]by[ ](?:profession|occupation|trade|training|ethnicity)\b", FAIR),
    Rule(  # Anna Kowalska, housewife, came
        rf"\p{{Lu}}[\p{{L}}'’-]{{1,20}},[ ](?P<value>(?:{_ABOUT}){{0,2}}?{_WORD})(?=[,;])",
        FAIR,
    ),
    Rule(  # was deputy head of the customs post
        rf"(?i)\b{_BE}[ ](?P<value>(?:an?[ ]|the[ ])?(?:former[ ]|deputy[ ])?(?:head|director|manager|chair(?:man|woman)?"
        r"|member|owner|founder|headmaster|treasurer)[ ]of[ ](?:the|an?)[ ](?:\p{L}{3,15}[ ])?\p{L}{3,15})",
        FAIR,
    ),
)

# --- origin, faith ---------------------------------------------------------------------------------------------------
_ORIGIN = (
    Rule(
        rf"(?<!\p{{L}})(?=\p{{Lu}}|an?[ ]\p{{Lu}}|stateless|ethnic)(?:[Aa]n?[ ])?(?:(?:stateless"
        rf"|ethnic)[ ])?{_PEOPLE}(?:[ ](?:and|or)[ ]{_PEOPLE})?[ ]"
        rf"(?:nationals?|citizens?|asylum[ -]seekers?|refugees?|immigrants?)\b(?:[ ]of[ ]{_PEOPLE}[ ](?:origin|descent)\b)?",
        STRONG,
    ),
    Rule(rf"\b[Aa][ ](?:citizen|national|native|subject)[ ]of[ ](?:the[ ])?{_PEOPLE}", STRONG),
    Rule(
        rf"\bof[ ](?:mixed[ ]|ethnic[ ])?{_PEOPLE}(?:(?:[ ]and[ ]|/){_PEOPLE})?[ ](?:(?:ethnic|national)[ ])?"
        r"(?:origin|descent|ethnicity|extraction|background|heritage|ancestry|nationality|faith)\b",
        STRONG,
    ),
    Rule(
        rf"\b(?:members?[ ]of|belong(?:s|ed|ing)?[ ]to)[ ]the[ ]{_PEOPLE}[ ](?:ethnic[ ]|national[ ])?"
        r"(?:minority|community|clan|caste|tribe|people|faith|Church|religion)\b",
        STRONG,
    ),
    Rule(rf"\b(?:[Aa]n?[ ])?ethnic[ ]{_PEOPLE}\b", FAIR),
    Rule(
        rf"\b{_BE}[ ]"
        rf"(?P<value>an?[ ](?:stateless[ ])?\p{{Lu}}\p{{Ll}}+(?:[ ]\p{{Lu}}\p{{Ll}}+)?)"
        r"(?=[,.;]|[ ](?:and|by|of|who|from|with)\b)",
        FAIR,
    ),
)

# --- health ----------------------------------------------------------------------------------------------------------
_STOP = (
    r"(?!(?:and|or|but|by|since|in|on|at|after|for|which|that|when|who|as|from|to|was|were|is|had|has|until"
    r"|while|during|with|the|"
    r"this|these|those|it|he|she|they|his|her|their|my|your|our|any|no|not|due|because|despite|before)\b)"
)
_PHRASE = (
    rf"(?:an?[ ])?{_STOP}[\p{{L}}-]{{2,24}}(?:[ ]{_STOP}[\p{{L}}'’-]{{1,24}}){{0,3}}(?:[ ]of[ ](?:the[ ])?"
    rf"(?:{_STOP}[\p{{L}}-]{{3,16}})(?:[ ]\p{{Ll}}{{3,14}})?)?"
)
_ILL = (
    r"(?:[\p{L}-]{2,20}(?:itis|osis|a?emia|pathy|algia|phrenia|plegia|trophy|lepsy|lexia|sclerosis)|asthma|"
    r"(?:cerebral[ ])?palsy|incontinence|burnout|concussion|hae?matomas?|bruis(?:es|ing)|abrasions?|lacerations?|"
    r"scars?|amputations?|miscarriage"
    r"|diabet(?:es|ic)|cancer|tumour|tumor|leuk\p{L}+|"
    r"lymphoma|carcinoma|melanoma|hypertension|depression|anxiety|autism|dementia|epilepsy|tuberculosis"
    r"|pneumonia|stroke|HIV|AIDS|"
    r"psychosis|schizophrenia|alcoholism|paranoia|migraines?|insomnia|obesity|malaria|eczema|angina|"
    r"(?:[\p{L}’'-]{2,18}[ ]){0,3}(?:disease|disorder|syndrome|disabilit(?:y|ies)|impairment|infection|illness"
    r"|injur(?:y|ies)|"
    r"fever|failure|attacks?|dependence|dependency|addiction|tuberculosis|defect|ulcers?|fractures?|hernia"
    r"|hepatitis(?:[ ][A-E]\b)?))"
)
_HAD = r"(?:has|had|have|having|with|of|from|for|as|to|by)"
_HEALTH = (
    Rule(
        r"(?i)\b(?:diagnosed[ ](?:with|as[ ]having)|diagnosis[ ]of|infected[ ]with|ill[ ]with|treated[ ](?:him[ ]"
        r"|her[ ])?for|"
        rf"treatment[ ]for)[ ](?P<value>{_PHRASE}(?:(?:,|[ ]and|,[ ]and)[ ](?:{_ILL}))*)",
        FAIR,
    ),
    Rule(
        rf"(?i)\bsuffer(?:s|ed|ing)?[ ](?:from[ ])?(?P<value>(?:an?[ ])?(?:{_STOP}[\p{{L}}-]{{3,18}}[ ]){{0,3}}?{_ILL}"
        rf"(?:(?:,|[ ]and|,[ ]and)[ ](?:[\p{{Ll}}-]{{3,18}}[ ]){{0,2}}?{_ILL})*)",
        FAIR,
    ),
    Rule(
        rf"(?i)\b(?:has|had|having|with|described|developed|showed|recorded|established|revealed)[ ]"
        rf"(?P<value>an?[ ](?:[\p{{Ll}}-]{{3,18}}[ ]){{0,3}}?(?:{_ILL}|fracture|concussion|haematoma)"
        r"(?:[ ]of[ ](?:the|his|her)[ ](?:\p{Ll}{3,12}[ ])?\p{Ll}{3,12})?)",
        FAIR,
    ),
    Rule(  # his reactive depression, Mr Kowalski's stroke
        r"(?:\b(?i:his|her|their|my|whose)|\p{Lu}\p{Ll}{2,20}['’]s|(?i:\b(?:client|applicant|patient|plaintiff|child|mother|father"
        rf"|son|daughter)['’]s))[ ](?P<value>(?:\p{{Ll}}{{4,15}}[ ])?(?!(?:failure|attack|defect|dependenc)){_ILL})(?![ ]to\b)",
        FAIR,
    ),
    Rule(
        rf"\b(?:has|had|having|with|has had|noted|recorded|mentioned|developed|sustained|complaints of)[ ]"
        rf"(?P<value>(?:an?[ ])?(?:{_STOP}[\p{{Ll}}-]{{4,15}}[ ]){{0,2}}?(?!(?:failure|attack|defect|dependenc)){_ILL}"
        rf"(?:[ ](?:on|of|to|in)[ ](?:the|his|her|both)[ ](?:\p{{Ll}}{{3,12}}[ ])?\p{{Ll}}{{3,12}})?"
        rf"(?:(?:,|[ ]and|,[ ]and)[ ](?:an?[ ])?(?:\p{{Ll}}{{4,15}}[ ])?{_ILL})*)",
        FAIR,
    ),
    Rule(r"(?i)\b(?:\d{1,2}|one|two|three|four|five|six|seven|eight|nine)[ ](?:weeks|months?)[ ]pregnant\b", STRONG),
    Rule(
        r"(?i)\b(?:post-?traumatic[ ]stress[ ]disorder|PTSD|HIV[ -]positive|wheelchair[ -]bound|paraplegic|quadriplegic)\b",
        FAIR,
    ),
    Rule(
        r"(?i)\b(?:is|was|been|are|were|became|become|being)[ ](?:(?:partially|completely|totally|almost|severely"
        r"|profoundly|mentally|"
        r"physically|visually|since[ ]birth)[ ])?"
        r"(?P<value>deaf(?:[ ]and[ ]mute)?|blind|disabled|impaired|paralysed|paralyzed|handicapped|epileptic"
        r"|diabetic|autistic|pregnant|infertile)\b",
        FAIR,
    ),
)

# --- family ----------------------------------------------------------------------------------------------------------
_FAMILY = (
    Rule(
        r"(?i)\b(?:has|have|had|having|with|of|raised|the|his|her|their|my)[ ]"
        r"(?P<value>(?:two|three|four|five|six|seven|eight|nine|ten|\d{1,2})[ ]"
        r"(?:(?:minor|young|small|adult|grown-up|other)[ ])?(?:children|sons|daughters|kids|siblings|brothers|sisters))\b",
        FAIR,
    ),
    Rule(
        r"(?i)\b(?:(?:an?|the)[ ])?(?:single[ ]|divorced[ ]|widowed[ ])?(?:mother|father|parent)s?[ ]of[ ]"
        r"(?:(?:\d{1,2}|one|two|three|four|five|six|seven|eight|nine|ten|an?)(?:[ ](?:minor|young|small|adult|grown-up))?"
        r"(?:[ ](?:children|sons?|daughters?|girls?|boys?|child))?)\b",
        STRONG,
    ),
    Rule(
        r"(?i)\b(?:is|was|are|were|been|being)[ ](?P<value>widow(?:ed|er)?|divorced|unmarried|orphaned|homosexual"
        r"|gay|lesbian|transgender)\b",
        FAIR,
    ),
)

_FAMILY += (Rule(r",[ ](?P<value>divorced|widowed|unmarried|cohabiting)(?=[,;.])", FAIR),)

TRAITS = (*_WORK, *_ORIGIN, *_HEALTH, *_FAMILY)
