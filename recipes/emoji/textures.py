"""Painted surfaces: sky, grass, brick wall and so on, from noise and simple geometry.

Every painter takes (rng, height, width) and returns an RGB image, uint8. Details grow with the image, so that a large
sample looks like a small training scene.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from recipes.emoji.painting import Image, Rng, blend, colour, finish, noise, ramp

Painter = Callable[[Rng, int, int], Image]


def sky(rng: Rng, h: int, w: int) -> Image:
    """Blue going pale towards the horizon, with or without clouds."""
    top, low = (
        colour(rng, (198, 220), (0.4, 0.75), (0.8, 1.0)),
        colour(rng, (190, 212), (0.1, 0.4), (0.92, 1.0)),
    )
    image = blend(top, low, ramp(h, w))
    if rng.random() < 0.65:
        clouds = noise(rng, h, w, rng.uniform(1.5, 4), stretch=rng.uniform(1.5, 4), octaves=4)
        cover = rng.uniform(0.45, 0.7)
        image = blend(image, np.full(3, 252, np.float32), np.clip((clouds - np.float32(cover)) * 4, 0, 0.9))
    return finish(image)


def grass(rng: Rng, h: int, w: int) -> Image:
    """Green with blades: fine noise stretched upwards."""
    dark, light = (
        colour(rng, (85, 125), (0.5, 0.85), (0.3, 0.5)),
        colour(rng, (75, 115), (0.45, 0.85), (0.6, 0.85)),
    )
    amount = noise(rng, h, w, rng.uniform(18, 40), stretch=rng.uniform(0.08, 0.4), octaves=2)
    patches = noise(rng, h, w, rng.uniform(2, 5))
    contrast = np.float32(rng.uniform(0.4, 1.0))
    return finish(blend(dark, light, 0.5 + contrast * (0.6 * amount + 0.4 * patches - 0.5)))


def water(rng: Rng, h: int, w: int) -> Image:
    """Blue-green with flat waves and glints."""
    deep, pale = (
        colour(rng, (185, 222), (0.6, 0.95), (0.35, 0.65)),
        colour(rng, (175, 205), (0.3, 0.7), (0.7, 0.95)),
    )
    waves = noise(rng, h, w, rng.uniform(8, 20), stretch=rng.uniform(5, 14), octaves=3)
    image = blend(deep, pale, np.clip(waves * rng.uniform(0.6, 1.1), 0, 1))
    glints = np.clip((noise(rng, h, w, rng.uniform(16, 30), stretch=8, octaves=2) - 0.72) * 6, 0, 0.8)
    return finish(blend(image, np.full(3, 250, np.float32), glints * rng.uniform(0, 1)))


def sand(rng: Rng, h: int, w: int) -> Image:
    """Yellow-brown grain with soft ripples."""
    dark, light = (
        colour(rng, (32, 46), (0.3, 0.55), (0.68, 0.84)),
        colour(rng, (36, 50), (0.2, 0.45), (0.86, 0.99)),
    )
    ripples = noise(rng, h, w, rng.uniform(4, 10), stretch=rng.uniform(1, 6))
    grain = rng.random((h, w), dtype=np.float32)
    return finish(blend(dark, light, np.clip(0.7 * ripples + 0.3 * grain, 0, 1)))


def snow(rng: Rng, h: int, w: int) -> Image:
    """White with bluish hollows."""
    shade, white = (
        colour(rng, (200, 225), (0.06, 0.22), (0.8, 0.93)),
        colour(rng, (200, 225), (0, 0.05), (0.95, 1.0)),
    )
    drifts = noise(rng, h, w, rng.uniform(2, 6), stretch=rng.uniform(1, 4))
    image = blend(shade, white, np.clip(drifts * 1.3, 0, 1))
    sparkle = rng.random((h, w), dtype=np.float32) > 0.99
    image[sparkle] = 255
    return finish(image)


def brick_wall(rng: Rng, h: int, w: int) -> Image:
    """Rows of bricks with mortar, every other row shifted by half."""
    mortar = colour(rng, (20, 50), (0.0, 0.2), (0.55, 0.9))
    hue = rng.uniform(2, 24)
    image = np.empty((h, w, 3), np.float32)
    image[:] = mortar
    tall = max(4, int(min(h, w) * rng.uniform(0.05, 0.13)))
    wide, joint = int(tall * rng.uniform(1.8, 2.8)), max(1, round(tall * rng.uniform(0.08, 0.2)))
    for row, y in enumerate(range(-tall // 2, h, tall)):
        for x in range(-(row % 2) * wide // 2 - wide // 3, w, wide):
            brick = colour(rng, (hue - 4, hue + 6), (0.45, 0.75), (0.42, 0.75))
            image[max(y, 0) : max(y + tall - joint, 0), max(x, 0) : max(x + wide - joint, 0)] = brick
    return finish(image * (0.86 + 0.22 * noise(rng, h, w, 24, octaves=2))[..., None])


def wood(rng: Rng, h: int, w: int) -> Image:
    """Brown planks with stretched grain, upright or lying."""
    upright = rng.random() < 0.4
    if upright:
        h, w = w, h
    dark, light = (
        colour(rng, (18, 34), (0.5, 0.75), (0.3, 0.5)),
        colour(rng, (24, 38), (0.4, 0.65), (0.6, 0.85)),
    )
    grain = noise(rng, h, w, rng.uniform(14, 28), stretch=rng.uniform(20, 50), octaves=3)
    planks = blend(dark, light, np.clip(0.25 + 0.75 * grain, 0, 1))
    plank = max(6, int(min(h, w) * rng.uniform(0.12, 0.35)))
    for y in range(int(rng.integers(plank)) - plank, h, plank):
        planks[max(y, 0) : max(y + plank, 0)] *= rng.uniform(0.85, 1.12)
        planks[max(y, 0) : max(y + max(1, plank // 16), 0)] *= 0.5
    image = finish(planks)
    return np.ascontiguousarray(image.swapaxes(0, 1)) if upright else image


def road(rng: Rng, h: int, w: int) -> Image:
    """Grey asphalt with grain, often with lane markings."""
    tone = colour(rng, (200, 260), (0.0, 0.1), (0.28, 0.5))
    grain = 0.85 + 0.2 * rng.random((h, w), dtype=np.float32) + 0.15 * (noise(rng, h, w, 4) - 0.5)
    image = tone * grain[..., None]
    if rng.random() < 0.75:
        paint = (245, 245, 240) if rng.random() < 0.7 else (245, 200, 60)
        y, slope = rng.uniform(0.2, 0.8) * h, rng.uniform(-0.15, 0.15)
        dash, thick = (
            max(6, int(min(h, w) * rng.uniform(0.08, 0.2))),
            max(1, int(min(h, w) * rng.uniform(0.012, 0.04))),
        )
        for x in range(-int(rng.integers(dash)), w, 2 * dash):
            ends = (x, int(y + slope * x)), (x + dash, int(y + slope * (x + dash)))
            cv2.line(image, *ends, paint, thick, cv2.LINE_AA)
    return finish(image)


def night_sky(rng: Rng, h: int, w: int) -> Image:
    """Dark blue with stars."""
    top, low = (
        colour(rng, (222, 262), (0.5, 0.9), (0.05, 0.2)),
        colour(rng, (215, 262), (0.4, 0.85), (0.15, 0.42)),
    )
    image = blend(top, low, ramp(h, w))
    for _ in range(int(rng.uniform(10, 70))):
        centre = int(rng.integers(w)), int(rng.integers(h))
        radius = max(0, int(min(h, w) * rng.uniform(0.0, 0.008)))
        cv2.circle(
            image, centre, radius, colour(rng, (40, 60), (0.0, 0.25), (0.6, 1.0)).tolist(), -1, cv2.LINE_AA
        )
    return finish(image)


def sunset(rng: Rng, h: int, w: int) -> Image:
    """Purple or blue above, orange or pink below, with streaks of cloud."""
    top, low = colour(rng, (230, 345), (0.3, 0.7), (0.4, 0.8)), colour(rng, (8, 45), (0.55, 0.95), (0.9, 1.0))
    image = blend(top, low, np.clip(ramp(h, w) * rng.uniform(1.0, 1.5), 0, 1))
    streaks = np.clip((noise(rng, h, w, 4, stretch=8) - 0.6) * 3, 0, 0.6)
    return finish(blend(image, colour(rng, (330, 400), (0.2, 0.5), (0.8, 1.0)), streaks))


def ground(rng: Rng, h: int, w: int) -> Image:
    """Brown soil with clods."""
    dark, light = (
        colour(rng, (18, 32), (0.4, 0.7), (0.2, 0.38)),
        colour(rng, (22, 36), (0.35, 0.6), (0.4, 0.62)),
    )
    clods = noise(rng, h, w, rng.uniform(8, 24), octaves=4)
    return finish(blend(dark, light, clods))


def tiles(rng: Rng, h: int, w: int) -> Image:
    """A grid of glazed squares, one colour or a chequer."""
    first, joint = (
        colour(rng, (0, 360), (0.0, 0.4), (0.6, 1.0)),
        colour(rng, (0, 360), (0.0, 0.1), (0.5, 0.95)),
    )
    second = colour(rng, (0, 360), (0.0, 0.5), (0.3, 1.0)) if rng.random() < 0.5 else first
    side = max(5, int(min(h, w) * rng.uniform(0.08, 0.2)))
    ys, xs = np.mgrid[0:h, 0:w] + rng.integers(side)
    image = np.where(((ys // side + xs // side) % 2 == 0)[..., None], first, second).astype(np.float32)
    gap = max(1, side // 14)
    image[(ys % side < gap) | (xs % side < gap)] = joint
    return finish(image)


def background(rng: Rng, h: int, w: int) -> Image:
    """A plain or softly shaded colour, sometimes with dots or stripes."""
    base = (
        colour(rng, (0, 360), (0.0, 0.7), (0.35, 1.0)) if rng.random() < 0.75 else np.full(3, 252, np.float32)
    )
    other = np.clip(base + rng.uniform(-45, 45, 3), 0, 255).astype(np.float32)
    kind = rng.random()
    if kind < 0.35:
        image = np.broadcast_to(base, (h, w, 3)).astype(np.float32)
    elif kind < 0.7:
        turn = rng.uniform(-1, 1, 2)
        ys, xs = np.mgrid[0:h, 0:w].astype(np.float32)
        t = ys / h * turn[0] + xs / w * turn[1]
        image = blend(
            base, other, np.clip((t - t.min()) / max(float(np.ptp(t)), 1e-6), 0, 1).astype(np.float32)
        )
    elif kind < 0.85:
        period = max(6, int(min(h, w) * rng.uniform(0.06, 0.25)))
        ys, xs = np.mgrid[0:h, 0:w]
        lean = xs * rng.integers(0, 2) + ys * rng.integers(0, 2)
        image = np.where((lean % period < period // 2)[..., None], base, 0.6 * base + 0.4 * other).astype(
            np.float32
        )
    else:
        image = blend(base, other, noise(rng, h, w, rng.uniform(1, 4)))
    return finish(image)


def stone_wall(rng: Rng, h: int, w: int) -> Image:
    """Rounded stones of one rock with dark joints, a wall or a pavement."""
    side = max(5.0, min(h, w) * rng.uniform(0.06, 0.16))
    seeds = np.ones((h, w), np.uint8)
    count = max(4, int(h * w / side**2))
    seeds[rng.integers(0, h, count), rng.integers(0, w, count)] = 0
    far, cell = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )  # the nearest seed of every pixel: Voronoi cells
    tones = colour(rng, (10, 60), (0.0, 0.25), (0.4, 0.75)) * rng.uniform(0.75, 1.2, (cell.max() + 1, 1))
    edge = cv2.morphologyEx(cell.astype(np.float32), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    joint = cv2.GaussianBlur(edge.astype(np.float32), (0, 0), max(0.6, side / 14))
    light = 1.1 - 0.35 * np.clip(far / side, 0, 1) + 0.3 * (noise(rng, h, w, 30, octaves=2) - 0.5)
    light = light * (1 - np.clip(joint * 1.5, 0, 0.75))
    return finish(tones[cell].astype(np.float32) * light[..., None].astype(np.float32))


def bushes(rng: Rng, h: int, w: int) -> Image:
    """Leaves of many greens in front of dark gaps."""
    dark, light = (
        colour(rng, (90, 140), (0.5, 0.9), (0.08, 0.3)),
        colour(rng, (70, 130), (0.4, 0.85), (0.5, 0.8)),
    )
    depth = noise(rng, h, w, rng.uniform(3, 8), octaves=2)
    leaves = noise(rng, h, w, rng.uniform(20, 40), stretch=rng.uniform(0.5, 2), octaves=2)
    crisp = np.clip((leaves - 0.45) * rng.uniform(2, 5) + 0.5, 0, 1)
    image = blend(dark, light, np.clip(0.65 * crisp + 0.5 * depth - 0.1, 0, 1).astype(np.float32))
    if rng.random() < 0.25:  # in blossom
        spots = noise(rng, h, w, rng.uniform(18, 30), octaves=1) > rng.uniform(0.8, 0.9)
        image[spots] = colour(rng, (280, 420), (0.1, 0.7), (0.85, 1.0))
    return finish(image)


def fabric(rng: Rng, h: int, w: int) -> Image:
    """Woven cloth, plain or plaid, in soft folds."""
    base = colour(rng, (0, 360), (0.1, 0.8), (0.3, 0.9))
    image = np.empty((h, w, 3), np.float32)
    image[:] = base
    ys, xs = np.mgrid[0:h, 0:w].astype(np.float32)
    if rng.random() < 0.5:
        for line in (ys, xs):
            period, tone = min(h, w) * rng.uniform(0.06, 0.2), colour(rng, (0, 360), (0.0, 0.8), (0.2, 1.0))
            band = (line % period < period * rng.uniform(0.15, 0.5)).astype(np.float32)
            image = blend(image, tone, band * np.float32(rng.uniform(0.3, 0.6)))
    thread = rng.uniform(1.6, 4)
    weave = 1 + 0.12 * np.sin(2 * np.pi * xs / thread) * np.sin(2 * np.pi * ys / thread)
    folds = 0.85 + 0.3 * noise(rng, h, w, rng.uniform(1.5, 5), stretch=rng.uniform(0.3, 3), octaves=2)
    return finish(image * (weave * folds)[..., None])


def concrete(rng: Rng, h: int, w: int) -> Image:
    """Pale grey or ochre plaster with stains, pores and sometimes joints."""
    tone = colour(rng, (20, 60), (0.0, 0.22), (0.55, 0.92))
    stains = noise(rng, h, w, rng.uniform(1.5, 6), octaves=4)
    image = tone * (0.8 + 0.3 * stains + 0.06 * (rng.random((h, w), dtype=np.float32) - 0.5))[..., None]
    image[rng.random((h, w), dtype=np.float32) > 0.996] *= 0.6
    if rng.random() < 0.4:
        side = max(8, int(min(h, w) * rng.uniform(0.25, 0.6)))
        image[::side] *= 0.7
        image[:, ::side] *= 0.7
    return finish(image)


PAINTERS: dict[str, Painter] = {
    "sky": sky,
    "grass": grass,
    "water": water,
    "sand": sand,
    "snow": snow,
    "brick wall": brick_wall,
    "wood": wood,
    "road": road,
    "night sky": night_sky,
    "sunset": sunset,
    "ground": ground,
    "tiles": tiles,
    "background": background,
    "stone wall": stone_wall,
    "bushes": bushes,
    "fabric": fabric,
    "concrete": concrete,
}
"""Surface name -> painter."""

ABOVE = (
    "sky",
    "night sky",
    "sunset",
    "brick wall",
    "background",
    "tiles",
    "wood",
    "stone wall",
    "bushes",
    "concrete",
)
BELOW = ("grass", "water", "sand", "snow", "road", "ground", "wood", "tiles", "fabric", "concrete", "bushes")
"""Which surfaces naturally lie over which."""
