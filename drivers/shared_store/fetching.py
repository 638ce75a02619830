"""Where a store's address is had from: the configuration itself, or a reference to where the URL is kept.

A reference is followed for each new connection, so that a password that was changed is found without a new engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from drivers.credentials import SecretUnavailable, as_credential, read_secret, reads_at_once
from sansio import Credential, Secret

from .address import StoreAddress, UnusableUrl, parse_address

Result = TypeVar("Result")


class AddressSource:
    """The address of a store. Raises `UnusableUrl` at once for what can be seen to be none; a callable is called later."""

    __slots__ = ("_address", "_secret")

    def __init__(self, url: str | Secret) -> None:
        self._secret: Secret | None = None
        self._address: StoreAddress | None = None
        if isinstance(url, str):
            self._address = parse_address(url)
        else:
            self._secret = url
            if url.source != "callable":
                _address_in(_read(url))

    async def address(self) -> StoreAddress:
        """The address as it is now. Raises `UnusableUrl`, by its kind alone also for what a callable raises."""
        if self._secret is None:
            assert self._address is not None
            return self._address
        try:
            return _address_in(await _fetch(self._secret))
        except UnusableUrl:
            raise
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # ours; any other is the vault's, as is any error, whose text may hold the URL
            raise UnusableUrl(f"could not be fetched ({type(error).__name__})") from None


def _address_in(credential: Credential) -> StoreAddress:
    return parse_address(credential.reveal())


def _read(secret: Secret) -> Credential:
    try:
        return read_secret(secret)
    except SecretUnavailable as error:
        raise _unavailable(error) from None


def _unavailable(error: SecretUnavailable) -> UnusableUrl:
    return UnusableUrl(str(error).removeprefix("api_key: "))  # what else a reference is for, and what it says by default


async def _fetch(secret: Secret) -> Credential:
    """What the reference leads to. What blocks does so in a thread of its own."""
    if reads_at_once(secret):
        return _read(secret)
    if secret.source == "file":
        return await in_thread(lambda: _read(secret))
    fetched = await in_thread(secret.fetch)
    if inspect.isawaitable(fetched):
        fetched = await fetched
    try:
        return as_credential(fetched)
    except SecretUnavailable as error:
        raise _unavailable(error) from None


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run what blocks in a thread of its own. Given up, the thread is left to end by itself, and keeps no process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(tell: Callable[[], None]) -> None:
        if not done.done():
            tell()

    def run() -> None:
        tell: Callable[[], None]
        try:
            tell = partial(done.set_result, work())
        except BaseException as error:  # SystemExit ends this thread, not the loop; a future takes no StopIteration
            ordinary = isinstance(error, Exception) and not isinstance(error, StopIteration)
            tell = partial(done.set_exception, error if ordinary else RuntimeError(type(error).__name__))
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(settle, tell)

    threading.Thread(target=run, name="shared-store-look-up", daemon=True).start()
    return await done
