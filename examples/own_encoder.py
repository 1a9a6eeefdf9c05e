"""An encoder of your own, registered for this process: python examples/own_encoder.py clip.mp4

An entry point in your package's setup.cfg makes it known everywhere, on the command line too:
    [options.entry_points]
    aigveval.encoders = technical_colour = my_package.colour:TechnicalColour"""

import sys

import torch

from encoders import Encoder, EncoderSpec, create_encoder, read_video, register_encoder
from encoders.base import check_frames
from encoders.resizing import repeat_to
from encoders.sampling import uniform


class TechnicalColour(Encoder):
    """Colourfulness of eight frames (Hasler and Suesstrunk, 2003): tokens (b, 8, 5)."""
    spec = EncoderSpec(name="technical_colour", dimension="technical", num_tokens=8, dim=5,
                       stream="slow", size=1, mean=(0.0,), std=(1.0,), time_steps=8)

    def frame_indices(self, num_frames, fps):
        return uniform(num_frames, 8)

    def preprocess(self, frames, *, seed=0):  # uint8 (t, 3, h, w) to (8, 5)
        check_frames(frames)
        red, green, blue = frames.float().flatten(2).unbind(1)
        opponents = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
        std, mean = torch.std_mean(opponents, 2, correction=0)
        colourfulness = std.norm(dim=1) + 0.3 * mean.norm(dim=1)
        return repeat_to(torch.cat([std, mean, colourfulness[:, None]], dim=1), 8)

    def encode(self, view):  # a network would be here
        return view.clone()

register_encoder("technical_colour", TechnicalColour)
if __name__ == "__main__":
    own = create_encoder("colour")
    print(own(own.preprocess(read_video(sys.argv[1], encoder=own).slow.pixels)[None]))
