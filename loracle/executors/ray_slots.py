"""Ray's actors as slots: each holds the base on its devices for as long as the run lasts.

start(slot, trial) --actor.run(name)--> files in the run folder, TrialRun back
wait()             events of all workers to the driver's reporter; what ended, what was lost
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from loracle.errors import LoracleError, RunFolderError, UserError
from loracle.executors.event_files import EventTail
from loracle.executors.leases import Leases
from loracle.executors.placement import Placement
from loracle.executors.ray_actor import Opened, TrialActor, TrialRun
from loracle.executors.schedule import Lost, Ran
from loracle.executors.worker import OpenWorker
from loracle.run_folder import signals
from loracle.run_folder.reporter import Reporter

_POLL_SECONDS = 0.2
_MAX_FAILED_STARTS = 3
_PATIENCE_SECONDS = 600.0
_LONGEST_LINE = 200


class Calls(NamedTuple):
    """What the slots ask of the experiment.

    open_worker: makes a worker in an actor.
    difference: of a worker's facts from the first one's, why it may not take part; None: it may.
    """

    open_worker: OpenWorker
    difference: Callable[[Any, Any], str | None]


@dataclass
class _Slot:
    """One slot and its actor. beginning, opening, running: Ray's references to calls."""

    number: int
    name: str = ""
    actor: Any = None
    tail: EventTail | None = None
    beginning: Any = None
    opening: Any = None
    running: Any = None
    trial: str = ""
    device: str = ""
    num_failed_starts: int = 0
    is_given_up: bool = False
    waiting_since: float = field(default_factory=time.monotonic)

    @property
    def call(self) -> Any:
        return self.opening if self.opening is not None else self.running


class RaySlots:
    """The actors of a run. Use it as a context manager: none is left behind."""

    def __init__(
        self, ray: Any, root: Path, placement: Placement, calls: Calls, report: Reporter
    ) -> None:
        self._ray, self._root, self._placement = ray, root, placement
        self._calls, self._report = calls, report
        self._leases = Leases(root)
        self._run_name = secrets.token_hex(4)
        self._num_actors = 0
        self._first_facts: Any = None
        self._last_reason = ""
        self._may_open = False
        self._share_left: Callable[[str], float] = lambda trial: 1.0
        self._slots = [_Slot(number) for number in range(placement.num_slots)]
        self.peak_memory_bytes = 0
        """The most that any of them held."""

    def begin(self) -> None:
        """Start all actors, which import what they need and read the data while the driver checks
        it. Nothing is on their devices yet: the check asks how much memory is free there."""
        for slot in self._slots:
            self._start_actor(slot)

    def open_first(self, share_left: Callable[[str], float]) -> Any:
        """Let all actors load the base; returns the facts of the first one that holds it.

        share_left: of a trial's work, by its files. Raises UserError where the base cannot be
        loaded.
        """
        self._share_left, self._may_open = share_left, True
        for slot in self._slots:
            slot.opening = slot.actor.open.remote()
        while True:
            ready = [s for s in self._slots if s.opening is not None and self._is_done(s.opening)]
            for slot in ready:
                opened = self._opened(slot, is_first=True)
                if opened is not None:
                    return opened.facts
            self._require_hope()
            self._wait_a_while()

    def idle(self) -> Sequence[int]:
        return [s.number for s in self._slots if s.device and s.call is None]

    def start(self, slot: int, trial: str) -> None:
        chosen = self._slots[slot]
        chosen.trial = trial
        chosen.running = chosen.actor.run.remote(trial)
        self._report.emit("trial_placed", trial=trial, device=chosen.device)

    def wait(self) -> Sequence[Ran | Lost]:
        """Raises Stopped when a signal asked for it and every worker has stopped."""
        if signals.asked_to_stop():
            self._stop_workers()
        self._wait_a_while()
        self._forward_events()
        happened: list[Ran | Lost] = []
        for slot in self._slots:
            if slot.opening is not None and self._is_done(slot.opening):
                self._opened(slot)
            elif slot.running is not None and self._is_done(slot.running):
                happened.append(self._result(slot))
        self._require_hope()
        return happened

    def _start_actor(self, slot: _Slot) -> None:
        """Make the slot's actor, which Ray starts when there are devices for it."""
        placement = self._placement
        slot.name = f"{self._run_name}-{self._num_actors}"
        self._num_actors += 1
        self._leases.give(slot.name)
        slot.tail = EventTail(self._leases.folder / f"{slot.name}.jsonl")
        actor_class = self._ray.remote(
            num_cpus=placement.cpus_per_slot,
            num_gpus=placement.gpus_per_slot,
            max_restarts=0,
            max_task_retries=0,
        )(TrialActor)
        slot.actor = actor_class.remote(
            self._root, Path.cwd(), slot.name, placement.num_slots, placement.num_replicas
        )
        slot.beginning = slot.actor.begin.remote(self._calls.open_worker)
        slot.opening = slot.actor.open.remote() if self._may_open else None
        slot.device, slot.running, slot.trial = "", None, ""
        slot.waiting_since = time.monotonic()

    def _opened(self, slot: _Slot, *, is_first: bool = False) -> Opened | None:
        """Take what an actor says at its start; None if it cannot take part."""
        call, slot.opening = slot.opening, None
        try:
            self._ray.get(slot.beginning)
            opened: Opened = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            cause = _cause(error)
            if is_first and isinstance(cause, LoracleError):
                raise cause from error
            self._give_up(slot, str(cause))
            return None
        except self._ray.exceptions.RayError as error:
            why = self._why_lost(slot, error)
            self._lose_actor(slot)
            slot.num_failed_starts += 1
            if slot.num_failed_starts >= _MAX_FAILED_STARTS:
                self._give_up(slot, why)
            else:
                self._start_actor(slot)
            return None
        if is_first:
            self._first_facts = opened.facts
        elif reason := self._calls.difference(opened.facts, self._first_facts):
            self._give_up(slot, f"{opened.device}: {reason}")
            return None
        slot.device, slot.num_failed_starts = opened.device, 0
        return opened

    def _result(self, slot: _Slot) -> Ran | Lost:
        call, slot.running = slot.running, None
        trial, slot.trial = slot.trial, ""
        try:
            ran: TrialRun = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            # A worker records what fails of a trial; what it raises concerns the whole run.
            raise _cause(error) from error
        except self._ray.exceptions.RayError as error:
            device, reason = slot.device, self._why_lost(slot, error)
            self._lose_actor(slot)
            self._report.emit(
                "warning",
                message=f"{trial}: the process on {device} was lost ({reason}); the trial resumes "
                "from its last checkpoint on the next free device",
            )
            self._start_actor(slot)
            return Lost(slot.number, trial, reason, self._share_left(trial))
        self._forward_events()
        if ran.was_stopped:
            # Nobody here was asked to: a signal that was sent to the worker alone.
            self._lose_actor(slot)
            self._start_actor(slot)
            return Lost(slot.number, trial, "stopped", self._share_left(trial))
        self.peak_memory_bytes = max(self.peak_memory_bytes, ran.peak_memory_bytes)
        return Ran(slot.number, trial, ran.reason)

    def _lose_actor(self, slot: _Slot) -> None:
        """Make sure that an actor writes no more, and forget it."""
        if slot.actor is not None:
            self._ray.kill(slot.actor, no_restart=True)
        self._leases.take_back(slot.name)
        self._forward_events()
        slot.actor, slot.opening, slot.device = None, None, ""

    def _why_lost(self, slot: _Slot, error: Exception) -> str:
        """What Ray says, and the last line that the process printed."""
        log = self._leases.folder / f"{slot.name}.log"
        printed = log.read_text(errors="replace").split("\n") if log.is_file() else []
        last = next((line.strip() for line in reversed(printed) if line.strip()), None)
        return _in_a_line(error) + (f"; it last printed: {last[:_LONGEST_LINE]}" if last else "")

    def _give_up(self, slot: _Slot, reason: str) -> None:
        self._lose_actor(slot)
        slot.is_given_up, self._last_reason = True, reason
        self._report.emit(
            "warning", message=f"one of {len(self._slots)} workers cannot take part: {reason}"
        )

    def _require_hope(self) -> None:
        """Raise RunFolderError if no worker is there and none will come."""
        left = [slot for slot in self._slots if not slot.is_given_up]
        if not left:
            raise UserError(f"no worker can take part: {self._last_reason}")
        now = time.monotonic()
        if all(not slot.device and now - slot.waiting_since > _PATIENCE_SECONDS for slot in left):
            raise RunFolderError(
                f"no device was free for {_PATIENCE_SECONDS / 60:.0f} minutes; `loracle resume "
                f"{self._root}` continues when there is one"
            )

    def _wait_a_while(self) -> None:
        calls = [slot.call for slot in self._slots if slot.call is not None]
        if calls:
            self._ray.wait(calls, num_returns=1, timeout=_POLL_SECONDS)
        else:
            time.sleep(_POLL_SECONDS)

    def _is_done(self, call: Any) -> bool:
        done, _ = self._ray.wait([call], num_returns=1, timeout=0)
        return bool(done)

    def _forward_events(self) -> None:
        """Report what the workers did since the last time."""
        for slot in self._slots:
            for event in slot.tail.read() if slot.tail is not None else ():
                self._report.emit(event.kind, **event.fields)

    def _stop_workers(self) -> None:
        """Let every worker write its checkpoint, then stop as the signal asked."""
        self._leases.ask_to_stop(signals.asked_signal() or signal.SIGTERM)
        while running := [slot.running for slot in self._slots if slot.running is not None]:
            self._ray.wait(running, num_returns=len(running), timeout=_POLL_SECONDS)
            self._forward_events()
            for slot in self._slots:
                if slot.running is not None and self._is_done(slot.running):
                    slot.running = None
        signals.stop_if_asked()

    def close(self) -> None:
        """End all actors and remove what they left.

        Nothing of Ray is held any longer: to let go of it while another thread ends the cluster
        would end this process.
        """
        for slot in self._slots:
            # All at once; then each is waited for.
            if slot.actor is not None:
                self._ray.kill(slot.actor, no_restart=True)
        for slot in self._slots:
            if slot.actor is not None:
                self._lose_actor(slot)
            slot.beginning = slot.opening = slot.running = None
        self._leases.remove()

    def __enter__(self) -> RaySlots:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cause(error: Any) -> Exception:
    """What a method raised in its actor."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def _in_a_line(error: Exception) -> str:
    """The first sentence of what Ray says, which has many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
