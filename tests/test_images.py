"""Pictures and arrays: exact ways back, preview maps with a known answer, filmstrips."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from diffusionlab.errors import InputError, NumericsError
from diffusionlab.images import (
    Preview,
    channel_pictures,
    enlarge,
    filmstrip,
    open_image,
    same_webp,
    smaller_png,
    spread,
    tile,
    to_array,
    to_image,
    to_pixels,
    to_png,
    to_rgb,
    to_webp,
)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_arrays_and_pixels_come_back_exactly():
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(to_array(to_image(array)), array)
    pixels = to_pixels(to_image(array))
    assert pixels.dtype == np.float32 and pixels.min() >= 0 and pixels.max() <= 1
    assert np.array_equal(to_array(to_image(pixels)), array)
    assert not np.array_equal(to_array(to_image(pixels * 0.99)), array)  # the check can fail


def test_floats_are_clipped_and_rounded_never_wrapped():
    row = np.array([[[-5.0] * 3, [0.0] * 3, [0.5] * 3, [1.0] * 3, [300.0] * 3]])
    assert to_array(to_image(row))[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_never_a_black_picture(bad):
    pixels = np.zeros((4, 4, 3))
    pixels[1, 2, 0] = bad
    with pytest.raises(NumericsError, match="1 of 48"):
        to_image(pixels)


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 4, 4, 3), (4,)])
def test_wrong_shapes_are_told(shape):
    with pytest.raises(InputError, match="channels go last"):
        to_image(np.zeros(shape))


def test_transparent_parts_show_the_background_not_hidden_colours():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    assert to_array(to_rgb(image))[0, 0].tolist() == [255, 255, 255]
    assert to_array(to_rgb(image, (0, 0, 9)))[0, 0].tolist() == [0, 0, 9]
    with pytest.raises(InputError, match="PIL image"):
        to_rgb(np.zeros((2, 2, 3), np.uint8))


def test_open_image_reads_three_formats_and_nothing_else(tmp_path):
    image = to_image(np.full((4, 6, 3), 200, np.uint8))
    for suffix in ("png", "jpg", "webp"):
        image.save(tmp_path / f"a.{suffix}")
        assert open_image(tmp_path / f"a.{suffix}").size == (6, 4)
    (tmp_path / "b.png").write_text("<svg/>")
    image.save(tmp_path / "c.gif")
    cut = (tmp_path / "a.jpg").read_bytes()[:-300]
    (tmp_path / "cut.jpg").write_bytes(cut)
    for wrong in (tmp_path / "b.png", tmp_path / "c.gif", tmp_path / "cut.jpg", "http://x/y.png"):
        with pytest.raises(InputError, match="not a readable PNG, JPEG or WebP"):
            open_image(wrong)


def test_preview_map_has_a_known_answer_and_comes_back_from_json():
    preview = Preview(np.eye(3, 4) * 0.25, np.full(3, 0.5), np.ones(3))
    latent = np.zeros((4, 2, 3))
    latent[0, 0, 1], latent[2, 1, 2], latent[3] = 2.0, -9.0, 50.0
    rgb = preview.rgb(latent)
    assert rgb.shape == (2, 3, 3) and rgb.dtype == np.uint8
    assert rgb[0, 1].tolist() == [255, 128, 128] and rgb[1, 2].tolist() == [128, 128, 0]
    again = Preview.from_json(json.loads(json.dumps(preview.to_json())))
    assert np.array_equal(again.rgb(noise(4, 8, 8)), preview.rgb(noise(4, 8, 8)))


def test_preview_is_fitted_by_least_squares():
    latents = noise(6, 4, 4, 4) * 0.3
    true = Preview(noise(3, 4, seed=1) * 0.2, np.full(3, 0.5), np.ones(3))
    arrays = np.stack([np.kron(true.rgb(z), np.ones((8, 8, 1))).astype(np.uint8) for z in latents])
    found = Preview.fit(latents, arrays)
    assert np.abs(found.weight - true.weight).max() < 0.01 and found.r2.min() > 0.99
    assert Preview.fit(latents, arrays[::-1]).r2.max() < 0.8  # unrelated pictures do not fit


def test_preview_refuses_what_it_cannot_read():
    preview = Preview(np.eye(3, 4), np.zeros(3), np.ones(3))
    with pytest.raises(InputError, match="4, height, width"):
        preview.rgb(np.zeros((3, 2, 2)))
    with pytest.raises(NumericsError):
        preview.rgb(np.full((4, 2, 2), np.nan))
    good = preview.to_json()
    for bad in (
        {},
        good | {"bias": [1]},
        good | {"weight": "x"},
        good | {"r2": [np.inf] * 3},
        None,
    ):
        with pytest.raises(InputError, match="preview map"):
            Preview.from_json(bad)


def test_channel_pictures_share_one_symmetric_range():
    latent = np.zeros((2, 1, 3), np.float32)
    latent[0, 0], latent[1, 0] = [-2, 0, 2], [-1, 0, 1]
    first, second = (to_array(p)[0, :, 0].tolist() for p in channel_pictures(latent))
    assert first == [0, 128, 255] and second == [64, 128, 191]
    assert to_array(channel_pictures(np.zeros((1, 2, 2)))[0]).max() == 128


def test_spread_keeps_both_ends():
    assert spread(3, 8) == (0, 1, 2)
    for count in range(2, 60):
        chosen = spread(count, 6)
        assert chosen[0] == 0 and chosen[-1] == count - 1 and len(chosen) == min(count, 6)
        assert list(chosen) == sorted(set(chosen))


def test_tile_and_enlarge():
    images = [to_image(np.full((2, 3, 3), shade, np.uint8)) for shade in (10, 20, 30)]
    sheet = tile(images, columns=2, gap=1)
    assert sheet.size == (7, 5)
    assert [sheet.getpixel(p)[0] for p in ((0, 0), (4, 0), (0, 3), (4, 3))] == [10, 20, 30, 255]
    assert sorted(set(to_array(enlarge(images[0], 30)).ravel())) == [10]
    with pytest.raises(InputError):
        tile([])


def test_filmstrip_puts_every_frame_in_its_place():
    shades = [[10, 60, 110], [160, 210, 250]]
    rows = [[to_image(np.full((4, 4, 3), s, np.uint8)) for s in row] for row in shades]
    strip = to_array(filmstrip(rows, ["first", "second"], ["a", "b\nc", "d"], title="t", frame=100))
    for s in (10, 60, 110, 160, 210, 250):
        same = (strip == s).all(axis=2)
        assert abs(int(same.sum()) - 100 * 100) < 40  # text has a few pixels of each grey
    first, last = (np.argwhere((strip == s).all(axis=2)).mean(axis=0) for s in (10, 250))
    assert last[0] > first[0] and last[1] > first[1]


def test_a_title_that_is_too_long_for_the_sheet_goes_on_below():
    image = Image.new("RGB", (8, 8))
    one, two = (filmstrip([[image]], [""], title=title) for title in ("a car", "a car in the city"))
    assert one.width == two.width and one.height < two.height < one.height + 31
    assert filmstrip([[image]], [""], title="a car " * 99).height < one.height + 70  # three lines


def test_filmstrip_has_captions_and_labels_and_copes_with_any_text():
    image = to_image(np.zeros((4, 4, 3), np.uint8))
    bare = filmstrip([[image]], [""], frame=80)
    told = filmstrip([[image]], ["<b>مرحبا 🐧"], ["step 3\nt 849"], title="x" * 5000, frame=80)
    assert told.height > bare.height and told.width > bare.width


@pytest.mark.parametrize(
    ("rows", "labels", "captions"),
    [(0, 1, 0), (1, 2, 0), (1, 1, 3)],
    ids=["rows", "labels", "words"],
)
def test_filmstrip_says_what_does_not_match(rows, labels, captions):
    image = to_image(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError):
        filmstrip([[image]] * rows, ["x"] * labels, ["c"] * captions)
    with pytest.raises(InputError, match="equally long"):
        filmstrip([[image], [image, image]], ["a", "b"])


def test_files_for_pages():
    image = to_image(np.full((40, 40, 3), 77, np.uint8))
    assert to_webp(image)[8:12] == b"WEBP"
    with pytest.raises(OSError, match="cannot identify"):
        smaller_png(b"nothing")


def test_the_same_pixels_in_fewer_bytes():
    array = np.zeros((60, 80, 3), np.uint8)
    array[20:40, 10:50] = np.arange(40)[:, None] * (3, 5, 1)
    png = to_png(to_image(array))
    small = same_webp(png)
    assert small[8:12] == b"WEBP" and len(small) < len(png)
    images = [np.asarray(Image.open(io.BytesIO(d)).convert("RGB")) for d in (png, small)]
    assert np.array_equal(*images)


def test_a_rare_colour_of_a_drawing_stays_true():
    array = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    array[..., 2] = array[..., 1] = array[..., 0]  # greys
    array[:3, :3] = (213, 94, 0)
    again = Image.open(io.BytesIO(to_png(to_image(array))))
    off = np.abs(np.asarray(again.convert("RGB"))[1, 1].astype(int) - (213, 94, 0)).max()
    assert len(again.getcolors()) <= 256 and off <= 4
    many = to_image(np.random.default_rng(1).random((100, 100, 3)))
    assert len(Image.open(io.BytesIO(to_png(many))).getcolors()) == 256
