r"""One notation for answers: Unicode, plain-text and LaTeX ways to write a thing become one LaTeX way.

Only the look changes here, never the meaning. After `normalise` text stands in `\text{...}`, a degree sign is
`\degree`, a currency sign is `\$`, percent is `%`, fractions are `\frac`, digits carry no thin spaces, and neither
formula delimiters nor sizes of brackets are left.
"""

from __future__ import annotations

import re

from reward_models.answers.words import words_of

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u2061\u2062"))
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ",
    "÷": r"\div ", "±": r"\pm ", "∓": r"\mp ", "√": r"\sqrt ", "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ",
    "∈": r"\in ",
    "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ",
    "°": r"\degree ", "º": r"\degree ", "ℝ": r"\mathbb{R}", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}",
    "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}",
    "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "ε": r"\epsilon ", "ℤ": r"\mathbb{Z}",
    "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ", "λ": r"\lambda ",
    "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "ρ": r"\rho ", "σ": r"\sigma ", "Δ": r"\Delta ", "′": "'", "’": "'",
    "“": '"', "”": '"', "⟨": r"\langle ", "⟩": r"\rangle ", "⁄": "/", "∕": "/", "∣": "|", "\u00a0": " ", "\u202f": " ",
    "\u2009": " ", "，": ",", "（": "(", "）": ")", "＝": "=",
}  # fmt: skip
_UNICODE_TABLE = str.maketrans(_UNICODE)
_UNICODE_CUBE_ROOT = re.compile(r"∛\s*([0-9]+)")
_UNICODE_ROOT = re.compile(r"√\s*([0-9]+(?:\.[0-9]+)?)")

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SIZE = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits)(?![a-zA-Z])\.?")
_NO_SPACE = re.compile(r"\\!\s*")
# A line break `\\\\` before one of these is none of them.
_SPACE = re.compile(r"(?<!\\)\\[,;:> ]|\\(?:q?quad|thinspace|enspace|nobreakspace)(?![a-zA-Z])|~|\\phantom\{[^{}]*\}")
_FONT = re.compile(
    r"\\(?:mathbf|mathit|mathsf|mathcal|boldsymbol|bf|underline|bm|vec|overrightarrow|hat|widehat)(?![a-zA-Z])\s*(?:\{([^{}]*)\})?"
)
_TEXT = re.compile(
    r"\\(?:text|mathrm|textbf|textit|textrm|textnormal|mbox|hbox|operatorname\*?|emph|textsf|rm)\s*\{([^{}]*)\}"
)
# Units of one letter are left: `8\\text{ m}`; these are constants and the common variable.
_LETTER_IN_TEXT = re.compile(r"\\text\{([iedx])\}")
_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")
_NO_LETTERS = re.compile(r"\\text\{([^{}A-Za-z£€]*)\}")
# Text with a number in it is an answer set in text.
_WHOLE_TEXT = re.compile(r"\\text\{([^{}]*[0-9][^{}]*)\}")
_MODULO = re.compile(
    r"\(\s*\\?(?:p?mod)\s*\{?([^{}()]*)\}?\s*\)|\\(?:pmod|bmod|mod)(?![a-z])\s*(?:\{([^{}]*)\}|([0-9A-Za-z]))"
)
_OVER = re.compile(r"\{([^{}]*)\\(over|choose)(?![a-zA-Z])([^{}]*)\}")
_INFINITY = re.compile(r"([+-]?)\s*infinity", re.IGNORECASE)
_UNION = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])")
_WITHOUT = re.compile(r"(?<=\\mathbb\{R\})\s*-\s*(?=\\\{)")
_DEGREE = re.compile(r"\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?|\\(?:degree|textdegree)(?![a-zA-Z])")
_TEXT_DEGREE = re.compile(r"\^\s*\{?\s*\\text\{o\}\s*\}?|(?<=[0-9])\s*\^\s*\{\s*o\s*\}")
_SYNONYMS = {
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "dfrac": "frac", "tfrac": "frac",
    "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "varnothing": "emptyset", "lt": "<", "gt": ">",
    "bullet": "cdot", "ast": "cdot", "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "vert": "|",
    "lvert": "|", "rvert": "|", "mid": "|", "colon": ":", "ldots": "dots", "cdots": "dots", "lor": "text{or}",
    "vee": "text{or}", "land": "text{and}", "wedge": "text{and}", "backslash": "setminus", "R": "mathbb{R}",
    "reals": "mathbb{R}", "imath": "i", "varphi": "phi", "varepsilon": "epsilon",
    "pounds": "text{£}", "euro": "text{€}",
}  # fmt: skip
_STACKS = {"over": "frac", "choose": "binom"}
_BARE = frozenset({"<", ">", "[", "]", "|", ":", "i"})
_COMMAND = re.compile(r"\\([a-zA-Z]+)(?![a-zA-Z])")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
_REALS = re.compile(r"\\(?:mathbb|Bbb)\s*\{?\s*R\s*\}?")
_THOUSANDS_MARK = re.compile(r"(?<=[0-9])(?:\{,\}|\\text\{,\}|,\\!)\s*(?=[0-9]{3}(?![0-9]))")
_SPACED_THOUSANDS = re.compile(r"(?<![0-9.,/}a-zA-Z^_])([0-9]{1,3})((?: [0-9]{3})+)(?![0-9]|\s*/)")
# `3 x 4` multiplies, `0x10` does not.
_LETTER_TIMES = re.compile(r"(?<=[0-9])(?<![^0-9.]0)(?<!^0)(?: x |x)(?=[0-9])")
_LEFT_OVER = re.compile(r"(?<=[^0-9\s\\$][.,;])\s*\$$")
_QUOTES = '"`“”'
_SPACE_RUN = re.compile(r"\s+")
_TIGHT = re.compile(r"(?<![0-9A-Za-z}])\s+|\s+(?![0-9A-Za-z\\])")
_TEXT_BODY = re.compile(r"\\text\{([^{}]*)\}")
# `x^{1}2` is not `x^12`.
_BRACED_ONE = re.compile(r"\{([0-9A-Za-z])\}(?![0-9A-Za-z])")
_PLAIN = re.compile(r"[+-]?[0-9]+")


def visible(answer: str) -> str:
    """Drop characters without width, which copying from web pages leaves behind."""
    return answer if answer.isascii() else answer.translate(_INVISIBLE)


def normalise(answer: str) -> str:
    """Return the answer in the one notation; idempotent up to white space."""
    text = visible(answer).strip()
    if _PLAIN.fullmatch(text):
        return text
    text = _plain_ascii(text)
    if "\\\\" in text and "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    text = _unbox(text.replace('\\"', '"'))  # JSON that was not decoded
    if "\\" in text or "$" in text or "~" in text or "{" in text:
        text = _latex(text)
    text = _INFINITY.sub(r"\1\\infty", text) if _INFINITY.fullmatch(text) else text
    text = _WITHOUT.sub(r"\\setminus ", _UNION.sub(r"\\cup ", text))
    text = _LETTER_TIMES.sub(r"\\times ", _without_wrapping(_SPACE_RUN.sub(" ", text)))
    return _SPACED_THOUSANDS.sub(lambda found: found[1] + found[2].replace(" ", ""), text)


def text_key(normalised: str) -> str:
    r"""What of a normalised answer is compared as text: without loose spaces, `\text` and braces around one sign."""
    if _PLAIN.fullmatch(normalised):
        return normalised
    key = _TEXT_BODY.sub(lambda found: found[1].strip(), normalised)
    key = _BRACED_ONE.sub(r"\1", _TIGHT.sub("", key.strip()))
    return key if words_of(normalised) is None else key.casefold()


def _plain_ascii(text: str) -> str:
    if text.isascii():
        return text
    text = _UNICODE_ROOT.sub(r"\\sqrt{\1}", text)
    text = _UNICODE_CUBE_ROOT.sub(r"\\sqrt[3]{\1}", text)
    text = _SUPERSCRIPT_RUN.sub(lambda found: "^{" + found[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda found: "_{" + found[0].translate(_SUBSCRIPTS) + "}", text)
    return text.translate(_UNICODE_TABLE)


def _unbox(text: str) -> str:
    while (box := _BOX.search(text)) is not None:
        end = _closing_brace(text, box.end())
        if end < 0:
            return text
        text = text[: box.start()] + text[box.end() : end] + text[end + 1 :]
    return text


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0) if text[position - 1] != "\\" else 0
        if depth == 0:
            return position
    return -1


def _latex(text: str) -> str:
    text = _NO_SPACE.sub("", _THOUSANDS_MARK.sub("", _SIZE.sub("", text)))
    text = _SPACE.sub(" ", text)
    text = _OVER.sub(lambda found: f"\\{_STACKS[found[2]]}{{{found[1].strip()}}}{{{found[3].strip()}}}", text)
    text = _FONT.sub(lambda found: found[1] or "", text)
    text = _LETTER_IN_TEXT.sub(r"\1", _TEXT.sub(r"\\text{\1}", text))
    text = _TEXT_DEGREE.sub(r"\\degree ", _DEGREE.sub(r"\\degree ", text))
    text = _REALS.sub(r"\\R ", text)
    text = _COMMAND.sub(_synonym, text)
    text = _MODULO.sub(lambda found: r"\pmod{" + (found[1] or found[2] or found[3] or "").strip() + "}", text)
    text = text.replace("\\%", "%").replace("{,}", ",")
    return _dollars(_NO_LETTERS.sub(r"\1", _DELIMITER.sub(" ", text)))


def _synonym(found: re.Match[str]) -> str:
    name = _SYNONYMS.get(found[1])
    if name is None:
        return found[0]
    if name in _BARE:
        return name
    return f"\\{name}" if not name[-1].isalpha() else f"\\{name} "


def _dollars(text: str) -> str:
    """Dollar signs in pairs are delimiters; an odd or escaped one is a currency, or at the end left over."""
    text = _LEFT_OVER.sub("", text)
    bare = text.replace("\\$", "")
    if bare.count("$") % 2 == 0:
        return text.replace("\\$", "\0").replace("$", " ").replace("\0", "\\$")
    return text.replace("\\$", "$").replace("$", "\\$")


def _without_wrapping(text: str) -> str:
    """Take away quotation marks, stars of mark-up and the full stop of a sentence."""
    previous = None
    while text != previous:
        previous = text
        text = text.strip().strip(_QUOTES).strip()
        if text.startswith("**") and text.endswith("**") and len(text) > 4:
            text = text[2:-2]
        while text.endswith("\\\\"):
            text = text[:-2].rstrip()
        whole = _WHOLE_TEXT.fullmatch(text)
        text = text if whole is None else whole[1]
        if text.startswith("=") and "=" not in text[1:]:
            text = text[1:]
        if text.endswith((".", ",", ";")) and not text.endswith(".."):
            text = text[:-1]
    return text
