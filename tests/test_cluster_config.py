"""`ClusterConfig`: a URL is enough, what each mistake is told, and that the store's password shows nowhere."""

from __future__ import annotations

import math
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sansio.cluster.config import ClusterConfig, OnSilence, OnStoreLost, SharingMode
from sansio.secret import Secret

HIDDEN = "hunter2hunter2"
URL = f"redis://:{HIDDEN}@cache.test:6379/0"


# ---- what is taken ----------------------------------------------------------------------------------------------------


def test_a_url_is_enough() -> None:
    config = ClusterConfig.of("redis://cache.test")
    assert config == ClusterConfig(url="redis://cache.test")
    assert (config.mode, config.on_store_lost, config.on_silence) == ("approximate", "fail_closed", "freeze")
    assert (config.local_share, config.withheld, config.store_timeout) == (0.0, 0.0, 1.0)
    assert (config.interval, config.lease, config.share_circuits, config.prefix) == (None, None, False, "remote-core")
    assert config.estimate_error == 0.3


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://cache.test", "rediss://user:pass@cache.test:6380/3?ssl_cert_reqs=none", "valkey://[::1]:6379",
        "valkeys://cache.test", "unix:///run/valkey.sock?db=2", "redis://:p[a]ss@h", "redis://:p\u2100ss@h",
    ],
)  # fmt: skip
def test_the_stores_that_are_spoken_to(url: str) -> None:
    assert ClusterConfig(url).url == url


def test_it_may_be_given_in_four_ways() -> None:
    secret = Secret.from_env("STORE_URL")
    whole = ClusterConfig(secret, mode=SharingMode.ESCROW, lease=2.0)
    assert ClusterConfig.of(whole) is whole
    assert ClusterConfig.of({"url": secret, "mode": "escrow", "lease": 2.0}) == whole
    assert ClusterConfig.of(secret) == ClusterConfig(secret)
    assert ClusterConfig.of("unix:///s") == ClusterConfig("unix:///s")


def test_choices_may_be_words() -> None:
    words: dict[str, Any] = {"mode": "escrow", "on_store_lost": "local_share", "on_silence": "expand", "local_share": 0.25}
    config = ClusterConfig("redis://h", **words)
    assert config.mode is SharingMode.ESCROW
    assert config.on_store_lost is OnStoreLost.LOCAL_SHARE
    assert config.on_silence is OnSilence.EXPAND


@pytest.mark.parametrize(
    ("interval", "window", "seconds"),
    [
        (None, 60.0, 1.0),
        (None, 6.0, 0.1),
        (None, 1.0, 0.05),
        (None, 3.0, 0.05),
        (None, 3_600.0, 1.0),
        (0.3, 60.0, 0.3),
        (7, 1.0, 7),
    ],
)
def test_there_is_an_exchange_every_sixtieth_of_a_window_within_bounds_or_as_often_as_is_said(
    interval: float | None, window: float, seconds: float
) -> None:
    assert ClusterConfig("redis://h", interval=interval).interval_for(window) == seconds


@pytest.mark.parametrize(
    ("mode", "interval", "lease", "window", "seconds"),
    [
        ("escrow", None, None, 60.0, 5.0),
        ("escrow", None, None, 6.0, 1.0),
        ("escrow", 2.0, None, 6.0, 10.0),
        ("escrow", 0.01, None, 60.0, 1.0),
        ("approximate", None, None, 60.0, 300.0),
        ("approximate", 2.0, None, 6.0, 30.0),
        ("escrow", None, 0.25, 60.0, 0.25),
        ("approximate", None, 7, 60.0, 7),
    ],
)
def test_a_lease_is_some_intervals_or_some_windows_or_as_long_as_is_said(
    mode: Any, interval: float | None, lease: float | None, window: float, seconds: float
) -> None:
    assert ClusterConfig("redis://h", mode=mode, interval=interval, lease=lease).lease_for(window) == seconds


# ---- what is refused: (arguments of ClusterConfig, what the error says) -----------------------------------------------

NOT_PARTS: tuple[Any, ...] = (-0.1, 1, 1.0, 7, math.nan, math.inf, True, "0.5", None, [])
NOT_SECONDS: tuple[Any, ...] = (0, 0.0, -1, math.nan, math.inf, True, "5", [])
SCHEMES = r"^url: does not begin with one of redis://, rediss://, valkey://, valkeys://, unix://$"

MISTAKES: list[tuple[dict[str, Any], str]] = [
    *(({"url": url}, SCHEMES) for url in (
        "", "cache.test", "redis", "redis:", "redis:/h", "http://h", "REDIS://h", " redis://h", f"://{HIDDEN}", f"{HIDDEN}://h",
        f"postgres://u:{HIDDEN}@h",
    )),
    *(({"url": url}, r"^url: holds white space or a control character \(not shown here\); percent-encode it$") for url in (
        f"redis://:{HIDDEN}@h\n", f"redis://:{HIDDEN} @h", f"redis://:{HIDDEN}\x00@h", f"redis://:{HIDDEN}\t@h",
    )),
    *(({"url": url}, r"^url: a \w+ is neither a string nor a Secret$") for url in (None, 5, HIDDEN.encode(), [HIDDEN])),
    *(({"mode": value}, r"^mode: .* is none of 'approximate', 'escrow'$") for value in ("strict", None, 5, [], "ESCROW")),
    *(({"on_store_lost": value}, r"^on_store_lost: .* is none of 'fail_closed', 'local_share'$") for value in ("", None)),
    *(({"on_silence": value}, r"^on_silence: .* is none of 'freeze', 'expand'$") for value in ("shrink", None, True)),
    *(({name: value}, rf"^{name}: .* is outside 0 <= {name} < 1 \(a part of each limit\)$")
      for name in ("local_share", "withheld") for value in NOT_PARTS),
    ({"on_store_lost": "local_share"},
     r"^local_share: is 0, but on_store_lost is 'local_share'; give a part of each limit$"),
    *(({name: value}, rf"^{name}: .* is not a number of seconds above 0$")
      for name in ("interval", "lease", "store_timeout") for value in NOT_SECONDS),
    *(({"estimate_error": value}, r"^estimate_error: .* is outside 0 <= estimate_error <= 1 \(a part .*\), or None$")
      for value in (-0.1, 1.1, math.nan, math.inf, True, "0.3", [])),
    ({"store_timeout": None}, r"^store_timeout: None is not a number of seconds above 0$"),
    *(({"share_circuits": value}, r"^share_circuits: .* is neither True nor False$") for value in (None, 1, 0, "yes")),
    *(({"prefix": value}, r"^prefix: .* is not a non-empty string of printable characters$")
      for value in ("", None, 5, b"x", "a\nb", "\x7f")),
]  # fmt: skip


def assert_hidden(error: BaseException) -> None:
    """Not in its text, its traceback, or what it was raised from."""
    assert HIDDEN not in str(error) + repr(error) + repr(error.__cause__) + "".join(traceback.format_exception(error))


@pytest.mark.parametrize(("mistake", "told"), MISTAKES)
def test_a_mistake_is_told_by_field_value_and_remedy(mistake: dict[str, Any], told: str) -> None:
    arguments: dict[str, Any] = {"url": URL, **mistake}
    with pytest.raises(ValueError, match=told) as refused:
        ClusterConfig(**arguments)
    assert_hidden(refused.value)
    with pytest.raises(ValueError, match=told) as refused:
        ClusterConfig.of(arguments)
    assert_hidden(refused.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, r"^a NoneType is neither a ClusterConfig, nor a mapping, nor a URL$"),
        (5, r"^a int is neither a ClusterConfig"),
        (HIDDEN.encode(), r"^a bytes is neither a ClusterConfig"),
        ([URL], r"^a list is neither a ClusterConfig"),
        ({}, r"^url: is missing; without a store there is nothing to share$"),
        ({"mode": "escrow"}, r"^url: is missing"),
        ({"url": URL, "intervall": 1.0}, r"^unknown key 'intervall'; did you mean 'interval'\?$"),
        ({"uri": URL}, r"^unknown key 'uri'; did you mean 'url'\?$"),
        ({"url": URL, "zzz": 1}, r"^unknown key 'zzz'; known: url, mode, on_store_lost, .*prefix$"),
        ({5: URL}, r"^unknown key 5; known: url"),
        (HIDDEN, SCHEMES),
    ],
)
def test_what_is_no_configuration_is_told_what_would_be(value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        ClusterConfig.of(value)
    assert_hidden(refused.value)


@pytest.mark.parametrize("error", [None, 0, 0.5, 1])
def test_estimates_may_be_believed_or_doubted(error: float | None) -> None:
    assert ClusterConfig("redis://h", estimate_error=error).estimate_error == error


def test_no_local_share_is_needed_where_none_is_taken() -> None:
    assert ClusterConfig("redis://h", local_share=0.1).on_store_lost is OnStoreLost.FAIL_CLOSED
    assert ClusterConfig("redis://h", withheld=0.999).withheld == 0.999


VALUES = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=8) | st.lists(st.none(), max_size=1)


@settings(max_examples=200)
@given(
    field=st.sampled_from(["mode", "on_store_lost", "on_silence", "local_share", "withheld", "interval", "lease", "prefix"]),
    value=VALUES,
    rest=st.text(max_size=20),
    scheme=st.sampled_from(["redis://", "valkeys://", "redis:", ""]),
)
def test_whatever_is_given_is_taken_or_told_by_field(field: str, value: Any, rest: str, scheme: str) -> None:
    told = f"{field} url"
    try:
        config = ClusterConfig.of({"url": scheme + rest, field: value})
    except ValueError as error:
        told = str(error).partition(":")[0]
    else:
        assert config.interval_for(60.0) > 0 and config.lease_for(60.0) > 0
    assert told in (f"{field} url", field, "url")


# ---- the password -----------------------------------------------------------------------------------------------------


def test_the_url_shows_in_no_text_of_a_configuration() -> None:
    config = ClusterConfig(URL, mode=SharingMode.ESCROW)
    for shown in (repr(config), str(config), f"{config}", repr([config])):
        assert HIDDEN not in shown and "cache.test" not in shown
    assert "escrow" in repr(config)


def test_nor_does_that_of_a_secret() -> None:
    assert HIDDEN not in repr(ClusterConfig(Secret.inline(URL)))
