"""When a run is saved besides the end of each epoch, and when it ends before its time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .parallel import any_process

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SaveCallback(TrainerCallback):
    """Asks for a checkpoint every so many steps or minutes, and when the run is told to stop.

    On Ctrl-C or SIGTERM (as a cluster sends before it takes a machine back) the step in progress
    is finished and saved, and `KeyboardInterrupt` leaves the training; a second signal doesn't
    wait for that. All processes of a run do the same after the same step.

    Never at the last step of an epoch: there the Trainer saves by itself, after the validation. A
    checkpoint from before it would let a resumed run leave that validation out.

    Args:
        console: Where to say that the run is about to stop.
        steps: Save after each so many optimizer steps; None never does.
        minutes: Save after the first step that ends so many minutes after the last time; None
            never does.
    """

    def __init__(
        self, console: Console, *, steps: int | None = None, minutes: float | None = None
    ) -> None:
        self.console, self.steps, self.minutes = console, steps, minutes
        self._signalled = self._stopping = False
        self._saved = 0.0
        self._handlers: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():  # others can't have handlers
            self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step, epoch = state.global_step, state.epoch or 0.0
        minutes = (time.monotonic() - self._saved) / 60
        due = bool(self.steps and step % self.steps == 0) or (
            self.minutes is not None and minutes >= self.minutes
        )
        due, self._stopping = any_process(due, self._signalled, device=args.device)
        last = epoch == int(epoch) or step >= state.max_steps
        if (due or self._stopping) and not last:
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._saved = time.monotonic()
        if self._stopping:
            raise KeyboardInterrupt

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Give the signals back; may be called twice."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
        self.console.print(
            "Saving after this step; a second Ctrl-C stops at once.", style="yellow",
            highlight=False, soft_wrap=True,
        )


class EarlyStop(TrainerCallback):
    """Ends a run after so many validations in a row without a better one.

    transformers' own keeps its count where a resumed run doesn't find it; this one looks at what
    was logged.

    Args:
        patience: So many.
        main: The metric that tells which model is best.
    """

    def __init__(self, patience: int, *, main: str) -> None:
        self.patience, self.main = patience, main

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.has_ended(state.log_history):
            control.should_training_stop = True

    def has_ended(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether the run is to end after what was logged, the first best one counting."""
        name = f"eval_{self.main}"
        values = [entry[name] for entry in history if name in entry]
        return bool(values) and len(values) - 1 - values.index(max(values)) >= self.patience
