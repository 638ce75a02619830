"""What is wrong with a world, by the number of the invariant that does not hold."""

from __future__ import annotations


class InvariantViolated(AssertionError):
    """An invariant does not hold.

    number: which (`INVARIANTS`). about: what was seen, in one sentence, without times of day or secrets.
    """

    def __init__(self, number: int, about: str) -> None:
        super().__init__(f"invariant {number} ({INVARIANTS[number]}): {about}")
        self.number = number
        self.about = about


INVARIANTS: dict[int, str] = {
    0: "nothing crashes",
    4: "one terminal outcome, no chunk lost, doubled or late",
    5: "every request is counted in exactly one place",
    6: "in flight within the slots, waiting within the bound",
    7: "nobody is overtaken",
    8: "no window holds more than the limit",
    9: "nothing waits in vain",
    10: "every lease is settled once",
    11: "bounded attempts, nothing past a deadline",
    12: "no retry before its hint, backoff within bounds",
    13: "retries within the retry budget",
    14: "what must not be repeated is sent once",
    15: "an open circuit sends nothing",
    16: "every probe permit ends",
    17: "once faults stop, everything ends",
    18: "one refresh at a time, no expired credential is sent",
    19: "no secret is shown",
    20: "a stream succeeds only with its proof, missing usage is unknown",
    21: "each attempt's usage is counted once",
    22: "counters of one window agree, and hold nothing of another's",
    23: "a clock going backwards changes nothing",
    24: "cancelling gives everything back at once",
    26: "no step without progress",
    27: "nobody fails without a reason",
    28: "nothing is granted past a lease",
    29: "a limit that is wanted is used",
}
"""What every world is held to, in a few words each. Numbered as in the project's specification; beside these, 0
stands for an exception that nobody should have raised, 27 for a failure that was not due, and 28 and 29 are about processes
that share a limit."""
