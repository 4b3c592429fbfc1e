"""Day, fog, rain, night and snow, made from a painted street, its labels and its depth.

Each weather is `weather(view, rng) -> (H, W, 3) uint8`; fog alone is a plain formula over a finished day image and depth.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from segda.data.pinhole import CLASSES, Canvas, value_noise

SKY, ROAD, TERRAIN = CLASSES["sky"], CLASSES["road"], CLASSES["terrain"]


class View:
    """A painted street with what the weather needs to know of each pixel."""

    def __init__(self, canvas: Canvas, grounds: int):
        self.canvas = canvas
        self.label, self.depth = canvas.label(), canvas.depth(grounds)
        self.ground = canvas.ids < grounds


@lru_cache(maxsize=4)
def grain(number: int) -> np.ndarray:
    """(512, 512) float32: fixed standard normal numbers; drawing fresh ones for each pixel would take most of the time."""
    return np.random.default_rng((number, 512)).standard_normal((512, 512), np.float32)


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


def day(view: View, rng: np.random.Generator) -> np.ndarray:
    """Exposure, a warm or cold tint, a little sensor noise."""
    tint = rng.uniform(0.88, 1.1) * np.array([1 + rng.uniform(-0.04, 0.05), 1, 1 + rng.uniform(-0.05, 0.05)])
    image = cv2.multiply(view.canvas.image, (*tint, 0), dtype=cv2.CV_32F)
    return sensor(image, rng, rng.uniform(2.0, 4.5))


def airlight(seed: int, index: int) -> np.ndarray:
    """(3,) float32 RGB of the fog of a scene: a light grey."""
    rng = np.random.default_rng((seed, index, 3))
    return (rng.uniform(176, 226) + np.array([-2, 0, 3]) * rng.uniform(0, 2)).astype(np.float32)


def fog(clear: np.ndarray, depth: np.ndarray, beta: float, air: np.ndarray) -> np.ndarray:
    """Koschmieder: I = J t + A (1 - t) with t = exp(-beta d), rounded.

    clear J (H, W, 3) uint8, depth d (H, W) metres, beta per metre, air A (3,) -> (H, W, 3) uint8. At d = 0 nothing changes;
    visibility (t = 0.05) is 2.996 / beta. As in Foggy Cityscapes (Sakaridis et al., IJCV 2018, eq. 2).
    """
    through = np.exp(-beta * depth)[..., None]
    air = np.asarray(air, np.float32)
    return np.rint((clear - air) * through + air).astype(np.uint8)


def night(view: View, rng: np.random.Generator) -> np.ndarray:
    """Little blue light from above, the scene lit by its lamps, by headlights and by windows, which glow; strong noise."""
    canvas = view.canvas
    height, width = canvas.size
    ambient = rng.uniform(0.09, 0.16) * np.array([0.75, 0.9, 1.25], np.float32)
    light = lit(view, rng, ambient)
    image = cv2.multiply(canvas.image, light, dtype=cv2.CV_32F)
    sky = view.label == SKY
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    dark = np.array([8, 10, 20], np.float32) * rng.uniform(0.6, 1.4)
    town = np.array([30, 24, 20], np.float32) * rng.uniform(0.4, 1.3)
    gradient = dark + town * (np.clip(rows * height / max(canvas.horizon, 1), 0, 1) ** 2)
    image[sky] = np.broadcast_to(gradient[:, None], image.shape)[sky]
    glow = canvas.light()
    image = np.maximum(image, glow * 0.95)
    small = cv2.resize(glow, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    bloom = cv2.GaussianBlur(small, (0, 0), width / 300) * 0.8 + cv2.GaussianBlur(small, (0, 0), width / 70) * 1.1
    image += cv2.resize(bloom, (width, height), interpolation=cv2.INTER_LINEAR)
    return sensor(image, rng, rng.uniform(5.0, 9.0))


def lit(view: View, rng: np.random.Generator, ambient: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: the light that falls on each pixel, by its place in the world: ambient, lamps, own headlights."""
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


def overcast(view: View, rng: np.random.Generator, grey: float, strength: float) -> np.ndarray:
    """(H, W, 3) float32: less colour, less light, and a plain grey sky."""
    canvas = view.canvas
    luma = cv2.cvtColor(canvas.image, cv2.COLOR_RGB2GRAY)
    pale = cv2.addWeighted(canvas.image, 1 - strength, cv2.merge([luma] * 3), strength, 0).astype(np.float32)
    sky = view.label == SKY
    clouds = grey + 12 * value_noise(rng, canvas.size, 6)[..., None] * np.array([1, 1, 1], np.float32)
    pale[sky] = clouds[sky] + np.array([-3, 0, 4], np.float32)
    return pale


def streaks(
    size: tuple[int, int], rng: np.random.Generator, count: int, long: float, slant: float, thick: int
) -> np.ndarray:
    """(H, W) uint8 with `count` short parallel lines of `long` image heights."""
    height, width = size
    layer = np.zeros(size, np.uint8)
    start = rng.uniform((-0.1, -0.1), (1.1, 1.0), (count, 2)) * (width, height)
    length = rng.uniform(0.5, 1.2, (count, 1)) * long * height
    stop = start + length * (slant, 1)
    lines = (np.stack([start, stop], 1) * 16).astype(np.int32)
    cv2.polylines(layer, list(lines), False, 255, thick, cv2.LINE_AA, 4)
    return layer


def rain(view: View, rng: np.random.Generator) -> np.ndarray:
    """Overcast; a wet road mirrors what stands behind it; haze grows with depth; streaks of two distances."""
    canvas = view.canvas
    height, width = canvas.size
    image = overcast(view, rng, rng.uniform(150, 178), 0.35) * rng.uniform(0.66, 0.8)
    image = mirrored(view, image, rng)
    through = np.exp(-rng.uniform(0.008, 0.014) * view.depth)[..., None]
    image = image * through + np.array([140, 145, 150], np.float32) * (1 - through)
    slant = rng.uniform(-0.25, 0.25)
    thick = max(1, width // 700)
    falling = streaks(canvas.size, rng, 420, 0.05, slant, thick).astype(np.float32) * 0.16
    falling += streaks(canvas.size, rng, 90, 0.13, slant, max(1, width // 400)).astype(np.float32) * 0.22
    image += cv2.GaussianBlur(falling, (3, 3), 0)[..., None]
    return sensor(image, rng, rng.uniform(3.0, 6.0))


def mirrored(view: View, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image with a wet ground: a pixel below the foot of something shows it upside down, rippled and blurred.

    The foot is the lowest row above the pixel that is not ground; for upright things row 2 foot - v is the exact mirror image.
    """
    canvas = view.canvas
    height, width = canvas.size
    rows = np.arange(height, dtype=np.float32)[:, None]
    foot = np.maximum.accumulate(np.where(view.ground, 0, rows).astype(np.float32), axis=0)
    ripple = cv2.resize(value_noise(rng, (height // 2, width // 2), 60), (width, height))
    down = np.clip((rows - canvas.horizon) / (height - canvas.horizon), 0, 1)
    source_v = np.clip(2 * foot - rows + ripple * 3 * down * height / 256, 0, height - 1).astype(np.float32)
    source_u = (np.arange(width, dtype=np.float32)[None] + ripple * 2.5 * down * height / 256).astype(np.float32)
    mirror = cv2.remap(image, source_u, source_v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mirror = cv2.blur(mirror, (max(1, width // 256), max(3, height // 28)))
    wet = np.array([0.0] * len(CLASSES), np.float32)
    wet[ROAD], wet[CLASSES["sidewalk"]] = 0.62, 0.42
    puddles = np.clip(0.75 + 0.5 * value_noise(rng, canvas.size, 14), 0.2, 1)
    share = (wet[view.label] * view.ground * puddles * (0.95 - 0.35 * down))[..., None]
    return image * (1 - 0.25 * (share > 0)) * (1 - share) + mirror * share * 1.05


def snow(view: View, rng: np.random.Generator) -> np.ndarray:
    """Grey sky, white ground with wheel tracks, white tops of things, haze, falling flakes of three sizes."""
    canvas = view.canvas
    height, width = canvas.size
    image = overcast(view, rng, rng.uniform(186, 206), 0.4) * 0.9
    share = cover(view, rng)[..., None]
    image = image * (1 - share) + np.array([230, 235, 243], np.float32) * share
    through = np.exp(-rng.uniform(0.004, 0.009) * view.depth)[..., None]
    image = image * through + np.array([196, 200, 206], np.float32) * (1 - through)
    flakes = np.zeros(canvas.size, np.uint8)
    for count, radius, soft in ((900, 0.0011, 1), (260, 0.0022, 1), (40, 0.005, 3)):
        layer = np.zeros(canvas.size, np.uint8)
        places = rng.uniform(0, 1, (count, 2)) * (width, height)
        size = max(8, int(16 * radius * width))
        for u, v in (places * 16).astype(np.int32).tolist():
            cv2.circle(layer, (u, v), size, 255, -1, cv2.LINE_AA, 4)
        flakes = np.maximum(flakes, cv2.blur(layer, (soft * width // 512 or 1,) * 2))
    falling = (flakes.astype(np.float32) * (0.8 / 255))[..., None]
    return sensor(image * (1 - falling) + 246 * falling, rng, rng.uniform(2.5, 5.0))


def cover(view: View, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 in [0, 1]: how white the snow makes each pixel."""
    canvas = view.canvas
    height, width = canvas.size
    lying = np.zeros(len(CLASSES), np.float32)
    lying[[TERRAIN, CLASSES["sidewalk"], ROAD]] = 0.96, 0.86, 0.8
    patches = value_noise(rng, canvas.size, 40)
    share = np.where(view.ground, lying[view.label], 0)
    across, _ = canvas.rays()
    start, bend, lane = canvas.road
    lateral = np.abs(across[None] * view.depth - start - bend * view.depth**2)
    tracks = np.exp(-np.square((np.abs(lateral - lane) - 0.75) / 0.38))
    share -= np.where(view.label == ROAD, 0.62 * tracks + 0.12 * np.maximum(patches, -0.5), 0)
    share -= np.where(view.label == CLASSES["sidewalk"], 0.18 * np.maximum(patches, 0), 0)
    things = (view.label != SKY) & ~view.ground
    leaves = view.label == CLASSES["vegetation"]
    share = np.where(leaves, np.clip(0.35 + 0.7 * value_noise(rng, canvas.size, 110), 0, 0.85), share)
    thick = 0.16 * canvas.focal / view.depth  # pixels that a layer of snow takes
    for k in range(1, max(2, height // 40) + 1, max(1, height // 256)):
        edge = np.zeros(canvas.size, bool)
        edge[k:] = (view.label[k:] != view.label[:-k]) & (view.depth[:-k] > view.depth[k:])
        share = np.where(edge & things & (thick >= k), 0.92, share)
    return np.clip(share, 0, 1)
