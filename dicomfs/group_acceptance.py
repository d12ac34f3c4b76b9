"""Acceptance of what arrives one by one, in groups: what waits while one is accepted is the next.

Owns that the syncs of an acceptance are shared by the threads that wait for it.  What acceptance is and what
it promises is `accept`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dicomfs.accept import Accepted, Candidate


@dataclass(slots=True)
class _Ticket:
    """A candidate in the queue, later what became of it."""

    candidate: Candidate
    outcome: Accepted | None = None
    problem: Exception | None = None


class GroupAcceptance:
    """Accepts one candidate a call, those of many threads together."""

    def __init__(self, accept: Callable[[Sequence[Candidate]], list[Accepted]]) -> None:
        """``accept`` is that of an `Acceptor`."""
        self._accept = accept
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: list[_Ticket] = []

    def accept(self, candidate: Candidate) -> Accepted:
        """Accept; durable when it returns.  Who comes first does it for all that wait.

        Raises:
            OSError, DicomfsError: as `Acceptor.accept`; the candidate was not accepted.
        """
        ticket = _Ticket(candidate)
        with self._guard:
            self._waiting.append(ticket)
        with self._turn:
            if ticket.outcome is None and ticket.problem is None:
                with self._guard:
                    group, self._waiting = self._waiting, []
                self._run(group)
        if ticket.problem is not None:
            raise ticket.problem
        assert ticket.outcome is not None
        return ticket.outcome

    def waiting(self) -> list[Candidate]:
        """Those whose turn has not come."""
        with self._guard:
            return [ticket.candidate for ticket in self._waiting]

    def _run(self, group: Sequence[_Ticket]) -> None:
        try:
            outcomes = self._accept([ticket.candidate for ticket in group])
        except Exception as problem:
            if len(group) == 1:
                group[0].problem = problem
                return
            # One of them may be the reason: that must not be held against the others.
            for ticket in group:
                self._run([ticket])
            return
        for ticket, outcome in zip(group, outcomes, strict=True):
            ticket.outcome = outcome
