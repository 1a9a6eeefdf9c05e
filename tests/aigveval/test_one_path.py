"""`aigveval score` needs no training, evaluation or hub, and has no import circles on its path.

As the source says it: imports inside of functions count, those for typing for circles alone.
"""

import ast
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

import pytest

PACKAGES = ("aigveval", "encoders", "prompts")
MOST = 79


def find_modules():
    found = {}
    for package in PACKAGES:
        folder = Path(find_spec(package).submodule_search_locations[0])
        for path in folder.rglob("*.py"):
            name = ".".join((package, *path.relative_to(folder).with_suffix("").parts))
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = find_modules()


@cache
def imports_of(name, *, typing):
    """The modules of ours that a module imports, wherever in it."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found, todo = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not typing:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = resolve_name(base, package) if node.level else base
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base)
        todo += ast.iter_child_nodes(node)
    return found & MODULES.keys()


def reached_from(name, *, typing):
    reached, todo = set(), [name]
    while todo:
        module = todo.pop()
        if module not in reached:
            reached.add(module)
            todo += imports_of(module, typing=typing)
            if not typing:  # the packages that it lies in
                todo += [module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)]
    return reached


def test_score_reads_few_modules_and_none_of_training_evaluation_or_the_hub():
    reached = reached_from("aigveval.cli.score", typing=False)
    assert {"aigveval.inference.assessor", "aigveval.inference.engine"} <= reached
    folders = {module.split(".")[1] for module in reached if module.startswith("aigveval.")}
    assert not folders & {"train", "evaluation", "hub"}
    assert len(reached) <= MOST, sorted(reached)


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if name.startswith(("aigveval.model.", "aigveval.inference."))],
)
def test_no_module_of_model_and_inference_comes_back_to_itself(module):
    for imported in imports_of(module, typing=True):
        assert module not in reached_from(imported, typing=True), imported
