r"""Our own recognisers, as data: regular expressions for values that Presidio misses or scores below a usual minimum.

A rule's score is what it earns without help; a word of `CONTEXT` near the match raises it by 0.35, and to 0.4 at least
(Presidio's convention), so a rule at `WEAK` counts only beside such a word. Where a rule has a group `value`, only that
group is the finding. Repetitions are bounded, so that no text makes a rule slow. Dialect: the `regex` module (`\p{Lu}`).
"""

from __future__ import annotations

from pipeline.scrub._ages import AGES
from pipeline.scrub._amounts import AMOUNT_CONTEXT, AMOUNTS
from pipeline.scrub._files import MORE_DATES, MORE_RECORDS
from pipeline.scrub._secrets import FAIR, SECRETS, STRONG, WEAK, Rule
from pipeline.scrub._traits import TRAITS

# --- web -------------------------------------------------------------------------------------------------------------
_TLD = (
    "com|org|net|edu|gov|mil|int|info|biz|io|co|ai|app|dev|me|tv|eu|uk|us|de|fr|es|it|nl|be|ch|at|se|no|dk|fi|pl|cz|sk|hu|"
    "ro|bg|gr|pt|ie|is|si|hr|rs|ua|ru|tr|il|in|cn|jp|kr|tw|hk|sg|my|th|vn|ph|id|au|nz|za|ng|ke|eg|br|ar|mx|cl|pe|ca|online|"
    "site|shop|store|health|care|clinic|bank|law|tech|cloud|email|blog|xyz|club|pro|name|mobi|travel|agency|digital|support"
)
_WORDLIKE = "me|is|in|it|at|be|no|so|us|my|to|am|id|name|care|support|health|bank|law|pro|club|travel|email|store|shop"
_LINK_CHARACTERS = r"[^\s<>\"'()\[\]{}]"
_NO_FULL_STOP = r"(?<![.,;:!?])"
_AT = r"(?:[(\[{<_*-]at[)\]}>_*-]|[ ]at[ ])"
_DOT_WORD = r"(?:[ ]?(?:[(\[{<_*-]dot[)\]}>_*-]|[ ]dot[ ])[ ]?)"
_DOT = rf"(?:{_DOT_WORD}|[ ]?\.[ ]?)"

_EMAIL = (
    Rule(r"[\w.+%'&=~-]{1,128}[ ]?@(?:[ ]|\r?\n(?:>[ ]?){0,9})?(?:[\w-]{1,63}\.){1,8}[\w-]{2,63}", 1.0),
    Rule(r"[\w.+%'&=~/-]{1,128}@\p{L}[\w-]{1,63}", STRONG),  # addresses of an intranet have no dot
    Rule(r"[\w.+-]{1,64}[ ]@[ ][\w-]{1,63}(?:[ ]\.[ ][\w-]{2,63}){1,4}\b", STRONG),
    Rule(
        rf"(?i)(?<![\w.+-])[\w.+-]{{1,64}}(?:{_DOT_WORD}[\w.+-]{{1,64}}){{0,3}}[ ]?{_AT}[ ]?"
        rf"[\w-]{{1,63}}(?:{_DOT}[\w-]{{2,63}}){{0,3}}{_DOT}(?:{_TLD})\b",
        STRONG,
    ),
)
_URL = (
    Rule(rf"(?i)\b(?:https?|ftps?|sftp|ssh|file|ldaps?)://{_LINK_CHARACTERS}{{1,2000}}{_NO_FULL_STOP}", 1.0),
    Rule(rf"(?i)\bwww\d?\.[\w-]{{1,63}}\.{_LINK_CHARACTERS}{{2,2000}}{_NO_FULL_STOP}", 1.0),
    Rule(rf"(?<![\w@.-])(?:[\w-]{{1,63}}\.){{1,6}}(?:{_TLD})/{_LINK_CHARACTERS}{{0,2000}}{_NO_FULL_STOP}", STRONG),
    Rule(rf"(?<![\w@.-])(?:[\w-]{{1,63}}\.){{2,6}}(?:{_TLD})\b(?![\w@])", STRONG),
    Rule(rf"(?<![\w@.-])[\w-]{{2,63}}\.(?!(?:{_WORDLIKE})\b)(?:{_TLD})\b(?!@|\.\w)", FAIR),
    Rule(r"(?i)(?<![\w@.-])[\w-]{2,63}\.(?:com|org|net)\b(?!@|\.\w)", FAIR),
)

# --- numbers ---------------------------------------------------------------------------------------------------------
_ALONE, _AFTER = r"(?<![\w./-])", r"(?!\w|[./-]\d)"  # not inside a longer number, code or date
_EXTENSION = r"(?:,?[ ]?(?:x|ext\.?|extension|\#)[ ]?\d{1,6})?(?!\w)"
_PHONE = (
    Rule(rf"(?<![\w+])\+\d{{1,3}}(?:[ ./-]{{0,2}}\(?\d{{1,5}}\)?){{2,6}}{_EXTENSION}", STRONG),
    Rule(rf"{_ALONE}00\d{{1,3}}(?:[ ./-]\(?\d{{1,5}}\)?){{2,6}}{_EXTENSION}", FAIR),
    Rule(rf"{_ALONE}(?:\+?1[-. ]?)?\(?\d{{3}}\)?[-. /]{{0,2}}\d{{3}}[-. ]\d{{4}}{_EXTENSION}", FAIR),
    Rule(rf"{_ALONE}\(?0\d{{1,5}}\)?(?:[ ./-]{{1,2}}\d{{2,8}}){{1,5}}{_AFTER}", FAIR),
    Rule(rf"{_ALONE}\(\d{{2,5}}\)[ ]?\d{{2,4}}(?:[ -]?\d{{2,5}}){{1,3}}{_AFTER}", FAIR),
    Rule(rf"{_ALONE}\d{{2}}(?:[ .-]\d{{2}}){{3,5}}{_AFTER}", FAIR),
    Rule(rf"{_ALONE}\d{{2,4}}[ -]\d{{3,4}}[ -]\d{{3,4}}{_AFTER}", 0.4),
    Rule(rf"{_ALONE}(?:0\d{{9,10}}|[2-9]\d{{2}}[2-9]\d{{6}}){_AFTER}", 0.4),
    Rule(rf"{_ALONE}\(?\d[\d ().-]{{4,18}}\d{_EXTENSION}", WEAK),
    Rule(rf"(?i){_ALONE}\d{{2,4}}(?:[ .-]\d{{2,6}}){{1,4}}(?=[ -]{{1,3}}(?:office|fax|mobile|cell|home|work|direct)\b)", FAIR),
)
_CARD = (  # Presidio asks for a valid check digit; a mistyped card number is still one
    Rule(r"(?<![\w-])\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}(?![\w-])", STRONG),
    Rule(r"(?<![\w-])3\d{3}([ -])\d{6}\1\d{5}(?![\w-])", STRONG),
    Rule(r"(?<![\w-])[2-6]\d{12,18}(?![\w-])", 0.4),
    Rule(r"(?<![\w-])\d{12,19}(?![\w-])", WEAK),
)
_IBAN = (
    Rule(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b", FAIR),
    Rule(r"(?i)\b[A-Z]{2}\d{2}[A-Z0-9]{4}\d{4}[A-Z0-9]{3,22}\b", FAIR),
)
_SSN = (
    Rule(r"(?<![\w-])\d{3}([- .])\d{2}\1\d{4}(?![\w-])", STRONG),
    Rule(r"(?<![\w-])[xX*]{3}-?[xX*]{2}-?\d{4}(?![\w-])", STRONG),
    Rule(r"(?<![\w-])\d{9}(?![\w-])", WEAK),
)
_IP = (
    Rule(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d{1,5})?(?!\w|\.\d)", FAIR),
    Rule(r"(?i)(?<![\w:])(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(?![\w:])", STRONG),
)

# --- dates -----------------------------------------------------------------------------------------------------------
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?"
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_CLOCK = r"(?:[ T,]{1,2}\d{1,2}:\d{2}(?::\d{2})?(?:[ ]?[AaPp]\.?[Mm]\b\.?)?)?"
_DATE = (
    Rule(rf"(?<![\w/.-])\d{{1,4}}([/.-])\d{{1,2}}\1\d{{2,4}}{_CLOCK}(?![\w/]|[.-]\d)", FAIR),
    Rule(
        rf"(?i)\b(?:\d{{1,2}}(?:st|nd|rd|th)?(?:,[ ]|[ ]and[ ]|,[ ]and[ ]|[ ]to[ ]|[ ]?[-–][ ]?)){{1,4}}"
        rf"\d{{1,2}}(?:st|nd|rd|th)?[ ](?:of[ ])?{_MONTH}(?:,?[ ]\d{{4}}\b)?",
        FAIR,
    ),
    Rule(rf"(?i)\b(?:{_WEEKDAY},?[ ]+)?\d{{1,2}}(?:st|nd|rd|th)?[ -](?:of[ ])?{_MONTH}(?:,?[ -]\d{{4}}\b|-\d{{2}}\b)?", FAIR),
    Rule(rf"(?i)\b(?:{_WEEKDAY},?[ ]+)?{_MONTH}[ ]+\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?[ ]+\d{{4}}\b)?", FAIR),
    Rule(rf"(?i)\b(?:{_WEEKDAY},?[ ]+)?(?:{_MONTH}[ ]+)?{_MONTH}(?:,?[ ](?:of[ ])?)\d{{4}}\b", FAIR),
    Rule(rf"(?i)\b{_WEEKDAY}\b", FAIR),
    *MORE_DATES,
    Rule(r"(?i)(?<![\w.])\d{1,2}[.:]\d{2}[ ]?(?:hrs|hours)\b", FAIR),
    Rule(
        r"(?i)\b(?:in|since|until|till|of|from|and|between|by|before|after|during|early|late|mid|year|summer|autumn|spring|winter|"
        r"fall|to|for)[ -](?P<value>(?:19|20)\d{2}(?:[-/–]\d{2,4})?)(?![\w/-]|[.,]\d)",
        FAIR,
    ),
    Rule(r"(?i)\b(?:dob|d\.o\.b|date of birth|born(?: on)?|birth ?day|birth date)\W{1,4}(?P<value>\d[\d ./-]{3,9}\d)", STRONG),
)

# --- names -----------------------------------------------------------------------------------------------------------
_NAME = r"(?:\p{Lu}[\p{L}'’]+(?:-\p{Lu}?[\p{L}'’]+){0,2}|\p{Lu}\.)"
_PARTICLE = r"(?:van|von|der|den|de|del|della|di|da|dos|la|le|el|al|bin|ibn|ben|ter|ten|zu)"
_NAMES = rf"{_NAME}(?:[ \t]{{1,3}}(?:{_PARTICLE}[ \t]{{1,3}}){{0,2}}{_NAME}){{0,3}}"
TITLE = (
    r"(?:(?i:mr|mrs|ms|miss|mx|dr|prof|rev|hon|capt|lt|sgt|messrs|mme|mlle|herr|frau)\b\.?"
    r"|Professor|Doctor|Judge|Justice|Nurse|Sister|Father|Sir|Dame|Lady|Lord|Captain|Officer|Detective|Sergeant|Senator|"
    r"Inspector|Constable|Garda|Agent|Attorney|Bishop|Rabbi|Pastor|Imam|Prince|Princess|Baron|Shri|Smt|Kumari)"
)
_SAYS_NAME = (
    r"(?i:\b(?:my name is|name's|this is|i am called|patient:|patient name:|(?:full |first |last |sur)?name:|attn:?|"
    r"attention:?|c/o|(?:sincerely|regards|wishes|cheers|thanks|thank you|best|yours|love|signed),?))"
)
_PERSON = (
    Rule(r"\((?P<value>\p{Han}{2,4})\)", FAIR),
    Rule(rf"(?<!\w){TITLE}[ \t]+(?:\p{{Lu}}[ ]){{1,3}}{_NAMES}", STRONG),  # Mr J C Kowalski
    Rule(r"(?<![\w.])(?:\p{Lu}[ ]){2,3}\p{Lu}\p{Ll}[\p{L}'’-]+\b", FAIR),
    Rule(rf"(?<!\w){TITLE}[ \t]+(?:(?:and|or|&)[ ]{TITLE}[ \t]+)?(?:(?:{_PARTICLE})[ ]){{0,2}}{_NAMES}", STRONG),
    Rule(r"(?<!\w)(?i:mr|mrs|ms|miss|dr|prof)\.?[ ]+(?P<value>\p{L}[\p{L}'’-]+)", FAIR),  # typed without capitals
    Rule(rf"(?<![\w.])(?:\p{{Lu}}\.[ ]?){{1,3}}(?:{_PARTICLE}[ ]){{0,2}}\p{{Lu}}[\p{{L}}'’-]+\b", FAIR),  # J. R. Kowalski
    Rule(
        r"(?<![\w.&])(?:\p{Lu}\.){2,3}(?=[ ,;:’']|\.?\Z)(?<!U\.S\.|U\.K\.|E\.U\.|U\.N\.|P\.S\.|P\.O\.|D\.C\.|A\.M\.|P\.M\.)",
        FAIR,
    ),
    Rule(r"(?m)^[ \t]*(?P<value>\p{Lu}[\p{L}'’-]+(?:[ ]\p{Lu}[\p{L}'’-]+)?):(?=[ ]?\\?[\"“'‘])", FAIR),  # a speaker
    Rule(
        rf"(?m)^[ \t]*(?i:from|to|cc|bcc|sent by|author|sender|recipient)[ ]?:[ "
        rf"\t]{{0,4}}(?P<value>{_NAMES}(?:[ ]*[,;][ ]*{_NAMES}){{0,9}})",
        STRONG,
    ),
    Rule(
        r"(?i:\bname\b[^?\n]{0,40}\?)\s+(?:\w+:\s+)?(?P<value>\p{L}[\p{L}'’-]+(?:[ "
        r"]\p{L}[\p{L}'’-]+){0,2})(?=\s*(?:[.,;!?)\n]|\Z))",
        FAIR,
    ),
    Rule(r"(?i:\bcalls? (?:me|him|her)|\bknown as|\bnicknamed)[ ](?P<value>\p{Lu}[\p{L}'’-]+)", FAIR),
    Rule(rf"\b[Pp]atient[ ](?P<value>{_NAME}[ ]{_NAMES})", FAIR),
    Rule(
        rf"(?<![\w.])(?:{_NAME}[ ]and[ ])?{_NAMES},?[ ](?:C\.?[ ]?J|J|JJ|L\.?J|LJJ|P\.?J|J\.?A)\b\.?(?!\w|[ ]\p{{Lu}})", FAIR
    ),  # judges
    Rule(rf"(?<!\w){_NAME}[ ][“\"‘'(]\p{{Lu}}[\p{{L}}'’ -]{{1,20}}[”\"’')][ ]{_NAMES}", FAIR),  # John “Jack” Kowalski
    Rule(rf"{_SAYS_NAME}\s{{1,12}}(?P<value>{_NAMES})(?=\s*(?:[.,;:!?)\n]|$))", FAIR),
    Rule(
        r"(?i)\bname(?:'s| is|:)?[ ](?!(?:is|on|of|for|in|and|or|to|the|a|not|was|has)\b)"
        r"(?P<value>\p{L}[\p{L}'’-]+(?:[ ]\p{L}[\p{L}'’-]+){0,2})(?=[ ]*(?:[.,;!?)\n]|$))",
        FAIR,
    ),
    Rule(
        r"(?i:\b(?:dear|hi|hello|hey))[ \t]+(?!(?:All|Team|Sir|Madam|There|Everyone|Folks|Both|Customer)\b)"
        rf"(?P<value>{_NAMES})(?=[ \t]*[,:!.\n-])",
        FAIR,
    ),
)
_BODY = (  # public bodies: their place or kind in front tells who dealt with a person
    r"(?:Court|Tribunal|Prison|Police(?:[ ](?:Station|Department|Directorate|Headquarters))?|Ministry|"
    r"Prosecutor(?:['’]s[ ]Office)?|"
    r"Prosecutor['’]s[ ]Office|Bar(?:[ ]Association)?|Department|Directorate|Council|Municipality|"
    r"Commission|Committee|Agency|Office|"
    r"Authority|Party|Union|Church|Parish|Army|Regiment|Command|Institute|Faculty|Hospital|Centre|Center|Newspaper|Times|Gazette|"
    r"Borough|District|Circuit|Diocese|Registry|Inspectorate|Chamber)"
)
_ORGANIZATION = (
    Rule(
        r"(?<!\w)(?:\p{Lu}[\p{L}\d&.'’-]*,?[ ]){1,4}(?:and[ ]\p{Lu}\p{L}+[ ])?"
        r"(?:LLC|LLP|Inc|Ltd|Limited|PLC|plc|Corp|Corporation|GmbH|AG|SA|SpA|BV|NV|Company|Group|Holdings|& Sons|and Sons|"
        r"Hospital|Medical Cent(?:er|re)|Clinic|Surgery|Hospice|University|College|Institute|Academy|School|Bank|Credit Union|"
        r"Insurance|Health Trust|Foundation|Association|Pharmacy)\b\.?",
        STRONG,
    ),
    Rule(
        rf"(?<!\w)(?:\d{{1,3}}(?:st|nd|rd|th)[ ])?(?:\p{{Lu}}[\p{{L}}'’-]+[ ]){{0,4}}{_BODY}[ ](?:of|for|at|in)[ ]"
        rf"(?:the[ ])?(?!(?i:{_MONTH}|{_WEEKDAY}\b))\p{{Lu}}[\p{{L}}'’-]+(?:[ ]\p{{Lu}}[\p{{L}}'’-]+){{0,2}}"
        rf"|(?<!\w)(?:\p{{Lu}}[\p{{L}}'’-]+[ ]){{1,5}}{_BODY}(?:[ ][Nn]o\.?[ ]?\d{{1,4}})?(?!\p{{L}})"
        rf"|(?<!\w){_BODY}[ ]No\.?[ ]?\d{{1,4}}(?!\w)",
        FAIR,
    ),
    Rule(
        r"(?<!\w)(?!(?:The|This|That|An?|Our|My|His|Her|Their|No|Any|In|At|By|For)\b)\p{Lu}[\p{L}'’-]+[ ]"
        r"(?:(?:remand|district|regional|city|town|county|municipal|military|central|public|psychiatric|savings|general)[ ])?"
        r"(?:police(?:[ ](?:station|department|force))?|prison|court|hospital|clinic|bank|"
        r"prosecutor(?:['’]s[ ]office)?|(?:nursing|care)[ ]home|"
        r"(?:detention|reception|screening|application|health|medical)[ ]cent(?:re|er))\b",
        FAIR,
    ),
    Rule(  # companies by the forms of other countries
        r"(?<!\w)(?:\p{Lu}[\p{L}\d&.'’-]*[ ]|&[ ]|and[ ]){0,4}\p{Lu}[\p{L}\d.'’-]*,?[ ]"
        r"(?:"
        r"s\.r\.o|a\.s|sp\.[ ]?z[ ]?o\.o|d\.o\.o|S\.p\.A|S\.A|S\.r\.l|B\.V|N\.V|Kft|Oy|A/S|ApS|& Co|e\.V|Lda|Pty[ ]Ltd)\b\.?",
        FAIR,
    ),
    Rule(r"(?<!\w)\p{Lu}[\p{L}'’-]+,[ ]\p{Lu}[\p{L}'’-]+,?[ ](?:and|&)[ ]\p{Lu}[\p{L}'’-]+", FAIR),  # partners of a firm
)

# What is joined to a name that the model found: more names to its right, and to its left unless a sentence starts there.
NAMES_AFTER = rf"(?:[ \t]{{1,3}}(?:{_PARTICLE}[ \t]{{1,3}}){{0,2}}{_NAME}){{1,3}}"
NAMES_BEFORE = rf"(?<=[\p{{Ll}},;:][ ])(?:{_NAME}[ ]){{1,2}}\Z"

# --- record numbers --------------------------------------------------------------------------------------------------
_KIND = (
    r"(?i:\b(?:(?:medical|health|patient)[ -]records?|patient|chart|case|claim|account|acct|a/c|policy|ticket|order|invoice|"
    r"reference|ref|booking|confirmation|reservation|membership|member|customer|client|file|incident|request|tracking|"
    r"shipment|parcel|docket|application|employee|staff|student|subscriber|loan|contract|registration|referral|"
    r"prescription|specimen|accession|encounter|admission|transaction|receipt|serial|licen[cs]e|passport|badge|user)s?\b\.?)"
)
_NUMBERED = r"(?:[ \t]*(?i:\b(?:numbers?|nos?|nr|num|id|ids|identifier|code)\b\.?|\#))"
_IS = r"(?:[ \t]*(?i:is|was|are|reads|below|:|=|-|–|\(|\#)){0,3}[ \t]*[\"'(]?"
_CODE = (  # up to six letters, then a run with a digit near its start
    r"(?P<value>(?:[A-Z]{1,6}[ ])?(?=[A-Za-z]{0,6}[/.-]?\d)"
    r"[A-Za-z0-9]{1,24}(?:[-/._][A-Za-z0-9]{1,16}){0,5}(?:[ ]\d{3,12}){0,3})"
)
_THREE_DIGITS = r"(?=[A-Za-z/.-]{0,8}\d[A-Za-z/.-]?\d[A-Za-z/.-]?\d)"
_RECORD = (
    *MORE_RECORDS,
    Rule(rf"{_KIND}{_NUMBERED}{_IS}{_CODE}", STRONG),
    Rule(rf"{_KIND}[ \t]*:?[ \t]*{_THREE_DIGITS}{_CODE}", FAIR),
    Rule(rf"(?<!\w)(?i:nos?)\.[ ]?{_THREE_DIGITS}{_CODE}", FAIR),
    Rule(r"(?<![\w/])(?:[A-Z]{1,4}/){1,3}\d{1,6}/\d{2,4}(?![\w/])", FAIR),
    Rule(r"(?<![\w-])[A-Z]{2}\d{2}[ ]?[A-Z]{3}(?![\w-])", 0.4),  # plates of Great Britain
    Rule(r"(?<![\w-])A[ -]?(?:\d{8,9}|\d{2,3}[ -]\d{3}[ -]\d{3})(?![\w-])", FAIR),  # U.S. registration of aliens
    Rule(rf"\b(?i:mrn|npi|dea|hcn|pnr|vin|crn|urn|ref|inv|tkt|rma|imei)\b\.?{_NUMBERED}?{_IS}{_THREE_DIGITS}{_CODE}", STRONG),
    Rule(r"(?<![\w-])[A-Z]{2,6}[-/]?(?:\d{2,4}[-/])?\d{4,12}(?:[-/]\d{1,6})?(?![\w-])", FAIR),
    Rule(r"(?<![\w-])\#[ ]?(?P<value>[A-Z]{0,4}-?\d{4,15}(?:-\d{1,8}){0,3})(?![\w-])", FAIR),
    Rule(
        r"(?i:\bnos?\.?|numbers?)[ ]?(?P<value>\d{1,6}/\d{2,4}(?:(?:,[ ]|[ ]and[ ]|,[ ]and[ ])\d{1,6}/\d{2,4}){0,30})\b", STRONG
    ),
    Rule(r"(?<![\w/.,-])\d{4,6}/\d{2}(?:\d{2})?(?![\w/-]|[.,]\d)", FAIR),  # application numbers of courts
    Rule(  # file numbers of courts: II CSK 123/05, 4 K 56/99, Ds 12/2001, 2003/456 E., C-123/04
        r"(?<![\w/.-])(?:(?:[IVX]{1,5}|\d{1,3})[ .-]{1,2})?\p{Lu}\p{L}{0,4}\.?[ .-]{1,2}(?:no\.?[ ]?)?\d{1,6}/(?:\d{4}|\d{2})"
        r"(?:[-/.]\d{1,4})?(?![\w/])",
        FAIR,
    ),
    Rule(r"(?<![\w/.-])(?:19|20)\d{2}/\d{1,6}(?:[ ]?-[ ]?(?:19|20)\d{2}/\d{1,6}|[ ](?:[EKD]\.|\p{Lu}\.))?(?![\w/])", FAIR),
    Rule(r"(?<![\w/.-])\d{1,4}[A-Z]{1,4}[ -]?\d{2,8}(?:[-/]\d{1,6}){0,3}(?![\w-])", 0.4),
    Rule(r"(?<![\w/.-])\d{1,2}:\d{2}-(?:cv|cr|mc|md|mj|bk|ap)-\d{3,6}(?:-[A-Z]{2,4}){0,3}(?![\w-])", STRONG),  # U.S. dockets
    Rule(
        r"(?<![\w\[(])[\[(](?:19|20)\d{2}[\])][ ](?:\d{1,3}[ ])?(?:[A-Z]{2,6}|[A-Z]\w{0,4})(?:[ "
        r"](?:Civ|Crim|Admin|Fam|Ch|Div))?[ ]\d{1,5}\b",
        FAIR,
    ),
)

# --- addresses -------------------------------------------------------------------------------------------------------
_COMMON_STREET = (  # in any case
    r"(?i:street|str|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|terrace|parkway|pkwy|highway|hwy|circle|"
    r"crescent|cres|mews|square|sq|turnpike|place|close)"
)
_OTHER_STREET = (  # capitalised only; most of the suffixes of USPS Publication 28
    r"(?:Alley|Bay|Beach|Bend|Bluff|Bottom|Branch|Bridge|Brook|Burg|Bypass|Camp|Canyon|Cape|Causeway|Center|Cliff|Club|Common|"
    r"Corner|Course|Cove|Creek|Crossing|Curve|Dale|Dam|Divide|Estate|Expressway|Extension|Fall|Ferry|Field|Flat|Ford|Forest|"
    r"Forge|Fork|Fort|Freeway|Garden|Gateway|Glen|Green|Grove|Harbor|Haven|Heights|Hill|Hollow|Inlet|Island|Isle|Junction|Key|"
    r"Knoll|Lake|Land|Landing|Light|Loaf|Lock|Lodge|Loop|Mall|Manor|Meadow|Mill|Mission|Motorway|Mount|Mountain|Neck|Orchard|"
    r"Oval|Overpass|Park|Pass|Passage|Path|Pike|Pine|Plain|Plaza|Point|Port|Prairie|Quay|Radial|Ramp|Ranch|Rapid|Rest|Ridge|"
    r"Rise|River|Route|Row|Rue|Run|Shoal|Shore|Skyway|Spring|Spur|Station|Stravenue|Stream|Summit|Throughway|Trace|Track|Trail|"
    r"Trafficway|Tunnel|Underpass|Union|Valley|Via|Viaduct|View|Village|Ville|Vista|Walk|Wall|Way|Well|Wharf|Yard)"
)
_UNIT = (
    r"(?:(?i:apartment|apt|suite|ste|unit|flat|floor|room|rm|building|bldg)\b\.?[ \t]*(?:no\.?[ ]?)?"
    r"[A-Za-z]?-?\d{1,5}[A-Za-z]?\b)"
)
_UK_POSTCODE = r"[A-Z]{1,2}\d[A-Z\d]?[ ]?\d[A-Z]{2}"
_POSTCODE = rf"(?:[A-Z]{{2}}\.?[ \t]+\d{{5}}(?:-\d{{4}})?|{_UK_POSTCODE}|\d{{4,6}}|[A-Z]\d[A-Z][ ]?\d[A-Z]\d)"
_CITY = rf"\p{{Lu}}[\p{{L}}.'’-]{{1,30}}(?:[ ](?:{_PARTICLE}[ ]){{0,2}}\p{{Lu}}[\p{{L}}.'’-]{{1,30}}){{0,2}}"
_TAIL = (
    rf"(?:[ \t]*[,\n]?[ \t]*{_UNIT})?(?:(?:[ \t]*[,\n]\s*){{1,3}}{_CITY}){{0,3}}"
    rf"(?:(?:\s*[,\n]\s*|[ \t]+)(?:[A-Z]{{2,3}}\b[ \t]*)?(?:\s*[,\n])?(?:[ \t]*{_POSTCODE}\b)?)?"
)
_HOUSE = r"(?<![\w-])(?:\d{1,4}[ ]+)?\d{1,6}[A-Za-z]?(?:[-/]\d{1,5})?,?[ \t]+(?:[NSEW]{1,2}\.?[ \t]+)?"
_WORDS = r"(?:(?:\p{Lu}[\p{L}.'’-]{0,30}|\d{1,3}(?:st|nd|rd|th))[ \t]+){1,4}"
_ANY_WORDS = r"(?:\p{L}[\p{L}.'’-]{0,30}[ ]+){0,4}\p{L}[\p{L}.'’-]{1,30}(?:[ ]+\d{1,5}[a-zA-Z]?\b)?"
_PLACE = r"\p{L}[\p{L}.'’-]{1,30}(?:[ ]\p{L}[\p{L}.'’-]{0,30}){0,3}"
_LINES = rf"(?:[ ]{_CITY})?(?:\s*[,\n][ ]*{_PLACE}){{0,3}}(?:,?\s+{_POSTCODE}\b)?"
_NO_MONTH = rf"(?!(?i:{_MONTH}|articles?|sections?|protocol|rules?|chapters?|page|para|paragraphs?|of|and|in|to|per|at|on)\b)"
_NUMBERED_STREET = (
    rf"(?<![\w.,/-])\d{{1,4}}[A-Za-z]?[ ]{_NO_MONTH}(?:(?:\p{{Lu}}|[CR]/[ ]?)[\p{{L}}.'’-]{{1,30}}[ ]){{1,4}}"
    rf"\d{{1,5}}[A-Za-z]?\b"
)
_GERMANIC = (
    r"(?:straße|strasse|str\.|gasse|weg|platz|allee|gatan|vägen|vej|gade|veien|vei|laan|straat|plein|dijk|gracht|singel|"
    r"steinweg|katu|kuja|tie|utca|gata|plads|stien|stræti|braut|ulica|ulice)"
)
_ROMANCE = (
    r"(?i:rue|avenue|boulevard|via|viale|piazza|corso|calle|avenida|plaza|paseo|rua|travessa|praça|chemin|quai|impasse)[ ]"
    r"(?:(?:de|du|des|la|le|les|del|della|dei|di|da|do|dos|los|las|l'|d')[ ]?){0,3}\p{Lu}[\p{L}'’-]{1,30}"
    r"(?:[ ](?:de[ ])?\p{Lu}[\p{L}'’-]{1,30}){0,4}"
)
_ADDRESS_OF = (
    r"(?i:\b(?:address(?:es)?(?:[ ](?:is|was|to|with|of)|,?[ ]here[ ]they[ ]are)?"
    r"|(?:lives?|living|lived|resid(?:es|ed|ing)|stay(?:s|ing)?|located|based|registered|office is|home is)[ ](?:at|in|on)"
    r"|(?:sen[dt]|ship(?:ped)?|deliver(?:ed)?|mail(?:ed)?|forward(?:ed)?|move[ds]?|went)[ ]"
    r"(?:(?:it|them|this|everything)[ ])?to)\s*:?\s+)"
)
_ADDRESS = (
    Rule(rf"{_HOUSE}{_WORDS}(?:{_COMMON_STREET}|{_OTHER_STREET})s?\b\.?{_TAIL}", STRONG),
    Rule(rf"{_HOUSE}{_ANY_WORDS}[,\s]\s*{_UNIT}{_LINES}", STRONG),
    Rule(rf"{_ADDRESS_OF}(?P<value>{_HOUSE}{_ANY_WORDS}(?:[,\s]\s*{_UNIT})?{_LINES})", FAIR),
    Rule(rf"(?<!\w)(?:{_HOUSE})?\p{{Lu}}[\p{{L}}.-]{{2,30}}{_GERMANIC}[ ]+\d{{1,4}}[a-zA-Z]?\b{_TAIL}", STRONG),
    Rule(rf"{_HOUSE}{_ROMANCE}{_TAIL}", STRONG),
    Rule(rf"{_NUMBERED_STREET}\.?{_TAIL}", FAIR),
    Rule(r"(?<!\w)US(?:S|NS|CGC|NV|CG)[ ]\p{Lu}[\p{L}'’-]{1,30}(?:,?\s+[ADF]PO[ ]A[AEP][ ]\d{5})?", FAIR),  # ships have post
    Rule(
        rf"(?i:\b(?:ul|al|os|pl|str|av|avda|c|u|via|calle)[./][ ]?)\p{{Lu}}[\p{{L}}.'’-]{{1,30}}(?:[ "
        rf"]\p{{Lu}}[\p{{L}}.'’-]{{1,30}}){{0,2}},?[ ]\d{{1,5}}[A-Za-z]?\b{_TAIL}",
        FAIR,
    ),
    Rule(rf"\b{_ROMANCE},?[ ](?:n[°º.]?[ ]?)?\d{{1,5}}[a-zA-Z]?\b{_TAIL}", STRONG),
    Rule(r"(?i)(?<!\w)(?:p\.?[ ]?o\.?[ ]?box|(?:unit|psc|cmr)[ ]+\d{1,5},?[ ]+box)[ ]+\d{1,7}\b", STRONG),
    Rule(r"(?i)\b[adf]po,?[ ]+a[aep][ ]+\d{5}(?:-\d{4})?\b", STRONG),  # military post
    Rule(rf"(?<!\w){_UNIT}", FAIR),
    Rule(  # roads that are known by a number
        r"(?<!\w)(?:(?:North|South|East|West|[NSEW]\.)[ ])?\d{1,3}(?:st|nd|rd|th)[ ]"
        r"(?:Street|Avenue|Road|Place|Drive|St\.|Ave\.)"
        r"|(?<!\w)(?:County|State|Farm|Rural|Forest)[ ](?:Road|Route|Highway)[ ]\d{1,5}\b",
        FAIR,
    ),
    Rule(rf"(?<![\w-])(?:{_UK_POSTCODE}|[A-Z]{{2}}[ ]+\d{{5}}(?:-\d{{4}})?)(?![\w-])", FAIR),
)

RULES: dict[str, tuple[Rule, ...]] = {
    "EMAIL_ADDRESS": _EMAIL,
    "URL": _URL,
    "PHONE_NUMBER": _PHONE,
    "CREDIT_CARD": _CARD,
    "IBAN_CODE": _IBAN,
    "US_SSN": _SSN,
    "IP_ADDRESS": _IP,
    "DATE_TIME": _DATE,
    "PERSON": _PERSON,
    "ORGANIZATION": _ORGANIZATION,
    "RECORD_NUMBER": _RECORD,
    "SECRET": SECRETS,
    "AGE": AGES,
    "STREET_ADDRESS": _ADDRESS,
    "AMOUNT": AMOUNTS,
    "TRAIT": TRAITS,
}

CONTEXT: dict[str, tuple[str, ...]] = {
    "PHONE_NUMBER": (
        *("phone", "telephone", "tel", "cell", "mobile", "call", "fax", "ring", "text", "reach", "whatsapp", "sms", "answer"),
        *("contact", "dial", "number"),
    ),
    "CREDIT_CARD": ("card", "credit", "debit", "visa", "mastercard", "amex", "discover", "cc", "payment"),
    "US_SSN": ("ssn", "social", "security"),
    "AMOUNT": AMOUNT_CONTEXT,
}

_COUNT = r"(?:an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|several|few|couple(?: of)?|many|some|\d{1,3}\b)"
_PERIOD = r"(?:second|minute|min|hour|hr|day|night|week|weekend|month|quarter|year|decade|semester)s?"
_WHEN = (
    r"(?:today|tonight|tomorrow|yesterday|now|morning|afternoon|evening|noon|midnight|daily|nightly|weekly|monthly|yearly|"
    r"annual(?:ly)?)"
)

# What the model finds and nobody is known by: a finding of the entity that matches in full is dropped.
NOT_PERSONAL: dict[str, str] = {
    "PERSON": (
        r"(?i)(?:yes|yeah|yep|no|nope|nah|ok|okay|well|hello|hi|hey|hm+|mm+|uh|um|oh|ah|what|sure|right|true|great|good|fine|gotcha|"
        r"sorry|thanks|thank you|thanx|please|sir|madam|ma['’]?am|doctor|nurse|patient|mom|mum|dad|"
        r"mother|father|son|daughter|wife|"
        r"husband|i|i['’]?m|i['’]ve|you|he|she|it|we|they|all|team|everyone|everybody|folks|there|customer|phone|address|name|e?-?mail|"
        r"ssn|date|office|fax|mobile|gov|govt|applicant|plaintiff|defendant|claimant|respondent|government|agent|court|registrar|"
        r"the|this|that|god|internet|tues|thurs|weds|"
        r"(?:alzheimer|parkinson|crohn|hodgkin|addison|cushing|graves|raynaud|bell|tourette|asperger|babinski)(?:['’]?s)?)[.,!?:]?"
    ),
    "DATE_TIME": (
        rf"(?i)(?:(?:about|around|almost|over|every|each|this|that|these|the|last|next|past|previous|following|first|same|"
        rf"early|late|later|earlier|ago|of|in|for|at|all|other|coming|recent|another|half|more|than|less|at least|"
        rf"{_COUNT}|{_PERIOD}|{_WHEN})[- ]?)+"
    ),
    "ORGANIZATION": (
        r"(?i)(?:asap|ssn|iban|mrn|dob|id|pin|otp|pdf|faq|url|ip|cvv|pto|eta|eod|fyi|btw|atm|gps|sms|usb|api|html|vpn|wifi)s?"
    ),
}
