"""Who may import whom, and how light a package is: each import in a fresh interpreter."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("encoders", "prompts", "aigveval")
# Found without importing: what is tested may be a checkout or an installed package.
FOLDERS = {
    name: Path(next(iter(importlib.util.find_spec(name).submodule_search_locations)))
    for name in PACKAGES
}
MODULES = {
    name: sorted(
        ".".join((name, *path.relative_to(folder).with_suffix("").parts))
        for path in folder.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")
    )
    for name, folder in FOLDERS.items()
}
# Libraries of a single encoder, or of the LLM.
HEAVY = {"transformers", "peft", "timm", "open_clip", "pyiqa", "datasets"}
FILES = [path for folder in FOLDERS.values() for path in sorted(folder.rglob("*.py"))]


def imported_by(*modules, all_of=None):
    """The names that a fresh interpreter has in sys.modules after imports, but not before.

    Of the package `all_of` all public names are asked for too, which imports their modules.
    """
    code = (
        "import sys, json; before = set(sys.modules)\n"
        f"import {', '.join(modules)}\n"
        f"{f'from {all_of} import *' if all_of else ''}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    return set(json.loads(run(code)))


def run(code):
    roots = {str(folder.parent) for folder in FOLDERS.values()}
    path = os.pathsep.join([*sorted(roots), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def tops(names):
    return {name.partition(".")[0] for name in names}


def test_the_packages_have_the_modules_that_are_to_be_tested():
    assert "encoders.video" in MODULES["encoders"]
    assert "prompts.rubric" in MODULES["prompts"]
    assert "aigveval.model.modeling" in MODULES["aigveval"]


def test_encoders_imports_no_llm_and_none_of_our_other_packages():
    modules = imported_by("encoders", all_of="encoders")
    assert {"encoders.registry", "encoders.video", "torch"} <= modules
    assert not tops(modules) & {"aigveval", "prompts", *HEAVY}


def test_encoders_is_imported_without_torch():
    assert not tops(imported_by("encoders")) & {"torch", "numpy"}


def test_encoders_are_listed_without_being_imported():
    said = run(
        "import sys, json, encoders; from encoders.registry import describe_encoders\n"
        "names = list(describe_encoders()); assert names == encoders.list_encoders()\n"
        "print(json.dumps([names, sorted(sys.modules)]))"
    )
    names, modules = json.loads(said)
    assert names and not {f"encoders.{name}" for name in names} & set(modules)
    assert tops(modules) & HEAVY == set()


ALONE = """
import sys, json, torch; from encoders import create_encoder
encoder = create_encoder({name!r}, weights="random"{options})
frames = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)
with torch.inference_mode():
    encoder(encoder.preprocess(frames)[None])
print(json.dumps(sorted(sys.modules)))
"""
SMALL = {"semantic_clip": ", model='ViT-B-32'", "technical_fastvqa": ", num_frames=8"}
NEEDED = {
    "technical_fastvqa": set(), "motion_slowfast": set(),
    "semantic_clip": {"open_clip"}, "semantic_blip": {"transformers"},
}


@pytest.fixture(scope="module")
def modules_of(tmp_path_factory):
    """What is imported after each encoder alone, and after all modules of encoders at once.

    Each in a fork of a fresh interpreter that has loaded torch, which takes long, and nothing else.
    """
    codes = {
        name: ALONE.format(name=name, options=SMALL.get(name, "")) for name in NEEDED
    }
    imports = ", ".join(MODULES["encoders"])
    codes["all modules"] = f"import sys, json, {imports}\nprint(json.dumps(sorted(sys.modules)))"
    if not hasattr(os, "fork"):
        return {key: json.loads(run(code)) for key, code in codes.items()}
    folder = tmp_path_factory.mktemp("modules")
    run(
        "import os, sys, torch\n"
        f"for key, code in {codes!r}.items():\n"
        "    if os.fork() == 0:\n"
        f"        sys.stdout = open(os.path.join({str(folder)!r}, key), 'w')\n"
        "        exec(code, {'__name__': '__main__'})\n"
        "        sys.exit()\n"
        "    if status := os.wait()[1]:\n"
        "        sys.exit(f'{key}: status {status}')\n"
        "print('done')"
    )
    return {key: json.loads((folder / key).read_text().splitlines()[-1]) for key in codes}


@pytest.mark.parametrize("name", NEEDED)
def test_an_encoder_alone_brings_no_llm_and_none_of_our_other_packages(name, modules_of):
    """As another pipeline uses it: made, and encoding a clip, with nothing else imported."""
    modules, needed = modules_of[name], NEEDED[name]
    new = tops(modules)
    assert "encoders" in new and not new & {"aigveval", "prompts", "peft"}
    assert needed <= new
    assert not any(module.startswith("transformers.models.llama") for module in modules)
    if not needed:
        assert not new & HEAVY


def test_no_module_of_encoders_imports_our_other_packages(modules_of):
    modules = modules_of["all modules"]
    assert set(MODULES["encoders"]) <= set(modules)
    assert not tops(modules) & {"aigveval", "prompts", "peft"}


def test_prompts_imports_only_the_standard_library():
    new = tops(imported_by("prompts", *MODULES["prompts"]))
    assert "prompts" in new
    assert new - {"prompts"} <= set(sys.stdlib_module_names)


def test_aigveval_is_imported_without_torch():
    modules = imported_by("aigveval")
    assert "aigveval" in modules
    assert not tops(modules) & {"torch", "transformers", "numpy"}
    # Of the encoders only what must be said before torch is loaded.
    assert {m for m in modules if tops([m]) == {"encoders"}} == {"encoders", "encoders.cpu"}


def test_aigveval_is_imported_in_under_300_milliseconds():
    code = (
        "import time; start = time.process_time()\n"  # other tests may have the CPUs meanwhile
        "import aigveval\n"
        "print(time.process_time() - start)"
    )
    assert min(float(run(code)) for _ in range(3)) < 0.3


@pytest.mark.parametrize("package", ["encoders", "prompts"])
def test_a_package_imports_itself_relatively_so_that_it_can_be_vendored(package):
    found = []
    for path in FOLDERS[package].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            found += [f"{path.name}:{node.lineno}" for name in names if tops([name]) & {package}]
    assert found == []


@pytest.mark.parametrize("package", ["encoders", "prompts"])
def test_a_vendored_copy_works_under_another_name(package, tmp_path):
    target = tmp_path / "host" / "vendored"
    for path in FOLDERS[package].rglob("*"):
        if path.suffix in (".py", ".safetensors"):
            copy = target / path.relative_to(FOLDERS[package])
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    modules = [name.replace(package, "host.vendored", 1) for name in MODULES[package]]
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import {', '.join(modules)}\n"
        f"print({package!r} in sys.modules)"
    )
    assert run(code) == "False"


def test_no_module_is_called_utils():
    assert [str(path) for path in FILES if path.stem in ("utils", "util", "helpers")] == []


def test_no_module_is_longer_than_400_lines():
    lengths = {str(path): path.read_text(encoding="utf-8").count("\n") for path in FILES}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}
