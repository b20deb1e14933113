"""A picture noised to chosen levels: the formula holds, the network is asked once at each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import diffusionlab as dl
from diffusionlab.errors import InputError
from diffusionlab.images import Preview
from diffusionlab.inside.noising import as_image, fitted
from diffusionlab.toyland import render, scene

TIMES = (0, 300.5, 999)


def picture(width=64, height=48, mode="RGB", seed=0):
    array = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(array).convert(mode)


@pytest.fixture(scope="module")
def noising(tiny_model):
    return dl.noise_image(tiny_model, picture(), TIMES, prompt="a red car", seed=4)


def test_latents_and_pixels_obey_the_formula(noising):
    for i, level in enumerate(noising.levels):
        latent = level.alpha * noising.x0 + level.sigma * noising.noise
        pixels = level.alpha * noising.pixels + level.sigma * noising.pixel_noise
        np.testing.assert_allclose(noising.latents[i], latent, atol=1e-5)
        np.testing.assert_allclose(noising.noisy_pixels[i], pixels, atol=1e-5)
    assert noising.latents.shape == (3, 4, 6, 8) and noising.noisy_pixels.shape == (3, 48, 64, 3)
    assert [level.timestep for level in noising.levels] == list(TIMES)
    assert noising.pixels.min() >= -1 and noising.pixels.max() <= 1


def test_everything_is_what_the_stages_make(tiny_model, noising):
    x0 = dl.encode(tiny_model, noising.image)
    noise = dl.draw_noise(tiny_model, 4, 48, 64)
    text, empty = (dl.embed(tiny_model, dl.tokenize(tiny_model, p)) for p in ("a red car", ""))
    noisy = dl.add_noise(x0, noise, noising.levels[1])
    said = dl.predict(tiny_model, noisy, noising.levels[1], text, empty, 1.0)
    assert np.array_equal(noising.predictions[1].x0, said.x0.numpy())
    assert noising.x0_images[1].tobytes() == dl.decode(tiny_model, said.x0).tobytes()
    assert noising.noisy_images[1].tobytes() == dl.decode(tiny_model, noisy).tobytes()
    assert isinstance(noising.predictions[1].latent, np.ndarray)


def test_guidance_and_seed_are_heard(tiny_model, noising):
    guided = dl.noise_image(tiny_model, picture(), TIMES, prompt="a red car", seed=4,
                            guidance_scale=3.0, decoded=False)  # fmt: skip
    assert guided.predictions[0].uncond is not None and guided.x0_images == ()
    other = dl.noise_image(tiny_model, picture(), TIMES, seed=5, decoded=False)
    assert not np.allclose(other.noise, noising.noise)
    assert not np.allclose(other.pixel_noise, noising.pixel_noise)
    assert "timesteps 0, 300.5, 999" in repr(noising)


# ---- pictures from anywhere --------------------------------------------------------------------
def test_a_path_an_array_and_a_drawn_scene_are_pictures(tiny_model, tmp_path):
    picture().save(tmp_path / "a.png")
    array = np.asarray(picture())
    assert np.array_equal(np.asarray(as_image(tmp_path / "a.png")), array)
    assert np.array_equal(np.asarray(as_image(str(tmp_path / "a.png"))), array)
    assert np.array_equal(np.asarray(as_image(array)), array)
    drawn = render(scene(3), 64)
    assert np.array_equal(np.asarray(as_image(drawn)), np.asarray(drawn.image))
    assert dl.noise_image(tiny_model, drawn, [500], decoded=False).x0.shape == (4, 8, 8)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "YCbCr"])
def test_odd_modes_are_made_rgb(tiny_model, mode):
    source = picture() if mode != "LA" else picture(mode="L")
    grey = np.asarray(picture().convert("L"))
    image = source.convert(mode) if mode != "I;16" else Image.fromarray(grey.astype("u2") * 257)
    found = dl.noise_image(tiny_model, image, [0], decoded=False).image
    assert found.mode == "RGB"
    if mode in ("L", "I;16"):
        assert np.array_equal(np.asarray(found)[..., 0], grey)


def test_transparent_parts_are_white_and_not_what_they_hide(tiny_model):
    hidden = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert np.asarray(as_image(hidden)).min() == 255


@pytest.mark.parametrize(
    ("size", "fits"),
    [((64, 48), (64, 48)), ((63, 41), (64, 40)), ((200, 100), (64, 32)), ((7000, 3000), (64, 24)),
     ((65, 64), (64, 64)), ((7, 7), (8, 8)), ((4, 4), (8, 8)),
     ((20, 12), (24, 16)), ((8, 8), (8, 8))],
)  # fmt: skip
def test_sizes_are_fitted_with_a_notice(tiny_model, capsys, size, fits):
    found = fitted(tiny_model, Image.new("RGB", size, (10, 200, 30)))
    assert found.size == fits and (size == fits) == (capsys.readouterr().err == "")
    assert np.asarray(found).reshape(-1, 3).std(axis=0).max() == 0


def test_fitting_keeps_the_middle_and_the_proportions(tiny_model):
    wide = np.zeros((64, 132, 3), np.uint8)
    wide[:, 66:] = 255  # white from the middle on
    half = np.asarray(fitted(tiny_model, Image.fromarray(wide))).mean(axis=(0, 2))
    assert half[:28].max() < 10 and half[-28:].min() > 245


@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (3, 3)])
def test_pictures_without_room_for_a_cell_are_refused(tiny_model, size):
    with pytest.raises(InputError, match="half of 8 is the least"):
        dl.noise_image(tiny_model, Image.new("RGB", size), [0])


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (None, "image is None"),
        (3, "image is 3"),
        ("https://example.org/a.png", "on this machine"),
        (np.zeros((3, 3)), None),
        (np.zeros((8, 8, 7), np.uint8), "array uint8"),
        (np.full((64, 64, 3), np.nan), "NaN or infinite"),
        (np.full((64, 64, 3), 200.0), "floats from 0 to 1"),
        (np.full((64, 64, 3), 200, np.uint16), "array uint16"),
        (Image.new("I", (64, 64)), "whose white is not known"),
        (Image.new("F", (64, 64)), "whose white is not known"),
    ],
)
def test_what_is_no_picture_is_refused(tiny_model, image, told):
    with pytest.raises((InputError, dl.NumericsError), match=told or "pixels, and"):
        dl.noise_image(tiny_model, image, [0])


@pytest.mark.parametrize("timesteps", [[], 3, "12", [1000], [-2], [None], [True], [float("nan")]])
def test_timesteps_outside_the_table_are_refused(tiny_model, timesteps):
    with pytest.raises(InputError, match="timestep"):
        dl.noise_image(tiny_model, picture(), timesteps)


# ---- the preview map ----------------------------------------------------------------------------
def test_fit_preview_finds_a_linear_map(tiny_model):
    pictures = [picture(64, 64, seed=i) for i in range(4)]
    found = dl.fit_preview(tiny_model, pictures)
    latents = np.stack([dl.encode(tiny_model, p).values.numpy() for p in pictures])
    wanted = Preview.fit(latents, np.stack([np.asarray(p) for p in pictures]))
    np.testing.assert_allclose(found.weight, wanted.weight)
    assert found.rgb(latents[0]).shape == (8, 8, 3)
    with pytest.raises(InputError, match="of 2 sizes"):
        dl.fit_preview(tiny_model, [picture(64, 64), picture(64, 48)])
    with pytest.raises(InputError, match="0 images"):
        dl.fit_preview(tiny_model, [])


def test_fit_preview_draws_scenes_where_it_is_given_none(tiny_model):
    size = tiny_model.size
    drawn = [render(scene(seed), size) for seed in range(12)]
    found = dl.fit_preview(tiny_model)
    np.testing.assert_array_equal(found.weight, dl.fit_preview(tiny_model, drawn).weight)
    bare = replace(tiny_model, preview=None)
    assert "none; dl.fit_preview(model) makes one" in repr(bare)
    model = bare.with_parts(preview=found)
    assert model.preview is found and model.unet is bare.unet and "makes one" not in repr(model)
    assert model.with_parts().preview is found
    wide = Preview(np.zeros((3, 16)), np.zeros(3), np.ones(3))
    for wrong in (wide, drawn[0], "toyland"):
        with pytest.raises(
            InputError, match=r"a map of \(3, 4\) is what this model's latents need"
        ):
            bare.with_parts(preview=wrong)


def test_on_toyland_the_fit_is_as_good_as_the_shipped_one():
    model = dl.load(device="cpu")
    found = dl.fit_preview(model, [render(scene(i, style="plain"), 128) for i in range(12)])
    assert min(found.r2) > min(model.preview.r2) - 0.1
