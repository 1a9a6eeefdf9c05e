import numpy as np
import pytest
import torch

from encoders.fragments import cell_starts, gather_fragments, sample_fragments
from encoders.resizing import _kept, each_size_once


def coordinates(t, height, width):
    """Frames that hold their own coordinates: channels are frame, row, column."""
    frame = torch.arange(t).view(t, 1, 1).expand(t, height, width)
    row = torch.arange(height).view(1, height, 1).expand(t, height, width)
    column = torch.arange(width).view(1, 1, width).expand(t, height, width)
    return torch.stack([frame, row, column], dim=1).float()


def patches(mosaic, grid, size):
    """(t, 3, grid * size, grid * size) as (t, 3, grid, grid, size, size)."""
    return mosaic.unflatten(3, (grid, size)).unflatten(2, (grid, size)).permute(0, 1, 2, 4, 3, 5)


SIZES = [(225, 226), (240, 240), (405, 720), (720, 405), (720, 1280), (224, 1500)]


@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("grid, size, snap", [(7, 32, 1), (7, 32, 8), (4, 16, 1), (5, 24, 4)])
def test_patches_are_whole_and_come_from_their_own_cell(height, width, grid, size, snap):
    mosaic = sample_fragments(
        coordinates(2, height, width), grid=grid, size=size, aligned=2, seed=3, snap=snap
    )
    assert mosaic.shape == (2, 3, grid * size, grid * size)
    out = patches(mosaic, grid, size)
    tops, lefts = out[0, 1, :, :, 0, 0], out[0, 2, :, :, 0, 0]
    # True pixels of the right frame: each patch counts up from its corner, nothing interpolated.
    steps = torch.arange(size)
    for frame in range(2):
        assert (out[frame, 0] == frame).all()
        assert (out[frame, 1] == tops[..., None, None] + steps.view(-1, 1)).all()
        assert (out[frame, 2] == lefts[..., None, None] + steps.view(1, -1)).all()
    assert (tops % snap == 0).all() and (lefts % snap == 0).all()
    for corner, length, axis in ((tops, height, 0), (lefts, width, 1)):
        cell = length // grid
        starts = (torch.arange(grid) * cell).view((-1, 1) if axis == 0 else (1, -1))
        # Snapping may pull a patch back over the cell's edge, by less than one step.
        assert (corner > starts - snap).all()
        assert (corner + size <= starts + max(cell, size)).all()


def test_positions_vary_over_the_whole_cell():
    """Not always the corner: over seeds, offsets reach both ends of the slack and its middle."""
    offsets = []
    for seed in range(40):
        out = patches(sample_fragments(coordinates(1, 448, 896), aligned=1, seed=seed), 7, 32)
        offsets.append(out[0, 2, :, :, 0, 0] - torch.arange(7) * 128)
    offsets = torch.stack(offsets)
    assert offsets.min() == 0 and offsets.max() == 95  # slack of 96 in a cell of 128
    assert abs(float(offsets.mean()) - 47.5) < 2


def test_rows_and_columns_are_drawn_apart():
    out = patches(sample_fragments(coordinates(1, 448, 448), aligned=1), 7, 32)
    down = out[0, 1, :, :, 0, 0] - torch.arange(7).view(7, 1) * 64
    across = out[0, 2, :, :, 0, 0] - torch.arange(7).view(1, 7) * 64
    assert not torch.equal(down, across) and not torch.equal(down, across.T)


def test_a_seed_gives_the_same_mosaic_and_another_seed_another():
    frames = torch.randint(0, 256, (4, 3, 360, 480), dtype=torch.uint8)
    before = frames.clone()
    first = sample_fragments(frames, aligned=4, seed=7)
    torch.manual_seed(0)  # the global generator is neither read nor moved
    state = torch.get_rng_state()
    assert torch.equal(first, sample_fragments(frames, aligned=4, seed=7))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, sample_fragments(frames, aligned=4, seed=8))
    assert torch.equal(frames, before)


@pytest.mark.parametrize("aligned", [1, 2, 4, 8])
def test_aligned_frames_share_positions_and_others_do_not(aligned):
    mosaic = sample_fragments(coordinates(8, 360, 480), aligned=aligned)
    groups = mosaic[:, 1:].unflatten(0, (-1, aligned))
    assert (groups == groups[:, :1]).all()
    for a, b in zip(groups, groups[1:]):
        assert not torch.equal(a[0], b[0])


def test_aligned_must_divide_the_frames():
    with pytest.raises(ValueError) as caught:
        sample_fragments(coordinates(8, 240, 240), aligned=3)
    assert str(caught.value) == "aligned must divide the 8 frames, got 3"


@pytest.mark.parametrize("height, width", [(120, 160), (16, 16), (17, 33), (100, 500), (500, 100)])
def test_the_grid_of_a_small_video_lies_over_the_enlarged_one(height, width):
    """Patches cover the enlarged picture without overlap: upstream's grid keeps the old size."""
    ramp = coordinates(1, height, width) / torch.tensor([1, height, width]).view(1, 3, 1, 1)
    out = patches(sample_fragments(ramp, aligned=1), 7, 32)[0]
    for channel, patch_axis, cell_axis in ((1, 2, 0), (2, 3, 1)):
        along = out[channel]
        low, high = along.amin((2, 3)), along.amax((2, 3))
        low, high = (low, high) if cell_axis == 0 else (low.T, high.T)
        assert (low[1:] >= high[:-1] - 1e-6).all()  # the next cell begins where this one ended
        assert low[0].min() < 0.15 and high[-1].max() > 0.8  # and they reach both ends
        assert (along.diff(dim=patch_axis) >= -1e-6).all()


def test_a_picture_as_large_as_the_mosaic_is_taken_as_it_is():
    frames = torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8)
    assert torch.equal(sample_fragments(frames, aligned=3, snap=8), frames)


def test_enlarging_keeps_the_type_the_range_and_flat_colour():
    frames = torch.zeros(2, 3, 30, 40, dtype=torch.uint8)
    frames[:, 0] = 255
    out = sample_fragments(frames, aligned=2)
    assert out.dtype == torch.uint8
    assert (out[:, 0] == 255).all() and (out[:, 1:] == 0).all()
    assert sample_fragments(frames.float(), aligned=2).dtype == torch.float32


def test_cells_at_the_end_leave_room_for_a_patch():
    assert cell_starts(448, grid=7, size=32).tolist() == [0, 64, 128, 192, 256, 320, 384]
    assert cell_starts(224, grid=7, size=40).tolist() == [0, 32, 64, 96, 128, 160, 184]


@pytest.mark.parametrize("case", "abc")
def test_fragments_at_upstreams_positions_are_upstreams(case, data_dir):
    """Bit for bit what FAST-VQA's sampler gave; where it draws, ours draws its own positions."""
    golden = np.load(data_dir / "golden" / "fragments.npz")
    t, height, width, aligned = golden[f"{case}_thw_aligned"].tolist()
    video = np.random.RandomState(t + height + width).randint(0, 256, (3, t, height, width))
    frames = torch.from_numpy(video.astype(np.uint8)).transpose(0, 1)
    rows = torch.from_numpy(golden[f"{case}_offset_h"]).permute(2, 0, 1)
    columns = torch.from_numpy(golden[f"{case}_offset_w"]).permute(2, 0, 1)
    out = gather_fragments(
        frames,
        rows + cell_starts(height, grid=7, size=32).view(7, 1),
        columns + cell_starts(width, grid=7, size=32).view(1, 7),
        size=32,
        aligned=aligned,
    )
    assert torch.equal(out.transpose(0, 1), torch.from_numpy(golden[f"{case}_out"]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_upstreams_slip_on_small_videos_is_reproduced_on_demand_only(dtype, data_dir):
    """Case d: the enlarged picture is cut by the grid of the small one. Nothing is drawn there."""
    golden = np.load(data_dir / "golden" / "fragments.npz")
    t, height, width, aligned = golden["d_thw_aligned"].tolist()
    video = np.random.RandomState(t + height + width).randint(0, 256, (3, t, height, width))
    frames = torch.from_numpy(video).to(dtype).transpose(0, 1)
    expected = torch.from_numpy(golden["d_out"])
    theirs = sample_fragments(frames, aligned=aligned, strict_upstream=True)
    assert theirs.dtype == dtype
    assert torch.equal(theirs.to(torch.uint8).transpose(0, 1), expected)
    ours = sample_fragments(frames, aligned=aligned).to(torch.uint8).transpose(0, 1)
    assert (ours != expected).float().mean() > 0.9


def test_upstreams_grid_of_a_small_video_sees_its_top_left_only():
    ramp = coordinates(1, 120, 160)
    theirs = sample_fragments(ramp, aligned=1, strict_upstream=True)[0]
    ours = sample_fragments(ramp, aligned=1)[0]
    assert theirs[1].max() < 75 and theirs[2].max() < 95  # of 119 rows and 159 columns
    assert ours[1].max() > 115 and ours[2].max() > 150


@pytest.mark.parametrize(
    "height, width, t, aligned",
    [
        (360, 640, 8, 4),
        (300, 230, 4, 4),
        (230, 225, 2, 1),
        (500, 225, 2, 1),
    ],
)
def test_upstreams_positions_are_those_of_its_seed(height, width, t, aligned):
    """Rows are drawn first, then columns, as (grid, grid, groups); nothing where there's no room.

    The drawing of `get_spatial_fragments`, from the global generator.
    """
    torch.manual_seed(11)
    offsets = []
    for length in (height, width):
        slack = length // 7 - 32
        shape = (7, 7, t // aligned)
        offsets.append(torch.randint(slack, shape) if slack > 0 else torch.zeros(shape).long())
    out = patches(
        sample_fragments(
            coordinates(t, height, width), aligned=aligned, seed=11, strict_upstream=True
        ),
        7,
        32,
    )
    for n in range(t):
        for channel, length, shape in ((1, height, (7, 1)), (2, width, (1, 7))):
            starts = torch.tensor([min(length // 7 * i, length - 32) for i in range(7)])
            expected = starts.view(shape) + offsets[channel - 1][..., n // aligned]
            assert torch.equal(out[n, channel, :, :, 0, 0], expected.float())


@pytest.mark.parametrize("height, width", [(1, 1), (16, 400), (20, 33)])
def test_upstreams_grid_takes_frames_of_any_size(height, width):
    frames = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    out = sample_fragments(frames, aligned=2, strict_upstream=True)
    assert out.shape == (2, 3, 224, 224) and out.dtype == torch.uint8


# Small frames a few at a time -------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("aligned", [2, 8])
def test_how_many_frames_are_enlarged_at_a_time_changes_nothing(strict, aligned, monkeypatch):
    frames = torch.randint(0, 256, (8, 3, 120, 330), dtype=torch.uint8)

    def mosaic():
        return sample_fragments(frames, aligned=aligned, seed=5, snap=8, strict_upstream=strict)

    expected = mosaic()
    for most in (1, 3 * 224 * 616):
        monkeypatch.setattr("encoders.fragments._MOST_PX", most)
        assert torch.equal(mosaic(), expected)


def test_a_strip_is_enlarged_frame_by_frame(monkeypatch):
    """Each frame of 1 x 1920 pixels becomes one of 96 million: eight have taken 4 GB."""
    seen = []

    def enlarge(frames, height, width):
        seen.append((len(frames), height, width))
        return frames.new_zeros(1, 1, 1, 1).expand(len(frames), 3, height, width)

    monkeypatch.setattr("encoders.fragments.resized", enlarge)
    strip = torch.zeros(8, 3, 1, 1920, dtype=torch.uint8)
    assert sample_fragments(strip, aligned=8).shape == (8, 3, 224, 224)
    assert seen == [(1, 224, 430080)] * 8
    sample_fragments(torch.zeros(8, 3, 120, 160, dtype=torch.uint8), aligned=8)
    assert seen[8:] == [(8, 224, 299)]


def test_what_a_strip_becomes_is_not_kept_for_other_encoders(monkeypatch):
    monkeypatch.setattr("encoders.fragments._MOST_PX", 1)
    frames = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    with each_size_once():
        sample_fragments(frames, aligned=2)
        assert not _kept.sizes
