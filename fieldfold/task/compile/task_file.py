"""Runs an author's task file and takes its `TASK`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import torch

from fieldfold.errors import CompileError
from fieldfold.task.authoring import Task
from fieldfold.task.compile.source_lines import raised_at, told

_FIRST_SEED = 0  # a model made while the file runs has the same first parameters every time


def load_task(path: Path) -> Task:
    """The `TASK` of a Python file, which is run with its own folder importable, as `python FILE.py` would.

    Raises:
        CompileError: when the file is missing, raises, or assigns no Task.
    """
    if not path.is_file():
        raise CompileError(f"{path}: no such file", "give the path of a Python file that assigns TASK")
    folder = str(path.resolve().parent)
    torch.manual_seed(_FIRST_SEED)
    sys.path.insert(0, folder)
    try:
        names = runpy.run_path(str(path), run_name="fieldfold_task_file")
    except (Exception, SystemExit) as error:
        raise CompileError(
            f"{raised_at(error) or path}: {told(error)}",
            "a task file is ordinary Python: run it by itself to see the whole error",
        ) from error
    finally:
        sys.path.remove(folder)
    task = names.get("TASK")
    if not isinstance(task, Task):
        found = "nothing" if task is None else f"a {type(task).__name__}"
        raise CompileError(f"{path}: TASK is {found}", "assign TASK = Task(...) from fieldfold.task.authoring")
    return task
