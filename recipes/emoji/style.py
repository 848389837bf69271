"""Style augmentation: one drawing, many hands.

A held-out artist is the weak point of a model trained on a few art sets. So a sprite's outline, shading, palette
and proportions are changed at random before it is placed. Sprites are RGBA, uint8, colours not multiplied by alpha.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Sprite = NDArray[np.uint8]  # [h, w, 4]
Pixels = NDArray[Any]
Rng = np.random.Generator


def transform(rng: Rng, sprite: Sprite, side: float, *, strong: bool) -> Sprite:
    """Resize the longer side to `side` pixels; flip, rotate, shear, change the aspect and (strong) warp."""
    h, w = sprite.shape[:2]
    scale = side / max(h, w)
    angle, shear, aspect = rng.normal(0, 4.0), 0.0, 1.0
    if strong:
        angle = rng.normal(0, 10) if rng.random() < 0.8 else rng.uniform(-50, 50)
        shear, aspect = rng.normal(0, 0.08), float(np.exp(rng.normal(0, 0.12)))
    sx, sy = scale * aspect, scale / aspect
    if rng.random() < 0.5:
        sx = -sx
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    matrix = np.array([[c, -s], [s, c]]) @ np.array([[sx, shear * scale], [0, sy]])
    corners = matrix @ np.array([[0, w, 0, w], [0, 0, h, h]], float)
    low, high = corners.min(1), corners.max(1)
    ow, oh = np.maximum(np.ceil(high - low).astype(int), 2)
    full = np.hstack([matrix, -low[:, None]]).astype(np.float32)
    source: Pixels = sprite.astype(np.float32)
    source[..., :3] *= source[..., 3:] / 255
    if abs(scale) < 0.6:  # shrinking: average first, so that thin lines do not alias
        shrink = max(int(w * scale * 1.3), 1), max(int(h * scale * 1.3), 1)
        source = cv2.resize(source, shrink, interpolation=cv2.INTER_AREA)
        full[:, 0] *= w / shrink[0]
        full[:, 1] *= h / shrink[1]
    out: Pixels = cv2.warpAffine(source, full, (int(ow), int(oh)), flags=cv2.INTER_LINEAR)
    if strong and rng.random() < 0.35:
        out = _soft_warp(rng, out)
    out[..., :3] *= 255 / np.maximum(out[..., 3:], 1)
    return np.clip(out, 0, 255).astype(np.uint8)


def _soft_warp(rng: Rng, image: Pixels) -> Pixels:
    h, w = image.shape[:2]
    reach = rng.uniform(0.02, 0.07) * max(h, w)
    grid = rng.normal(0, 1, (4, 4, 2)).astype(np.float32)
    offset = cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) * reach
    xs, ys = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(image, xs + offset[..., 0], ys + offset[..., 1], cv2.INTER_LINEAR)


def recolour(sprite: Sprite, hue: float, sat: float, val: float) -> Sprite:
    """Paint the large coloured parts with one hue (OpenCV degrees); greys such as wheels mostly stay."""
    hsv = cv2.cvtColor(np.ascontiguousarray(sprite[..., :3]), cv2.COLOR_RGB2HSV).astype(np.float32)
    coloured = (hsv[..., 1] > 70) & (hsv[..., 2] > 60) & (sprite[..., 3] > 60)
    out = hsv.copy()
    if coloured.any():
        bins = np.bincount((hsv[..., 0][coloured] / 12).astype(int), minlength=15)
        main = bins.argmax() * 12 + 6
        near = coloured & (np.abs((hsv[..., 0] - main + 90) % 180 - 90) < 26)
        bright = np.median(hsv[..., 2][near]) if near.any() else 200.0
        out[near, 0] = hue
        out[near, 1] = np.maximum(hsv[..., 1][near], 150) * sat
        out[near, 2] = hsv[..., 2][near] / max(bright, 1) * 215 * val
    rgb = cv2.cvtColor(np.clip(out, 0, (179, 255, 255)).astype(np.uint8), cv2.COLOR_HSV2RGB)
    return np.dstack([rgb, sprite[..., 3]])


def restyle(rng: Rng, sprite: Sprite, hue: str) -> Sprite:
    """Change palette, shading and line of a sprite; `hue` says how far colours may go (free, near, fixed)."""
    rgb: Pixels = np.ascontiguousarray(sprite[..., :3])
    alpha: Pixels = sprite[..., 3]
    if rng.random() < 0.7:
        rgb = _shift_colours(rng, rgb, hue)
    look = rng.random()
    if look < 0.14:
        levels = int(rng.integers(2, 6))
        step = 256 / levels
        rgb = (np.floor(rgb / step) * step + step / 2).astype(np.uint8)
    elif look < 0.26 and min(rgb.shape[:2]) > 10:
        rgb = cv2.medianBlur(rgb, 5)
    if rng.random() < 0.3:
        rgb = _shade(rng, rgb)
    if rng.random() < 0.15:
        rgb = _ink(rng, rgb)
    if rng.random() < 0.12:
        rgb = _grain(rng, rgb)
    if rng.random() < 0.1:
        alpha = cv2.erode(alpha, np.ones((3, 3), np.uint8))
    out = np.dstack([rgb, alpha])
    if rng.random() < 0.25:
        out = _outline(rng, out)
    return out


def _shift_colours(rng: Rng, rgb: Pixels, hue: str) -> Pixels:
    if hue != "fixed" and rng.random() < 0.06:
        return cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    shift = {"free": 12.0, "near": 7.0, "fixed": 2.0}[hue] * rng.normal()
    table = np.full(180, shift)
    if hue == "free":
        if rng.random() < 0.3:  # every part of the palette goes its own way
            knots = rng.normal(0, 40, 7)
            table += np.interp(np.arange(180), np.linspace(0, 180, 7), np.append(knots[:-1], knots[0]))
        elif rng.random() < 0.3:
            table += rng.uniform(0, 180)
    hues = ((np.arange(180) + table) % 180).astype(np.uint8)
    hsv[..., 0] = hues[hsv[..., 0]]
    wide = hue != "fixed"
    sat = (
        np.exp(rng.normal(0, 0.3 if wide else 0.12))
        if rng.random() < 0.9 or not wide
        else rng.uniform(0.1, 0.5)
    )
    gamma, gain = np.exp(rng.normal(0, 0.3 if wide else 0.15)), np.exp(rng.normal(0, 0.12))
    levels = np.arange(256, dtype=np.float32)
    hsv[..., 1] = np.clip(levels * sat, 0, 255).astype(np.uint8)[hsv[..., 1]]
    hsv[..., 2] = np.clip((levels / 255) ** gamma * 255 * gain, 0, 255).astype(np.uint8)[hsv[..., 2]]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _shade(rng: Rng, rgb: Pixels) -> Pixels:
    h, w = rgb.shape[:2]
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.6)
    ys = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    xs = np.linspace(-1, 1, w, dtype=np.float32)[None]
    light = 1 + depth * 0.6 * (ys * np.sin(angle) + xs * np.cos(angle)).astype(np.float32)
    if rng.random() < 0.4:
        cx, cy = rng.uniform(-0.6, 0.6, 2)
        light = light + depth * np.exp(-((xs - cx) ** 2 + (ys - cy) ** 2) * 3).astype(np.float32)
    lit: Pixels = np.clip(rgb * light[..., None], 0, 255).astype(np.uint8)
    return lit


def _grain(rng: Rng, rgb: Pixels) -> Pixels:
    """As if painted on canvas, felt or paper: smooth noise of one size over the drawing."""
    h, w = rgb.shape[:2]
    size = rng.uniform(1.0, 6.0)
    small = rng.normal(1, rng.uniform(0.04, 0.2), (max(2, int(h / size)), max(2, int(w / size))))
    grain = cv2.resize(small.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR)
    rough: Pixels = np.clip(rgb * grain[..., None], 0, 255).astype(np.uint8)
    return rough


def light(rng: Rng, image: Pixels) -> Pixels:
    """Uneven light over a whole image: a slope, and a bright or dark place."""
    h, w = image.shape[:2]
    coarse = 1 + rng.normal(0, 0.22, (3, 3))
    field = cv2.resize(coarse.astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC)
    lit: Pixels = np.clip(image * np.clip(field, 0.3, 1.7)[..., None], 0, 255).astype(np.uint8)
    return lit


def _ink(rng: Rng, rgb: Pixels) -> Pixels:
    """Dark lines along the inner edges."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    edges = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    strength = np.clip((edges.astype(np.float32) - 25) / 40, 0, 1) * rng.uniform(0.5, 1.0)
    ink = rng.uniform(0, 70, 3).astype(np.float32)
    mixed: Pixels = (rgb * (1 - strength[..., None]) + ink * strength[..., None]).astype(np.uint8)
    return mixed


def _outline(rng: Rng, sprite: Sprite) -> Sprite:
    """A line around the silhouette: dark, white, or any colour."""
    reach = int(rng.integers(1, 4))
    padded = cv2.copyMakeBorder(sprite, reach, reach, reach, reach, cv2.BORDER_CONSTANT)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    wide = cv2.dilate(np.ascontiguousarray(padded[..., 3]), kernel)
    kind = rng.random()
    line = (
        rng.uniform(0, 60, 3)
        if kind < 0.6
        else rng.uniform(225, 255, 3)
        if kind < 0.85
        else rng.uniform(0, 255, 3)
    )
    inner = padded[..., 3:].astype(np.float32) / 255
    rgb = padded[..., :3] * inner + line.astype(np.float32) * (1 - inner)
    return np.dstack([rgb.astype(np.uint8), wide])


def spoil(rng: Rng, image: Pixels) -> Pixels:
    """Whole-image damage: light, colour cast, blur, noise, JPEG, grey."""
    if rng.random() < 0.4:
        gain, lift = np.exp(rng.normal(0, 0.15, 3)), rng.normal(0, 12)
        image = np.clip(image * gain.astype(np.float32) + np.float32(lift), 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3))
    if rng.random() < 0.15:
        grain = rng.normal(0, rng.uniform(2, 12), image.shape).astype(np.float32)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.12:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image
