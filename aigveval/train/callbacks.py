"""Progress bar, checkpoints, signals, and the moving average of the weights."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch import distributed as dist
from transformers import TrainerCallback, TrainerState

from ..batching import Bar
from .validation import metric_lines

AVERAGE = "average.safetensors"  # in a checkpoint, beside the weights in training

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TITLES = {"srocc": "mean SROCC", "accuracy": "mean accuracy"}


# ---- progress -----------------------------------------------------------------------------------


def steps_bar(console: Console) -> Progress:
    """A bar of steps whose tasks have a field `note`."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("<"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def print_line(console: Console, text: str, **options: Any) -> None:
    """Print a line without colours for its numbers, and unwrapped."""
    console.print(text, highlight=False, soft_wrap=True, **options)


def print_metrics(console: Console, found: Mapping[str, float], parts: Sequence[str]) -> None:
    """Print a line per validation manifest."""
    for line in metric_lines(found, parts):
        print_line(console, line, markup=False)


class ProgressCallback(TrainerCallback):
    """Shows a bar of the optimizer steps, and prints loss and correlations after each epoch.

    Args:
        console, parts: Where to print, and the names of the validation manifests.
        main: The metric that the best model is chosen by.
        shown: The logged value that stands beside the bar.
    """

    def __init__(
        self, console: Console, parts: Sequence[str], *, main: str = "srocc", shown: str = "loss"
    ) -> None:
        self.console, self.parts, self.main, self.shown = console, parts, main, shown
        self.value = math.nan
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._bar = steps_bar(self.console)
            self._task = self._bar.add_task(
                "Training", total=state.max_steps, completed=state.global_step, note=""
            )
            self._bar.start()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._update(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = True  # the line of an epoch has its own loss, however few its steps

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._update(state, "Validating")

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and logs.get(self.shown) is not None:
            self.value = logs[self.shown]
            self._update(state)

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or metrics is None:
            return
        value = metrics[f"eval_{self.main}"]
        # The Trainer updates its best metric after this call.
        best = state.best_metric is None or value > state.best_metric
        note = self._note()
        print_line(
            self.console,
            f"epoch {state.epoch or 0:g} of {state.num_train_epochs:g}, step {state.global_step}: "
            + (f"{note}, " if note else "")
            + f"{_TITLES[self.main]} [bold]{value:.4f}[/bold]"
            + (" [green](best so far)[/green]" if best else ""),
        )
        found = {name.removeprefix("eval_"): number for name, number in metrics.items()}
        print_metrics(self.console, found, self.parts)

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _note(self) -> str:
        return "" if math.isnan(self.value) else f"{self.shown} {self.value:.4f}"

    def _update(self, state: TrainerState, description: str = "Training") -> None:
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=state.global_step,
                note=self._note(),
                description=description,
            )


def print_best(console: Console, found: Mapping[str, float], *, main: str) -> None:
    """Print the value that the best model was chosen by."""
    console.print(f"Best {_TITLES[main]} {found[main]:.4f}", highlight=False)


# ---- checkpoints --------------------------------------------------------------------------------


class SaveCallback(TrainerCallback):
    """Checkpoints every so many steps or minutes, and when a signal ends the run.

    On Ctrl-C or SIGTERM (as a cluster sends before it takes a machine back) the current step is
    finished and saved, and `KeyboardInterrupt` leaves the training; a second signal does not wait
    for that. All processes of a run do the same after the same step.

    Never at the last step of an epoch: there the Trainer itself saves, after the validation. A
    checkpoint from before it would let a resumed run skip that validation.

    Args:
        console: Where to announce the stop.
        steps: Save after each so many optimizer steps; None never does.
        minutes: Save after the first step that ends so many minutes after the last checkpoint;
            None never does.
    """

    def __init__(
        self, console: Console, *, steps: int | None = None, minutes: float | None = None
    ) -> None:
        self.console, self.steps, self.minutes = console, steps, minutes
        self._signalled = self._stopping = False
        self._saved = 0.0
        self._handlers: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()
        if threading.current_thread() is threading.main_thread():  # others cannot have handlers
            self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        step, epoch = state.global_step, state.epoch or 0.0
        minutes = (time.monotonic() - self._saved) / 60
        due = bool(self.steps and step % self.steps == 0) or (
            self.minutes is not None and minutes >= self.minutes
        )
        due, self._stopping = any_process(due, self._signalled, device=args.device)
        last = epoch == int(epoch) or step >= state.max_steps
        if (due or self._stopping) and not last:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved = time.monotonic()
        if self._stopping:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """Restore the signal handlers."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
        text = "Saving after this step; a second Ctrl-C stops at once."
        print_line(self.console, text, style="yellow")


def any_process(*flags: bool, device: torch.device) -> list[bool]:
    """Which flags are up in at least one process; all get the same answer."""
    if not (dist.is_available() and dist.is_initialized()):
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


# ---- moving average of the weights --------------------------------------------------------------


class WeightAverage:
    """Exponential moving average of a model's trainable parameters.

    Starts as a copy. After n updates the decay is min(decay, (1 + n) / (10 + n)), as in
    TensorFlow's average, so that a short run is not held back at its start. timm's `ModelEmaV3` and
    torch's `AveragedModel` copy the frozen LLM too.

    Args:
        model: On the device it is trained on.
        decay: Share of the old average that stays with each update, in (0, 1). FAST-VQA and DOVER
            take 0.999.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.values = {n: p.detach().float().clone() for n, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters in as they are after an optimizer step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter.float(), 1 - decay)

    def copy_to_model(self) -> None:
        """Replace the parameters by their averages."""
        self._set(self.values)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averages; afterwards its own weights again."""
        kept = {name: value.detach().clone() for name, value in self._parameters.items()}
        self._set(self.values)
        try:
            yield
        finally:
            self._set(kept)

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        values = {name: value.cpu().contiguous() for name, value in self.values.items()}
        metadata = {"updates": str(self.updates)}
        (folder / AVERAGE).write_bytes(to_bytes(values, metadata))  # others may read it, too

    def load(self, folder: Path) -> None:
        """Read it from a checkpoint.

        Raises:
            ValueError: It is an average of other parameters.
        """
        with safe_open(folder / AVERAGE, framework="pt") as file:
            loaded: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
            updates = int(file.metadata()["updates"])
        if loaded.keys() != self.values.keys():
            raise ValueError(f"{folder / AVERAGE} is an average of other parameters")
        for name, value in loaded.items():
            self.values[name].copy_(value)
        self.updates = updates

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
