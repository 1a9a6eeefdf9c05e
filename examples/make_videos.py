"""Render the clips of examples/videos: a small procedural scene and damaged versions of it.

    python examples/make_videos.py [FOLDER]

The scene: a red car drives along a road through green hills at sunset while the camera pans, and a
blue ball bounces along. All of it is drawn from seeded noise, so the clips have texture, parallax
and camera motion, belong to this project, and come out the same each time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from aigveval.distortion.ladder import write_mp4
from aigveval.distortion.registry import damaged

FPS, SECONDS = 24, 3.0
WIDTH, HEIGHT = 640, 360
SCALE = 2  # drawn larger and shrunk: clean edges
PROMPT = "a red car drives along a road through green hills at sunset, a blue ball bounces past"
WRONG_PROMPT = "a panda plays the guitar in a snowy forest at night"
DAMAGE = {  # file name: distortion, severity
    "scene_blur": ("blur", 4),
    "scene_blocking": ("blocking", 4),
    "scene_freeze": ("freeze", 4),
    "scene_flicker": ("flicker", 4),
    "scene_warping": ("warping", 4),
}


def texture(
    height: int, width: int, seed: int, coarse: int = 4, octaves: int = 6, fade: float = 1.7
) -> np.ndarray:
    """Cloud-like noise (h, w), 0 to 1: octaves of random grids, each finer and `fade` x fainter."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = coarse * 2**octave
        grid = rng.random((rows, max(2, rows * width // height)), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / fade**octave
    total -= total.min()
    return total / total.max()


def tint(shade: np.ndarray, dark: tuple[int, ...], light: tuple[int, ...]) -> np.ndarray:
    """Colour (h, w, 3) between two RGB colours by a shade (h, w) of 0 to 1."""
    return np.array(dark, np.float32) * (1 - shade[..., None]) + (
        np.array(light, np.float32) * shade[..., None]
    )


def make_sky(height: int, width: int) -> np.ndarray:
    """Sunset sky with a sun and clouds (h, w, 3)."""
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    sky = tint(np.clip(rows * 1.5, 0, 1), (52, 84, 150), (255, 196, 130))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = np.hypot(x - 0.36 * width, y - 0.34 * height) / height
    sky += tint(np.exp(-6 * distance), (0, 0, 0), (160, 100, 20))
    clouds = np.clip(texture(height, width, seed=1, coarse=3) * 2.6 - 1.2, 0, 0.75)
    clouds = cv2.GaussianBlur(clouds, (0, 0), 3) * np.clip(1.15 - rows, 0, 1)
    light = tint(texture(height, width, seed=2), (190, 130, 140), (255, 225, 200))
    sky = sky * (1 - clouds[..., None]) + light * clouds[..., None]
    sun = np.clip((0.06 - distance) * 60, 0, 0.9)[..., None]
    return sky * (1 - sun) + np.array((255, 246, 214)) * sun


def make_hills(
    height: int,
    width: int,
    seed: int,
    top: float,
    rise: float,
    dark: tuple[int, ...],
    light: tuple[int, ...],
    haze: float,
    trees: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Textured hills with trees: colour (h, w, 3) and cover (h, w, 1), below a wavy skyline."""
    x = np.arange(width, dtype=np.float32) / height
    rng = np.random.default_rng(seed)
    line = sum(np.sin(2 * np.pi * (x * f + rng.random())) / f for f in (0.45, 0.9, 1.7, 3.1, 6.3))
    skyline = height * (top - rise * line / 3)
    rows = np.arange(height, dtype=np.float32)[:, None]
    cover = np.clip(rows - skyline, 0, 1)
    shade = texture(height, width, seed + 100, coarse=10, fade=1.25) * 1.5 - 0.25
    # Light from the sun behind: the crest is brighter than the foot.
    crest = np.exp(-np.clip(rows - skyline, 0, None) / (0.12 * height))
    colour = np.ascontiguousarray(tint(np.clip(0.75 * shade + 0.45 * crest, 0, 1), dark, light))
    cover = cover.astype(np.float32)
    for _ in range(trees):
        x_px = int(rng.integers(0, width))
        y_px = int(skyline[x_px] + rng.random() ** 2 * 0.1 * height)
        tall = height * (0.02 + 0.035 * rng.random())
        hue = np.array(dark, np.float64) * (0.55 + 0.5 * rng.random())
        for part in range(4):  # a pine: four triangles
            up, wide = tall * (1 - 0.22 * part), tall * (0.1 + 0.07 * part)
            corners = [
                (x_px - wide, y_px - up + 0.42 * tall),
                (x_px, y_px - up),
                (x_px + wide, y_px - up + 0.42 * tall),
            ]
            cv2.fillPoly(colour, [np.int32(corners)], tuple(hue * (1.15 - 0.08 * part)))
            cv2.fillPoly(cover, [np.int32(corners)], 1.0)
    return colour * (1 - haze) + np.array((235, 175, 135)) * haze, cover[..., None]


def make_ground(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Verge with posts, road, grass in front: colour (h, w, 3) and cover (h, w, 1)."""
    rows = np.arange(height)[:, None] / height
    columns = np.arange(width)[None] / height
    blades = texture(height, width, seed=7, coarse=40, octaves=5, fade=1.2)
    grit = texture(height, width, seed=8, coarse=60, octaves=4, fade=1.1)
    grass = tint(blades, (28, 52, 18), (128, 142, 52))
    road = tint(grit, (62, 58, 62), (112, 104, 104))
    colour = np.where(((rows > 0.74) & (rows < 0.91))[..., None], road, grass)
    dash = (rows > 0.818) & (rows < 0.828) & (columns % 0.3 < 0.16)
    edge = ((rows > 0.748) & (rows < 0.753)) | ((rows > 0.897) & (rows < 0.903)) & (columns > -1)
    colour = np.where((dash | edge)[..., None], (222, 214, 190), colour)
    for x in np.arange(0.15, width / height, 0.62):  # posts: something sharp passes by
        post = (np.abs(columns - x) < 0.008) & (rows > 0.635) & (rows < 0.735)
        colour = np.where(post[..., None], (236, 228, 214), colour)
        band = post & (rows < 0.665)
        colour = np.where(band[..., None], (176, 40, 34), colour)
    cover = (rows > 0.685) * np.ones((1, width))
    posts = (colour == (236, 228, 214)).all(-1) | (colour == (176, 40, 34)).all(-1)
    return colour, np.maximum(cover, posts)[..., None].astype(np.float32)


def draw_car(image: np.ndarray, x: float, y: float, size: float, turn: float) -> None:
    """A red car with its wheels on row y, centred on column x, `size` px long; wheels turned."""

    def at(points: list[tuple[float, float]]) -> np.ndarray:
        return np.int32([(x + size * px, y - size * py) for px, py in points])

    def disc(px: float, py: float, radius: float, colour: tuple[int, ...]) -> None:
        centre = at([(px, py)])[0]
        cv2.circle(image, tuple(map(int, centre)), round(size * radius), colour, -1, cv2.LINE_AA)

    def line(points: list[tuple[float, float]], colour: tuple[int, ...], width: int) -> None:
        cv2.polylines(image, [at(points)], False, colour, width, cv2.LINE_AA)

    shadow = image.copy()
    centre = tuple(map(int, at([(0, 0.0)])[0]))
    axes = (round(0.53 * size), round(0.045 * size))
    cv2.ellipse(shadow, centre, axes, 0, 0, 360, (18, 16, 20), -1)
    image[:] = cv2.addWeighted(cv2.GaussianBlur(shadow, (0, 0), size / 60), 0.75, image, 0.25, 0)
    body = [
        (-0.5, 0.1),
        (-0.5, 0.21),
        (-0.44, 0.25),
        (-0.27, 0.27),
        (-0.15, 0.4),
        (0.13, 0.4),
        (0.25, 0.27),
        (0.45, 0.23),
        (0.5, 0.17),
        (0.5, 0.1),
    ]
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [at(body)], 255, cv2.LINE_AA)
    rows = np.arange(image.shape[0], dtype=np.float32)[:, None] * np.ones((1, image.shape[1]))
    paint = tint(np.clip((y - rows) / size / 0.42, 0, 1) ** 1.5, (96, 8, 14), (244, 66, 46))
    part = mask[..., None] / 255.0
    image[:] = (image * (1 - part) + paint * part).astype(np.uint8)
    for window in (
        [(-0.23, 0.275), (-0.135, 0.375), (-0.01, 0.375), (-0.01, 0.275)],
        [(0.015, 0.275), (0.015, 0.375), (0.115, 0.375), (0.2, 0.275)],
    ):
        cv2.fillPoly(image, [at(window)], (52, 66, 88), cv2.LINE_AA)
        line([window[1], window[3]], (96, 116, 140), 2)
    line([(0.0, 0.13), (0.0, 0.27)], (110, 12, 18), 2)
    line([(-0.48, 0.215), (0.46, 0.205)], (255, 128, 96), 2)
    disc(0.465, 0.185, 0.022, (255, 240, 190))
    disc(-0.485, 0.19, 0.018, (255, 40, 30))
    for px in (-0.3, 0.3):
        disc(px, 0.09, 0.092, (20, 20, 24))
        disc(px, 0.09, 0.056, (176, 178, 186))
        for spoke in range(5):
            angle = turn + spoke * 2 * np.pi / 5
            tip = (px + 0.052 * np.cos(angle), 0.09 - 0.052 * np.sin(angle))
            line([(px, 0.09), tip], (58, 60, 68), 3)


def draw_ball(image: np.ndarray, x: float, y: float, ground: float, radius: float) -> None:
    """A shaded blue ball at (x, y) with its shadow on row `ground`."""
    near = 1 - min(1.0, (ground - radius - y) / (6 * radius))
    axes = (round(radius * (0.6 + 0.4 * near)), round(radius * 0.22))
    centre = (round(x), round(ground))
    shadow = cv2.ellipse(image.copy(), centre, axes, 0, 0, 360, (14, 20, 14), -1, cv2.LINE_AA)
    image[:] = cv2.addWeighted(shadow, 0.3 + 0.4 * near, image, 0.7 - 0.4 * near, 0)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    u, v = (columns - x) / radius, (rows - y) / radius
    inside = np.clip((1 - np.hypot(u, v)) * radius, 0, 1)[..., None]
    bulge = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
    glow = np.clip(0.25 + 0.75 * (0.55 * bulge - 0.45 * u - 0.6 * v), 0, 1)
    stripe = (np.abs(v + 0.15 * u) < 0.16)[..., None]
    paint = np.where(
        stripe, tint(glow, (90, 90, 110), (255, 250, 240)), tint(glow, (8, 22, 84), (80, 150, 255))
    )
    image[:] = (image * (1 - inside) + paint * inside).astype(np.uint8)


def render_scene() -> np.ndarray:
    """All frames, uint8 RGB (t, h, w, 3)."""
    height, width = HEIGHT * SCALE, WIDTH * SCALE
    count = round(FPS * SECONDS)
    wide = width + round(1.5 * height)
    sky = make_sky(height, wide)
    layers = [
        (0.12, *make_hills(height, wide, 11, 0.52, 0.16, (70, 78, 110), (150, 138, 150), 0.45)),
        (0.30, *make_hills(height, wide, 12, 0.60, 0.13, (38, 66, 48), (150, 150, 84), 0.18, 220)),
        (0.55, *make_hills(height, wide, 13, 0.69, 0.08, (24, 56, 22), (140, 150, 56), 0.0, 160)),
        (1.00, *make_ground(height, wide)),
    ]
    frames = []
    for i in range(count):
        seconds = i / FPS
        pan = height * (0.30 * seconds + 0.03 * np.sin(1.7 * seconds))
        sway = 0.008 * height * np.sin(2.1 * seconds)

        def view(layer: np.ndarray, depth: float) -> np.ndarray:
            move = np.float32([[1, 0, -pan * depth], [0, 1, sway * depth]])
            return cv2.warpAffine(layer, move, (width, height), borderMode=cv2.BORDER_REPLICATE)

        image = view(sky, 0.04)
        for depth, colour, cover in layers:
            mask = view(cover.astype(np.float32), depth)[..., None]
            image = image * (1 - mask) + view(colour.astype(np.float32), depth) * mask
        frame = np.clip(image, 0, 255).astype(np.uint8)
        drive = height * (0.38 + 0.33 * seconds)
        draw_car(frame, drive, height * 0.855 + sway, 0.5 * height, 9.0 * seconds)
        hop = abs(np.sin(3.4 * seconds + 0.6))
        draw_ball(
            frame,
            height * (1.62 - 0.17 * seconds),
            height * (0.895 - 0.3 * hop) + sway,
            height * 0.95 + sway,
            0.055 * height,
        )
        frames.append(cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    return np.stack(frames)


def main(folder: Path) -> None:
    """Write the clips and prompts.json."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = render_scene()
    clips = {"scene_clean": scene}
    for name, (kind, severity) in DAMAGE.items():
        clips[name], start, end = damaged(scene, kind, severity, seed=1, fps=FPS)
        print(f"{name}: {kind}, severity {severity}, from {start:.2f} s to {end:.2f} s")
    clips["scene_wrong_prompt"] = scene
    prompts = {}
    for name, frames in clips.items():
        write_mp4(folder / f"{name}.mp4", frames, FPS, crf=20, preset="slow")
        prompts[f"{name}.mp4"] = WRONG_PROMPT if name == "scene_wrong_prompt" else PROMPT
    text = json.dumps(prompts, indent=2) + "\n"
    (folder / "prompts.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "videos")
    main(parser.parse_args().folder)
