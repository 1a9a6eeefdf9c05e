"""Progress bars, and the lines that stand for them in the log of a night."""

from __future__ import annotations

from typing import Any

from rich.progress import Progress, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.text import Text

_LINE_SECONDS = 600


class Rate(ProgressColumn):
    """How many a second, or how many seconds each.

    Args:
        unit: Name of one.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        if not task.speed:
            return Text("")
        slow, unit = task.speed < 1, self.unit
        return Text(f"{1 / task.speed:.1f} s/{unit}" if slow else f"{task.speed:.1f} {unit}s/s")


class Bar(Progress):
    """A progress bar whose rate counts from the start: videos come in batches, all at one time.

    Attributes:
        in_lines: In place of the bar, as in the log of a night, a line says every ten minutes how
            far it is.
    """

    in_lines = False
    _said = 0.0

    def add_task(self, *args: Any, **kwargs: Any) -> TaskID:
        task = super().add_task(*args, **kwargs)
        self._said = self.get_time()
        self.advance(task, 0)  # the first sample, from which the rate is measured
        return task

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        now = self.get_time()
        if not self.in_lines or now - self._said < _LINE_SECONDS:
            return
        self._said = now
        task = next(task for task in self.tasks if task.id == task_id)
        done = f"{task.completed:,.0f}"
        told = [done if task.total is None else f"{done} of {task.total:,.0f}"]
        if task.time_remaining is not None:
            for column in self.columns:
                if isinstance(column, Rate):
                    told.append(str(column.render(task)))
                elif isinstance(column, TimeRemainingColumn):
                    told.append(f"{column.render(task)} left")
        told += [note for note in (task.fields.get("note"), task.fields.get("failed")) if note]
        line = Text(f"{task.description}: {', '.join(told)}")
        self.console.print(line, soft_wrap=True)
