"""Tokens of a video from one encoder: python examples/features.py clip.mp4 motion_flow"""

import sys

import torch

from encoders import create_encoder, read_video

encoder = create_encoder(sys.argv[2])
frames = read_video(sys.argv[1], encoder=encoder).stream(encoder.spec.stream)
view = encoder.preprocess(frames.pixels)
with torch.inference_mode():
    tokens = encoder(view[None])  # (1, k, d); an encoder that reads prompts also takes a list
print(encoder.spec.to_dict(), tuple(tokens.shape), tokens.mean().item(), sep="\n")
