"""Invariant 19: no secret in anything that somebody may print."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import InferenceError
from ...events import Notice
from .violation import InvariantViolated


class Secrecy:
    """Looks for every credential that was ever handed out, in errors and notices."""

    __slots__ = ("_known", "_secrets")

    def __init__(self, secrets: Callable[[], Sequence[str]]) -> None:
        self._secrets = secrets
        self._known: tuple[str, ...] = ()

    def learn(self) -> None:
        """A credential may have been handed out: from now on it must not be seen."""
        self._known = tuple(dict.fromkeys(filter(None, self._secrets())))

    def check_error(self, error: InferenceError) -> None:
        """An error, all that it holds, and all that led to it: whatever `to_dict`, ``str`` and ``repr`` are made from."""
        known = self._known
        link: BaseException | None = error
        while link is not None:
            shown = f"{link} {link!r} {vars(link)}"
            for secret in known:
                if secret in shown:
                    raise InvariantViolated(19, f"a credential is shown by an error of kind {error.kind!r}")
            link = link.__cause__

    def check_notice(self, notice: Notice) -> None:
        """What operators are told."""
        shown = str(notice.detail)
        for secret in self._known:
            if secret in shown:
                raise InvariantViolated(19, f"a credential is shown by a notice of kind {notice.kind!r}")
