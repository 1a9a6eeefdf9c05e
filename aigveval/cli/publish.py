"""`aigveval publish`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer

PUBLISH_HELP = """\
Publishes a trained model on the Hugging Face Hub, with a model card.

MODEL is a folder that `aigveval fit` or `save_pretrained` wrote, such as `runs/mine/model`, or
`lite`. What was trained is uploaded, a few MB: `config.json` and `model.safetensors` (and the
frozen weights, if they are merged into it). The card `README.md` states the LLM and the encoders
with their licences, the LoRA, the data, the figures, limits, and how to load and cite it. Data and
figures come from what `aigveval fit` left beside the folder, from `evaluation*.json` and a
`README.md` of yours inside of it, and from the options below.

Log in first, by `hf auth login`, or set `HF_TOKEN`. With `--out` nothing is uploaded.

Examples:

- `aigveval evaluate results.jsonl ratings.csv --out evaluation.json`
- `aigveval publish runs/mine/model me/mine --figures evaluation.json --out preview`
- `aigveval publish runs/mine/model me/mine --figures evaluation.json --license apache-2.0`

Others then use it by `aigveval score clips --model me/mine`.
"""


def publish(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="What to publish.", show_default=False)
    ],
    repo_id: Annotated[
        str,
        typer.Argument(
            metavar="OWNER/NAME",
            help="Where on the Hub; made if it is not there.",
            show_default=False,
        ),
    ],
    figures: Annotated[
        Optional[list[Path]],
        typer.Option(
            metavar="FILE.json",
            help="What `aigveval evaluate --out FILE.json` wrote; may be repeated.",
        ),
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(metavar="TEXT", help="A line about data it was trained on; may be repeated."),
    ] = None,
    license: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            show_default="not stated",
            help="Of the trained weights, as the Hub calls it, such as apache-2.0.",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A new repository is for you alone.")
    ] = False,
    revision: Annotated[Optional[str], typer.Option(help="Branch to commit to.")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")
    ] = False,
    out: Annotated[
        Optional[Path],
        typer.Option(metavar="FOLDER", help="Write there what would be uploaded, and stop."),
    ] = None,
) -> None:
    from ..hub.publish import check_repo_id, local_checkpoint, stage, upload

    check_repo_id(repo_id)
    folder = local_checkpoint(model)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary, "staged") if out is None else out
        files = stage(
            folder, staged, repo_id=repo_id, figures=figures or (), data=data or (), license=license
        )
        for file in files:
            typer.echo(f"{(staged / file).stat().st_size / 1e6:9.2f} MB  {file.as_posix()}")
        if out is not None:
            typer.echo(f"{out}: what would be uploaded to {repo_id}; nothing was")
            return
        commit = upload(
            staged, repo_id, private=private or None, revision=revision, create_pr=create_pr
        )
    typer.echo(f"Published: {commit.pr_url or commit.commit_url}")
