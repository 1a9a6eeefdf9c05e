"""What a user sees of a training run: one bar, and lines with the validation after each epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .validation import metric_lines


def steps_bar(console: Console) -> Progress:
    """A bar of steps whose tasks have a field `note`."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("steps"), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
        TextColumn("<"), TimeRemainingColumn(), console=console, transient=True,
    )


class ProgressCallback(TrainerCallback):
    """Shows a bar of the optimizer steps, and prints loss and correlations after each epoch.

    Args:
        console: Where to print.
        parts: Names of the validation manifests.
        main: The metric that tells which model is best.
    """

    def __init__(self, console: Console, parts: Sequence[str], *, main: str = "srocc") -> None:
        self.console, self.parts, self.main = console, parts, main
        self.loss = math.nan
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._bar = steps_bar(self.console)
            self._task = self._bar.add_task(
                "Training", total=state.max_steps, completed=state.global_step, note=""
            )
            self._bar.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._update(state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._update(state, "Validating")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.loss = logs["loss"]
            self._update(state)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        metrics: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or metrics is None:
            return
        value = metrics[f"eval_{self.main}"]
        # The Trainer updates its best metric after this call.
        best = state.best_metric is None or value > state.best_metric
        epochs = f"epoch {state.epoch or 0:g} of {state.num_train_epochs:g}"
        self.console.print(
            f"{epochs}, step {state.global_step}: "
            + ("" if math.isnan(self.loss) else f"loss {self.loss:.4f}, ")
            + f"{title(self.main)} [bold]{value:.4f}[/bold]"
            + (" [green](best so far)[/green]" if best else ""),
            highlight=False, soft_wrap=True,
        )
        found = {name.removeprefix("eval_"): number for name, number in metrics.items()}
        for line in metric_lines(found, self.parts):
            self.console.print(line, highlight=False, soft_wrap=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar away; may be called twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self) -> str:
        """What stands beside the bar."""
        return "" if math.isnan(self.loss) else f"loss {self.loss:.4f}"

    def _update(self, state: TrainerState, description: str = "Training") -> None:
        if self._bar is not None:
            note = self.note()
            self._bar.update(
                self._task, completed=state.global_step, note=note, description=description
            )


def title(main: str) -> str:
    """What people call a main metric."""
    return {"srocc": "mean SROCC", "accuracy": "mean accuracy"}[main]
