"""Prompts about encoded images → ids, continuously: answers that are finished leave the batch, and others take their
place, whatever their tasks and options. What becomes of one does not depend on the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import torch

from florence_lite.engine import Generated, Scores
from florence_lite.engine.generate import DecodingBatch, start_search
from florence_lite.engine.search import Search
from florence_lite.inference.decoding import Begun, Decoded, Decoding, Row
from florence_lite.model.device import inference_mode

TOGETHER = 8  # prompts that are read together, so that fewer do not interrupt those that are being answered
REFILLED = 4  # where there is room for few rows, a part of them: one in so many


class Ticket:
    """A row on its way. answer: to be waited for, or cancelled as long as it has not begun; its exception is this row's
    own. begun, search: once the prompt is read, and while the answer is decoded."""

    def __init__(self, row: Row):
        self.row = row
        self.answer: Future[Decoded] = Future()
        self.begun: Begun | None = None
        self.search: Search | None = None


class DecodingQueue:
    """Answers rows within the memory of `decoding`. It is true while there is work.

    `submit` may be called at any time and by any thread, `step` by one thread at a time.
    """

    def __init__(self, decoding: Decoding):
        self.decoding = decoding
        self._waiting: deque[Ticket] = deque()
        self._lock = threading.Lock()  # of what waits
        self._running: dict[Search, Ticket] = {}
        self._batch: DecodingBatch | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def waiting(self) -> int:
        """Rows that have not begun."""
        return len(self._waiting)

    def submit(self, row: Row) -> Ticket:
        ticket = Ticket(row)
        with self._lock:
            self._waiting.append(ticket)
        return ticket

    def drop(self, ticket: Ticket) -> None:
        """Leave a row out: at once if it has not begun, else with the next step."""
        if not ticket.answer.cancel() and ticket.search is not None:
            ticket.search.abandoned = True

    @inference_mode()
    def step(self) -> list[Ticket]:
        """Let rows that wait begin, if there is room for them, and find the next id of all that have begun. Returns
        those that are finished."""
        finished = self._begin(self._take())
        if self._batch:
            finished += self._finish(self._next_ids())
        return finished

    @inference_mode()
    def scores_so_far(self, ticket: Ticket, first: int, behind: int) -> Scores:
        """Of the ids from number `first` to before number `behind` of what is certain of a running answer."""
        states = self._batch.states_so_far(ticket.search)[first:behind]
        generated = Generated(ticket.search.certain[first:behind], False, torch.stack(states))
        return self.decoding.scores([(ticket.begun, generated)])[0]

    def _take(self) -> list[Ticket]:
        """Those that wait and may begin now: as many as fit, at least one if none is running; and not too few."""
        running = list(self._running.values())
        room = self.decoding.room - sum(self.decoding.row_bytes(ticket.row) for ticket in running)
        chosen: list[Ticket] = []
        on_decoder = self.decoding.model.config.prompt_side == "decoder"
        sources = {_source(ticket.row, on_decoder): ticket.row for ticket in running}
        room -= sum(map(self.decoding.source_bytes, sources.values()))
        with self._lock:
            for ticket in self._waiting:
                source = _source(ticket.row, on_decoder)
                room -= self.decoding.row_bytes(ticket.row)
                room -= 0 if source in sources else self.decoding.source_bytes(ticket.row)
                if room < 0 and (chosen or running):
                    break
                sources[source] = ticket.row
                chosen.append(ticket)
            at_once = len(running) + len(chosen)  # as many as there is room for, or all there are
            if running and len(chosen) < min(TOGETHER, len(self._waiting), max(1, at_once // REFILLED)):
                return []
            for _ in chosen:
                self._waiting.popleft()
        return [ticket for ticket in chosen if ticket.answer.set_running_or_notify_cancel()]

    def _begin(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Returns those that are finished already. If they cannot begin together, those that can begin alone."""
        if not tickets:
            return []
        finished = []
        try:
            begun = self.decoding.begin([ticket.row for ticket in tickets])
        except Exception as error:
            if len(tickets) == 1:
                return _failed(tickets, error)
            return [ended for ticket in tickets for ended in self._begin([ticket])]
        for ticket, each in zip(tickets, begun, strict=True):
            ticket.begun = each
            try:
                if each.opening is not None and not each.row.is_present(each.opening.log_odds):
                    ticket.answer.set_result(each.empty())
                    finished.append(ticket)
                    continue
                ticket.search = search = start_search(each.prefix[-1], each.row.answer_options)
            except Exception as error:  # of the guide, or of `is_present`
                finished += _failed([ticket], error)
                continue
            if search.result is not None:
                finished += self._finish([ticket])
                continue
            self._batch = self._batch or DecodingBatch(self.decoding.model, with_last=True)
            self._batch.enter(search, each.read, each.source, ticket.row.size)
            self._running[search] = ticket
        return finished

    def _next_ids(self) -> list[Ticket]:
        """Returns those whose search is finished."""
        try:
            finished = [self._running.pop(search) for search in self._batch.step()]
        except Exception as error:
            finished = _failed(list(self._running.values()), error)
            self._running = {}
        if not self._running:  # the next batch looks at the network anew
            self._batch = None
        return finished

    def _finish(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        failed = [ticket for ticket in tickets if ticket.answer.done() or ticket.search.fault is not None]
        for ticket in failed:
            if not ticket.answer.done():
                ticket.answer.set_exception(ticket.search.fault)
        answered = [ticket for ticket in tickets if ticket not in failed]
        try:
            scores = self.decoding.scores([(ticket.begun, ticket.search.result) for ticket in answered])
        except Exception as error:
            _failed(answered, error)
            return list(tickets)
        for ticket, each in zip(answered, scores, strict=True):
            opening = ticket.begun.opening
            ticket.answer.set_result(Decoded(ticket.search.result, each, opening and opening.log_odds))
        return list(tickets)


def decode(decoding: Decoding, rows: Sequence[Row]) -> list[Decoded]:
    """The answers to rows, in order. Raises what went wrong with the first of them that failed."""
    queue = DecodingQueue(decoding)
    tickets = [queue.submit(row) for row in rows]
    while queue:
        queue.step()
    return [ticket.answer.result() for ticket in tickets]


def _source(row: Row, on_decoder: bool) -> int:
    """What rows that attend to the same have in common."""
    return id(row.image) if on_decoder else id(row)


def _failed(tickets: Sequence[Ticket], error: Exception) -> list[Ticket]:
    for ticket in tickets:
        ticket.answer.set_exception(error)
    return list(tickets)
