"""Best of eight: a prompt's clips go from the generator to the model without touching a disk.

    python examples/best_of_n.py [PROMPT]

`generate` stands in for a generator: it renders nothing, but damages the example scene in seven
ways. With diffusers, the clips are `pipeline(prompt, num_videos_per_prompt=8).frames`.
"""

import argparse
from pathlib import Path

import numpy as np

import aigveval
from aigveval.distortion.registry import damaged
from aigveval.inference.choice import chances_of_best
from encoders import read_video

FPS = 24
SCENE = Path(__file__).parent / "videos/scene_clean.mp4"
PROMPT = "a red car drives along a road through green hills at sunset, a blue ball bounces past"
FLAWS = (
    ("blur", 3),
    ("blocking", 4),
    ("flicker", 4),
    ("freeze", 4),
    ("warping", 4),
    ("blur", 5),
    ("freeze", 2),
)


def generate(prompt: str) -> np.ndarray:
    """Eight clips of a prompt, uint8 (8, t, h, w, 3)."""
    scene = read_video(SCENE, num_slow=1000).slow.pixels.permute(0, 2, 3, 1).numpy()
    return np.stack([scene] + [damaged(scene, *flaw, fps=FPS)[0] for flaw in FLAWS])


def main(prompt: str) -> int:
    """Prints the clips from the best to the worst; gives the number of the best."""
    clips = generate(prompt)
    reward = aigveval.VideoReward("lite", fps=FPS)
    rows = reward.assess(clips, prompt)
    scores = [row.overall for row in rows if row.overall]  # none fails, as they are all sound
    chances = chances_of_best(scores)
    names = ["clean", *(f"{name} {severity}" for name, severity in FLAWS)]
    order = sorted(range(len(scores)), key=lambda n: -scores[n].score)
    for number in order:
        chance, score = chances[number], scores[number].score
        print(f"clip {number} ({names[number]}): {score:.2f}, the best with {chance:.0%}")
    return order[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    best = main(parser.parse_args().prompt)
    print(f"keep clip {best}")
