"""What may be kept of text that others wrote: bounded, free of control characters, and without credentials.

Providers echo keys ("Incorrect API key provided: sk-…"), proxies echo whole requests, and the exceptions of HTTP clients
quote URLs. What an error keeps of them is for a person to read, and may end in a log: so it goes through here. Scrubbing
comes before truncation, and looks a margin beyond the cut: half a key is a leak too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

EXCERPT_CHARS: Final = 2000
"""The most characters of a body, or of a provider's message, that an error keeps."""

SHORTEST_SECRET_CHARS: Final = 8
"""What `blot_out` takes for a key. Those of providers are several times as long."""

REDACTED: Final = "***"
"""What stands where a credential stood."""

_MARGIN_CHARS: Final = 512
"""How far past the cut `excerpt` looks: more than any pattern below needs to recognise what it hides."""

_CONTROLS: Final = dict.fromkeys(c for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n")
"""Control characters, to be deleted: they garble a terminal, and a NUL after each letter (UTF-16) hides a key."""

# Each pattern marks what to hide: its group ``secret``. All are linear: what may repeat is bounded, or ends a match that can
# no longer fail. The names are searched for anywhere, so ``api-key`` finds ``x-goog-api-key`` and ``OPENAI_API_KEY`` too.
_NAME = (
    r"(?:(?:api|auth|subscription|access|secret|private|virtual|account|shared)[-_ ]{0,2}key|authorization|bearer"
    r"|(?:access|refresh|id|session|auth|security)[-_ ]?token|secret(?:[-_][a-z]{1,16})?|passw(?:or)?d|passphrase"
    r"|(?<=[?&])(?:key|token|sig|signature|code))"
)
_WEAK_NAME = r"(?:key|token|credential|signature)s?"
_WORDS = r"(?:[ ]{1,2}[a-z]{1,16}){0,3}"  # "Incorrect API key as provided: …"
_IS = r"""["'`\\)\]]{0,6}\s{0,4}(?::=?|={1,2}>?|%3[ad])\s{0,4}[(\[]?\\{0,3}["'`]?"""  # ``": "``, ``=``, ``\": \"``, ``%3D``
_VALUE = (
    r"""(?P<secret>(?<=[^\\]")(?:[^"\\]|\\[\s\S])++"""  # in quotes: all up to the closing one
    r"""|(?<=\\")(?:[^"\\]|\\[^"])++"""  # in quotes of JSON inside JSON
    r"""|(?<=')(?:[^'\\]|\\[\s\S])++"""
    r"""|(?:(?:bearer|basic|digest|token|apikey)\s{1,4})?(?:[^\s"'`&,;<>(){}\[\]\\]|\\/)++)"""
)
_KEY_CHAR = r"(?:[\w\-.~+/=*%]|\\/)"
_BLANK = r"(?:\s|%20|\+)"
_APART = r"(?:(?<![a-z0-9])|(?<=%[0-9a-f]{2})|(?<=\\[nrt])|(?<=\\u[0-9a-f]{4}))"  # "task-force" holds no key; "\nsk-…" may
_CREDENTIALS: Final = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        _NAME + _WORDS + _IS + _VALUE,
        _WEAK_NAME + _IS + rf"(?P<secret>{_KEY_CHAR}{{12,}})",
        r"cookie2?" + _IS + r"""(?P<secret>[^"'\r\n<]++)""",
        rf"bearer{_BLANK}{{1,4}}(?:token{_BLANK}{{1,4}})?+(?!(?:token|auth|authentication)(?!{_KEY_CHAR}))(?P<secret>{_KEY_CHAR}++)",
        r"://(?P<secret>[^\s/@?#\"'<>]{1,256}+)@",
        # what shows by its first letters that it is a key: of OpenAI, Anthropic, Groq, xAI and kin, of Google, of AWS
        _APART + r"(?P<secret>(?:sk|pk|rk|gsk|xai|pplx|nvapi|hf|r8|csk|tgp|gh[opsu]|github_pat|glpat)[-_][\w\-*.]{6,})",
        r"(?P<secret>(?-i:AIza|ya29\.|GOCSPX-|1//0|1\\/\\/0)[\w\-.]{8,})",
        r"(?P<secret>(?-i:(?:AKIA|ASIA)[A-Z0-9]{12,}))",
        r"(?P<secret>(?-i:eyJ)[\w\-]{6,}(?:\.[\w\-+/=]*+){0,4})",  # a JSON Web Token: the base64 of ``{"``
        r"(?P<secret>-----BEGIN[A-Z ]{0,40}PRIVATE KEY(?:[^-]|-(?!----END))*+)",
    )
)


def scrub(text: str, secrets: Sequence[str] = ()) -> str:
    """``text`` with ``***`` for whatever looks like a credential, and for each of ``secrets`` (known ones, exactly).

    It recognises values that follow a name (``api_key=…``, ``x-api-key: …``, ``"password": "…"``, ``Bearer …``,
    ``?key=…``), keys with a telling prefix (``sk-…``, ``AIza…``), JSON Web Tokens, cookies and private keys. When in
    doubt it hides too much.
    """
    return _hide(text, _credential_spans(text, secrets), len(text))


def excerpt(body: bytes | str, secrets: Sequence[str] = ()) -> str:
    """What may be kept of ``body``: at most `EXCERPT_CHARS` characters, scrubbed as by `scrub`, ending in ``…`` if cut.

    Bytes are read as UTF-8 with replacement; control characters but tab and line feed are dropped. Only a bounded prefix
    is looked at, so the size of ``body`` costs nothing.
    """
    margin = max([_MARGIN_CHARS, *map(len, secrets)])
    seen = EXCERPT_CHARS + margin
    if isinstance(body, str):
        text = body[:seen].encode("utf-8", "replace").decode()  # a lone surrogate could not be written anywhere
    else:
        text = body[: 4 * seen].decode("utf-8", "replace")[:seen]
    whole = len(body) == len(text) if isinstance(body, str) else len(body) <= 4 * seen and len(text) < seen
    text = text.translate(_CONTROLS)
    # A credential that straddles the end of what was seen may go unrecognised: the margin before that end is not kept.
    keep = min(EXCERPT_CHARS, len(text) if whole else len(text) - margin)
    kept = _hide(text, _credential_spans(text, secrets), max(keep, 0))
    if whole and keep == len(text) and len(kept) <= EXCERPT_CHARS:
        return kept
    return kept[: EXCERPT_CHARS - 1] + "…"


def blot_out(text: str, secrets: Sequence[str]) -> str:
    """``text`` with ``***`` for each of ``secrets``, and for the beginning of one where a cut text ends in it.

    What is shorter than `SHORTEST_SECRET_CHARS` is left: that would rather spoil words than hide a key.
    """
    for secret in secrets:
        if len(secret) < SHORTEST_SECRET_CHARS:
            continue
        text = text.replace(secret, REDACTED)
        end = text.removesuffix("…")
        for size in range(len(secret) - 1, SHORTEST_SECRET_CHARS - 1, -1):
            if end.endswith(secret[:size]):
                text = end[:-size] + REDACTED
                break
    return text


def _credential_spans(text: str, secrets: Sequence[str]) -> list[tuple[int, int]]:
    """Where to hide, in order of start. All patterns see the original, so that none hides another's clue."""
    spans = [match.span("secret") for pattern in _CREDENTIALS for match in pattern.finditer(text)]
    for secret in filter(None, secrets):
        spans += [match.span() for match in re.finditer(re.escape(secret), text)]
    return sorted(spans)


def _hide(text: str, spans: Sequence[tuple[int, int]], keep: int) -> str:
    """The first ``keep`` characters of ``text``, each run of (overlapping or touching) spans replaced by one mark."""
    pieces: list[str] = []
    done = 0
    for start, end in spans:
        if start >= keep:
            break
        if start > done or not pieces:
            pieces += [text[done:start], REDACTED]
        done = max(done, end)
    return "".join([*pieces, text[done:keep]])
