"""Day, fog, rain, dusk, night and snow, made from a painted street, its labels and its depth.

Each weather is `weather(view, rng) -> (H, W, 3) uint8`; fog alone is a plain formula over a finished day image and its
depth.
"""

from __future__ import annotations

import cv2
import numpy as np

from segda.data.streets.noise import grain, value_noise
from segda.data.streets.pinhole import CLASSES, SUBPIXEL, Painted
from segda.data.weather.fog import transmittance, veiled

SKY, ROAD, PAVEMENT, TERRAIN = (CLASSES[name] for name in ("sky", "road", "sidewalk", "terrain"))

NO_LIGHT = np.zeros(3, np.float32)

LAMPS_AT_DUSK = np.float32(0.45)
"""Ours: the share of a night's lamps, headlights and windows at dusk; some are on, and they dazzle less."""


def sensor(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Float image -> uint8 with noise of `strength` grey levels, each channel from its own place of the grain."""
    height, width = image.shape[:2]
    noise = []
    for channel in range(3):
        top, left = rng.integers(0, 512, 2)
        rows, columns = (top + np.arange(height)) % 512, (left + np.arange(width)) % 512
        noise.append(np.take(grain(channel)[rows], columns, 1))
    image = cv2.scaleAdd(cv2.merge(noise), strength, np.ascontiguousarray(image, np.float32))
    return cv2.convertScaleAbs(np.maximum(image, 0, out=image))


def day(view: Painted, rng: np.random.Generator) -> np.ndarray:
    """Exposure, a warm or cold tint, a little sensor noise."""
    tint = rng.uniform(0.88, 1.1) * np.array([1 + rng.uniform(-0.04, 0.05), 1, 1 + rng.uniform(-0.05, 0.05)])
    # OpenCV takes a tuple for one number a channel; its stubs know arrays only.
    image = cv2.multiply(view.canvas.image, (*tint, 0), dtype=cv2.CV_32F)  # type: ignore[call-overload]
    return sensor(image, rng, rng.uniform(2.0, 4.5))


def airlight(seed: int, index: int) -> np.ndarray:
    """(3,) float32 RGB of the fog of a scene: a light grey."""
    rng = np.random.default_rng((seed, index, 3))
    return (rng.uniform(176, 226) + np.array([-2, 0, 3]) * rng.uniform(0, 2)).astype(np.float32)


def fog(clear: np.ndarray, depth: np.ndarray, beta: float, air: np.ndarray) -> np.ndarray:
    """Koschmieder: I = J t + A (1 - t) with t = exp(-beta d), rounded.

    clear J (H, W, 3) uint8, depth d (H, W) metres, beta per metre, air A (3,) -> (H, W, 3) uint8. At d = 0 nothing
    changes; visibility (t = 0.05) is 2.996 / beta. As in Foggy Cityscapes (Sakaridis et al., IJCV 2018, eq. 2).
    """
    through = transmittance(depth, beta)[..., None]
    return np.rint(veiled(clear, through, np.asarray(air, np.float32))).astype(np.uint8)


def night(view: Painted, rng: np.random.Generator) -> np.ndarray:
    """Little blue light from above, the scene lit by its lamps, by headlights and by glowing windows; strong noise."""
    canvas = view.canvas
    ambient = rng.uniform(0.09, 0.16) * np.array([0.75, 0.9, 1.25], np.float32)
    light = lit(view, rng, ambient)
    image: np.ndarray = cv2.multiply(canvas.image, light, dtype=cv2.CV_32F)
    dark = np.array([8, 10, 20], np.float32) * rng.uniform(0.6, 1.4)
    town = np.array([30, 24, 20], np.float32) * rng.uniform(0.4, 1.3)
    image = glowing(under(view, image, dark, town), canvas.light())
    return sensor(image, rng, rng.uniform(5.0, 9.0))


def dusk(view: Painted, rng: np.random.Generator) -> np.ndarray:
    """Between day and night: about half the light, a red sky above the houses, faint lamps and windows, some noise."""
    canvas = view.canvas
    ambient = rng.uniform(0.46, 0.6) * np.array([0.95, 0.94, 1.08], np.float32)
    image: np.ndarray = cv2.multiply(canvas.image, ambient + LAMPS_AT_DUSK * lit(view, rng, NO_LIGHT), dtype=cv2.CV_32F)
    above = np.array([78, 88, 122], np.float32) * rng.uniform(0.8, 1.2)
    afterglow = np.array([130, 66, 20], np.float32) * rng.uniform(0.7, 1.1)
    image = glowing(under(view, image, above, afterglow), LAMPS_AT_DUSK * canvas.light())
    return sensor(image, rng, rng.uniform(3.5, 6.5))


def under(view: Painted, image: np.ndarray, top: np.ndarray, horizon: np.ndarray) -> np.ndarray:
    """The image with a sky of colour `top`, and of `top + horizon` where it meets the ground. Changes the image."""
    canvas = view.canvas
    height = canvas.size[0]
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    gradient = top + horizon * (np.clip(rows * height / max(canvas.horizon, 1), 0, 1) ** 2)
    sky = view.label == SKY
    image[sky] = np.broadcast_to(gradient[:, None], image.shape)[sky]
    return image


def glowing(image: np.ndarray, glow: np.ndarray) -> np.ndarray:
    """The image with what gives off light, (H, W, 3) in 0..255, and the bloom around it."""
    height, width = image.shape[:2]
    image = np.maximum(image, glow * 0.95)
    small = cv2.resize(glow, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    bloom = cv2.GaussianBlur(small, (0, 0), width / 300) * 0.8 + cv2.GaussianBlur(small, (0, 0), width / 70) * 1.1
    image += cv2.resize(bloom, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def lit(view: Painted, rng: np.random.Generator, ambient: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: light falling on each pixel, by its place in the world: ambient, lamps, own headlights."""
    canvas = view.canvas
    height, width = canvas.size
    step = 2
    depth = view.depth[::step, ::step]
    across, down = canvas.rays()
    x = across[None, ::step] * depth
    y = canvas.height - down[::step, None] * depth
    z = depth
    lamps = np.zeros_like(depth)
    for lx, ly, lz in [(canvas.lamps[0][0] if canvas.lamps else 3.0, 6.5, -3.0), *canvas.lamps]:
        if lz < 70:
            far = (x - lx) ** 2 + (y - ly) ** 2 * 0.6 + (z - lz) ** 2
            lamps += 14.0 / (12.0 + far)
    beams = np.zeros_like(depth)
    for bx, by, bz in canvas.beams:
        if bz < 40:
            toward = bz - z
            far = (x - bx) ** 2 + toward**2 + 4 * np.maximum(y - by, 0) ** 2
            beams += np.where(toward > 0, 5.0 / (6.0 + far), 0)
    spread = np.exp(-((across[None, ::step] / 0.34) ** 2)) * np.exp(
        -np.square(np.maximum(-down[::step, None], 0) / 0.06)
    )
    own = spread * 0.75 * np.minimum(1, 14.0 / np.maximum(z, 1)) ** 1.3
    warm, cold = np.array([1.0, 0.8, 0.5], np.float32), np.array([1.0, 0.97, 0.88], np.float32)
    light = (
        ambient
        + lamps[..., None] * warm * rng.uniform(0.8, 1.3)
        + (own * rng.uniform(0.7, 1.1) + beams)[..., None] * cold
    )
    return cv2.resize(light.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def mixed(image: np.ndarray, colour, share: np.ndarray) -> np.ndarray:
    """image (1 - share) + colour share, for a share (H, W).

    Channel by channel: numpy is several times slower on a last axis of three.
    """
    channels = cv2.split(image)
    for channel, level in zip(channels, colour, strict=True):
        channel += (np.float32(level) - channel) * share
    return cv2.merge(channels)


def haze(image: np.ndarray, depth: np.ndarray, beta: float, colour) -> np.ndarray:
    """Fog on a float image that is not finished yet."""
    return mixed(image, colour, 1 - np.exp(np.float32(-beta) * depth))


def overcast(view: Painted, rng: np.random.Generator, grey: float, fade: float, light: float) -> np.ndarray:
    """(H, W, 3) float32: colours faded towards grey, less light, and a plain sky of level `grey`."""
    picture = view.canvas.image
    luma = cv2.merge([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)] * 3)
    pale = cv2.addWeighted(picture, light * (1 - fade), luma, light * fade, 0, dtype=cv2.CV_32F)
    clouds = (grey + 12 * value_noise(rng, view.canvas.size, 6)) * np.float32(light)
    sky = (view.label == SKY).astype(np.uint8)
    return cv2.copyTo(cv2.merge([clouds - 3, clouds, clouds + 4]), sky, pale)


def streaks(
    size: tuple[int, int], rng: np.random.Generator, count: int, long: float, slant: float, thick: int
) -> np.ndarray:
    """(H, W) uint8 with `count` short parallel lines, about `long` image heights each."""
    height, width = size
    layer = np.zeros(size, np.uint8)
    start = rng.uniform((-0.1, -0.1), (1.1, 1.0), (count, 2)) * (width, height)
    stop = start + rng.uniform(0.5, 1.2, (count, 1)) * long * height * (slant, 1)
    lines = (np.stack([start, stop], 1) * (1 << SUBPIXEL)).astype(np.int32)
    cv2.polylines(layer, list(lines), False, 255, thick, cv2.LINE_AA, SUBPIXEL)
    return layer


def rain(view: Painted, rng: np.random.Generator) -> np.ndarray:
    """Overcast; a wet road mirrors what stands behind it; haze grows with depth; streaks of two distances."""
    size = view.canvas.size
    image = overcast(view, rng, rng.uniform(150, 178), 0.35, rng.uniform(0.7, 0.84))
    image = mirrored(view, image, rng)
    image = haze(image, view.depth, rng.uniform(0.008, 0.014), (140, 145, 150))
    slant, thin, thick = rng.uniform(-0.25, 0.25), max(1, size[1] // 700), max(1, size[1] // 400)
    far, near = streaks(size, rng, 420, 0.05, slant, thin), streaks(size, rng, 90, 0.13, slant, thick)
    falling = cv2.GaussianBlur(cv2.addWeighted(far, 0.16, near, 0.22, 0, dtype=cv2.CV_32F), (3, 3), 0)
    return sensor(cv2.add(image, cv2.merge([falling] * 3)), rng, rng.uniform(3.0, 6.0))


def mirrored(view: Painted, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image with a wet ground: a pixel below the foot of something shows it upside down, rippled and blurred.

    The foot is the lowest row above the pixel that is not ground; of upright things, row 2 foot - v is the exact mirror
    image.
    """
    canvas = view.canvas
    height, width = canvas.size
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    foot = np.maximum.accumulate(np.where(view.ground, np.float32(0), rows), axis=0)
    down = np.clip((rows - canvas.horizon) / (height - canvas.horizon), 0, 1).astype(np.float32)
    ripple = value_noise(rng, canvas.size, 60) * (down * np.float32(height / 256))
    above = np.maximum(2 * foot - rows + 3 * ripple, 0)
    mirror = cv2.remap(image, columns + 2.5 * ripple, above, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mirror = cv2.blur(mirror, (max(1, width // 256), max(3, height // 28)))
    wet = np.zeros(len(CLASSES), np.float32)
    wet[ROAD], wet[PAVEMENT] = 0.62, 0.42
    puddles = np.clip(0.75 + 0.5 * value_noise(rng, canvas.size, 14), 0.2, 1)
    share = wet[view.label] * view.ground * puddles * (0.95 - 0.35 * down)
    dry = (1 - share) * np.where(share > 0, np.float32(0.75), np.float32(1))  # wet ground is darker
    return cv2.multiply(image, cv2.merge([dry] * 3)) + cv2.multiply(mirror, cv2.merge([1.05 * share] * 3))


def snow(view: Painted, rng: np.random.Generator) -> np.ndarray:
    """Grey sky, white ground with wheel tracks, white tops of things, haze, falling flakes of three sizes."""
    height, width = size = view.canvas.size
    image = overcast(view, rng, rng.uniform(186, 206), 0.4, 0.9)
    image = mixed(image, (230, 235, 243), cover(view, rng))
    image = haze(image, view.depth, rng.uniform(0.004, 0.009), (196, 200, 206))
    flakes = np.zeros(size, np.uint8)
    for count, radius, soft in ((900, 0.0011, 1), (260, 0.0022, 1), (40, 0.005, 3)):
        layer = np.zeros(size, np.uint8)
        radius = max(8, int((1 << SUBPIXEL) * radius * width))
        for place in (rng.uniform(0, 1 << SUBPIXEL, (count, 2)) * (width, height)).astype(int).tolist():
            cv2.circle(layer, place, radius, 255, -1, cv2.LINE_AA, SUBPIXEL)
        flakes = np.maximum(flakes, cv2.blur(layer, (max(1, soft * width // 512),) * 2))
    image = mixed(image, (246, 246, 246), flakes.astype(np.float32) * (0.8 / 255))
    return sensor(image, rng, rng.uniform(2.5, 5.0))


def cover(view: Painted, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 in [0, 1]: how white the snow makes each pixel."""
    canvas, label, depth = view.canvas, view.label, view.depth
    lying = np.zeros(len(CLASSES), np.float32)
    lying[[TERRAIN, PAVEMENT, ROAD]] = 0.96, 0.86, 0.8
    patches = value_noise(rng, canvas.size, 40)
    share = np.where(view.ground, lying[label], np.float32(0))
    start, bend, lane = np.asarray(canvas.road, np.float32)
    lateral = np.abs(canvas.rays()[0] * depth - start - bend * depth * depth)
    tracks = np.exp(-np.square((np.abs(lateral - lane) - 0.75) / 0.38))
    share -= (label == ROAD) * (0.62 * tracks + 0.12 * np.maximum(patches, -0.5))
    share -= (label == PAVEMENT) * (0.18 * np.maximum(patches, 0))
    leaves = np.clip(0.35 + 0.7 * value_noise(rng, canvas.size, 110), 0, 0.85)
    share = np.where(label == CLASSES["vegetation"], leaves, share)
    upright = (label != SKY) & ~view.ground
    thick = 0.16 * canvas.focal / depth  # pixels that a layer of snow takes
    height = canvas.size[0]
    for k in range(1, max(2, height // 40) + 1, max(1, height // 256)):
        edge = (label[k:] != label[:-k]) & (depth[:-k] > depth[k:]) & upright[k:] & (thick[k:] >= k)
        share[k:][edge] = 0.92
    return np.clip(share, 0, 1)
