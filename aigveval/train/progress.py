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

from prompts.rubric import SCORES


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
        save_steps: Ask for a checkpoint every so many steps.
    """

    def __init__(
        self, console: Console, parts: Sequence[str], *, save_steps: int | None = None
    ) -> None:
        self.console, self.parts, self.save_steps = console, parts, save_steps
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
        if self.save_steps and state.global_step % self.save_steps == 0:
            control.should_save = True

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
        # The Trainer updates its best metric after this call.
        best = state.best_metric is None or metrics["eval_srocc"] > state.best_metric
        epochs = f"epoch {state.epoch or 0:g} of {state.num_train_epochs:g}"
        self.console.print(
            f"{epochs}, step {state.global_step}: "
            + ("" if math.isnan(self.loss) else f"loss {self.loss:.4f}, ")
            + f"mean SROCC [bold]{metrics['eval_srocc']:.4f}[/bold]"
            + (" [green](best so far)[/green]" if best else ""),
            highlight=False, soft_wrap=True,
        )
        for line in metric_lines(metrics, self.parts):
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

    def _update(self, state: TrainerState, description: str = "Training") -> None:
        if self._bar is not None:
            note = "" if math.isnan(self.loss) else f"loss {self.loss:.4f}"
            self._bar.update(
                self._task, completed=state.global_step, note=note, description=description
            )


def metric_lines(metrics: Mapping[str, float], parts: Sequence[str]) -> list[str]:
    """One line per validation manifest with SROCC / PLCC of each score that it knows."""
    width = max((len(part) for part in parts), default=0)
    lines = []
    for part in parts:
        values = [
            f"{name} {metrics[f'eval_{part}_srocc_{name}']:+.3f} / "
            f"{metrics[f'eval_{part}_plcc_{name}']:+.3f}"
            for name in SCORES if f"eval_{part}_srocc_{name}" in metrics
        ]
        lines.append(f"  {part:{width}}  SROCC / PLCC  " + "   ".join(values))
    return lines
