"""What an error may keep of text that others wrote: nothing that opens a door, and never more than a page."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.scrub import EXCERPT_CHARS, blot_out, excerpt, scrub

OPENAI_KEY = "sk-proj-Ab3dEf6hIj9lMn0pQr2tUv5xYz"
HEX_KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyb2JvdCJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"


def leaks(key: str, text: str, length: int = 6) -> bool:
    """Whether any ``length`` characters of ``key`` in a row are in ``text``."""
    return any(part in text for part in parts(key, length))


def parts(key: str, length: int) -> set[str]:
    return {key[i : i + length] for i in range(len(key) - length + 1)}


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        # by its first letters, wherever it stands
        (f"Incorrect API key provided: {OPENAI_KEY}. See docs.", "Incorrect API key provided: *** See docs."),
        (f"key {OPENAI_KEY} is revoked", "key *** is revoked"),
        (f"line one\\n{OPENAI_KEY}", "line one\\n***"),
        (f"auth%20{OPENAI_KEY}", "auth%20***"),
        (f'say \\u0022{OPENAI_KEY}"', 'say \\u0022***"'),
        ("sk-ant-api03-AbCdEf_Gh-Ij", "***"),
        ("gsk_AbCdEfGh12345678", "***"),
        ("(xai-AbCdEfGh12345678)", "(***)"),
        ("your key sk-abcd***********wxyz is wrong", "your key *** is wrong"),
        ("?AIzaSyA1b2C3d4E5f6G7h8", "?***"),
        ("ya29.a0AfH6SMBx-y_z12345", "***"),
        ("refresh 1//0gAbCdEfGhIjKl", "refresh ***"),
        ("refresh 1\\/\\/0gAbCdEfGhIjKl", "refresh ***"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        (f"jwt={JWT}!", "jwt=***!"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIB-x\n-----END RSA PRIVATE KEY-----", "***-----END RSA PRIVATE KEY-----"),
        ("-----BEGIN PRIVATE KEY-----\nMIIB cut he", "***"),
        # after a name
        ("x-api-key: tiny", "x-api-key: ***"),
        ("api_key=tiny&model=m", "api_key=***&model=m"),
        ("https://h/p?key=tiny&alt=sse", "https://h/p?key=***&alt=sse"),
        ("https://h/p?alt=sse&sig=a%2Fb", "https://h/p?alt=sse&sig=***"),
        ("api_key%3Dtiny end", "api_key%3D*** end"),
        ("OPENAI_API_KEY := tiny", "OPENAI_API_KEY := ***"),
        ("apikey => tiny", "apikey => ***"),
        ('{"api_key": "two words", "model": "m"}', '{"api_key": "***", "model": "m"}'),
        ('{"password": "a\\"b", "n": 1}', '{"password": "***", "n": 1}'),
        ('{"message": "{\\"api_key\\": \\"a b\\", \\"n\\": 1}"}', '{"message": "{\\"api_key\\": \\"***\\", \\"n\\": 1}"}'),
        ("{'client_secret': 'it\\'s', 'n': 1}", "{'client_secret': '***', 'n': 1}"),
        ('{"api_key": "", "secret": "abc"}', '{"api_key": "", "secret": "***"}'),
        ('{"api_key": "never closed', '{"api_key": "***'),
        ("access_token=ab\\/cd,rest", "access_token=***,rest"),
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: ***"),
        ('"authorization": "Bearer a b c"', '"authorization": "***"'),
        ("API key as given: tiny", "API key as given: ***"),
        ("Bearer tiny, please", "Bearer ***, please"),
        ("bearer token tiny", "bearer token ***"),
        ("cookie: a=b; c=d", "cookie: ***"),
        ('"Set-Cookie": "a=b; c=d"', '"Set-Cookie": "***"'),
        ("https://user:word@host/", "https://***@host/"),
        # after a weaker name, only what is as long as a key
        (f"Key Hash (Token) ={HEX_KEY}. Unable", "Key Hash (Token) =*** Unable"),
        (f'"key": "{HEX_KEY}"', '"key": "***"'),
        ('"token": "abcdef\\/ghijkl"', '"token": "***"'),
        # two runs that touch or overlap leave one mark
        (f"api_key={OPENAI_KEY}", "api_key=***"),
        (f"Bearer {JWT}", "Bearer ***"),
        (f"{OPENAI_KEY} was sent as api_key=tiny", "*** was sent as api_key=***"),
    ],
)
def test_credentials_are_hidden(text: str, scrubbed: str) -> None:
    assert scrub(text) == scrubbed
    assert excerpt(text) == scrubbed
    assert scrub(scrubbed) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "invalid x-api-key",
        '{"error": {"code": "invalid_api_key", "type": "invalid_request_error", "param": null}}',
        '{"error": {"message": "missing bearer token", "type": "auth_error"}}',
        "Bearer authentication",
        "max_tokens: 4096 is above 2048",
        '"token": "the"',
        "a task-force for desk-research on the network-protocol",
        "region asia-southeast1-docs",
        "https://api.openai.com/v1/chat/completions?api-version=2024-10-21",
        "https://api.openai.com/v1/models/claude@20250514",
        '"model": "gpt-4o", "request_id": "req_011CdufXo8Y2LVfY2veyuQWG"',
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_what_helps_to_find_the_fault_stays(text: str) -> None:
    assert scrub(text) == text


def test_known_secrets_are_hidden_exactly() -> None:
    assert scrub("a hunter2 b hunter2hunter2 c", ["hunter2"]) == "a *** b *** c"
    assert scrub("a+b", ["a+b", ""]) == "***"
    assert scrub("ababab", ["abab"]) == "***ab"
    assert scrub("plain", [""]) == "plain"
    assert excerpt(b"the word is swordfish", ["swordfish"]) == "the word is ***"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", ""),
        ("", ""),
        (b"plain", "plain"),
        (bytearray(b"plain"), "plain"),
        (b"\xff\xfe{", "\ufffd\ufffd{"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("a\x00b\x1b[31mc\r\n\td\x7fe\x85f", "ab[31mc\n\tdef"),
        ("s\x00k\x00-\x00a\x00b\x00c\x00d\x00e\x00f\x00", "***"),
        ("x" * EXCERPT_CHARS, "x" * EXCERPT_CHARS),
        ("x" * (EXCERPT_CHARS + 1), "x" * (EXCERPT_CHARS - 1) + "…"),
        (b"x" * 10_000_000, "x" * (EXCERPT_CHARS - 1) + "…"),
        ("x" * 10_000_000, "x" * (EXCERPT_CHARS - 1) + "…"),
        ("é".encode() * 20_000, "é" * (EXCERPT_CHARS - 1) + "…"),
        ("\U0001f511".encode() * 20_000, "\U0001f511" * (EXCERPT_CHARS - 1) + "…"),
        ("\x00" * 10_000 + "tail", "…"),
    ],
)
def test_an_excerpt_is_bounded_and_printable(body: bytes | str, kept: str) -> None:
    assert excerpt(body) == kept


def test_marks_longer_than_what_they_hide_do_not_lengthen_an_excerpt() -> None:
    text = "api_key=a " * (EXCERPT_CHARS // 10)
    assert len(text) == EXCERPT_CHARS
    assert len(excerpt(text)) == EXCERPT_CHARS


@pytest.mark.parametrize("start", range(EXCERPT_CHARS - 40, EXCERPT_CHARS + 5))
def test_a_key_across_the_cut_leaves_no_part(start: int) -> None:
    assert not leaks(OPENAI_KEY, excerpt(" " * start + OPENAI_KEY + " " * 5_000), 4)


@pytest.mark.parametrize("start", range(2_470, 2_520))
def test_a_key_across_the_end_of_the_look_ahead_leaves_no_part(start: int) -> None:
    # What stands before it shrinks to almost nothing, so that it would move into the page if the page were cut last.
    filler = "api_key=" + "x" * (start - 9) + " "
    assert not leaks(OPENAI_KEY, excerpt(filler + OPENAI_KEY), 4)
    assert not leaks(OPENAI_KEY, excerpt("\x00" * start + OPENAI_KEY), 4)
    assert not leaks("swordfish" * 100, excerpt("\x00" * start + "swordfish" * 100, ["swordfish" * 100]))


def test_a_known_secret_longer_than_the_look_ahead_leaves_no_part() -> None:
    secret = "swordfish" * 100
    assert excerpt("." * 1990 + secret + "." * 5_000, [secret]) == "." * 1990 + "***…"


def test_what_lies_past_the_cut_does_not_move_up_into_the_page() -> None:
    text = "api_key=" + "x" * 1_900 + " " + "y" * 200 + f" {OPENAI_KEY} " + "z" * 5_000
    assert excerpt(text) == "api_key=*** " + "y" * (EXCERPT_CHARS - 1_909) + "…"


CONTEXTS = [
    ("x-api-key: ", ""), ("api_key=", "&"), ('{"api_key": "', '"}'), ("Authorization: Bearer ", "\r\n"), ("Bearer ", " "),
    ('\\"apiKey\\":\\"', '\\"'), ("https://h/?key=", " "), ("'secret': '", "'"), ("Cookie: session=", "\n"), ("token=", " "),
]  # fmt: skip
KEYS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=16, max_size=60)
NOISE = st.text(st.characters(blacklist_characters="'\"\\"), max_size=60)


@given(NOISE, st.integers(0, 2_600), st.sampled_from(CONTEXTS), KEYS, NOISE)
@settings(max_examples=200, deadline=None)
def test_no_planted_key_survives(before: str, spaces: int, context: tuple[str, str], key: str, after: str) -> None:
    text = before + " " * spaces + context[0] + key + context[1] + after
    own = {part for part in parts(key, 8) if part not in before + "\n" + after + "\n" + context[0]}
    kept = [scrub(text), excerpt(text), excerpt(text.encode("utf-8", "surrogatepass"))]
    assert not [part for part in own if any(part in page for page in kept)]


STARLESS = st.characters(blacklist_characters="*")


@given(
    st.one_of(st.binary(max_size=200), st.text(STARLESS, max_size=200)), st.lists(st.text(STARLESS, max_size=6), max_size=3)
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_taken_and_known_secrets_are_gone(body: bytes | str, secrets: list[str]) -> None:
    kept = excerpt(body, secrets)
    kept.encode()
    assert len(kept) <= EXCERPT_CHARS
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", kept)
    if isinstance(body, str):
        for secret in filter(None, secrets):
            assert secret not in scrub(body, secrets)


@pytest.mark.parametrize(
    "unit",
    ["api_key", "api key ", 'api_key"', "api_key=", 'api_key="', "bearer ", "eyJ", "sk-", "://", "cookie=", "-----BEGIN ",
     "-----BEGIN PRIVATE KEY", "\\", '"', "'", "key=", "secret_", "secret_a: ", "Authorization: ", "?key"],
)  # fmt: skip
def test_work_is_linear_in_the_text(unit: str) -> None:
    # Not timed: a pattern that looks back over what it has passed would take minutes for a text of this size.
    assert len(scrub(unit * (200_000 // len(unit)))) <= 400_000


# What is known to be a credential.

KNOWN = "corp.7f3e9a1bQ2"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"unknown credential {KNOWN} for tenant", "unknown credential *** for tenant"),
        (f"{KNOWN}{KNOWN}", "******"),
        ("cut in the middle of corp.7f3e9a", "cut in the middle of ***"),
        ("cut in the middle of corp.7f3e9a1…", "cut in the middle of ***"),
        ("a few letters are no key: corp.7f", "a few letters are no key: corp.7f"),
        ("nothing of it", "nothing of it"),
    ],
)
def test_a_known_credential_is_blotted_out_of_any_words(text: str, left: str) -> None:
    assert blot_out(text, (KNOWN,)) == left


def test_what_is_too_short_for_a_key_spoils_no_words() -> None:
    assert blot_out("the key of the kingdom", ("k", "key")) == "the key of the kingdom"
