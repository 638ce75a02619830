"""What an attempt really ended with."""

from __future__ import annotations

from ...errors import InferenceError, StreamInterrupted


def root_of(error: InferenceError) -> InferenceError:
    """The error itself or, of a stream that broke after its first content, what broke it."""
    if error.__class__ is StreamInterrupted and isinstance(error.cause, InferenceError):
        return error.cause
    return error
