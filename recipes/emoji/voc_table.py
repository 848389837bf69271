"""Dining tables, drawn from shapes: no emoji shows one.

A table top in perspective on four legs or one foot, bare or under a cloth, laid with plates, cutlery and glasses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from recipes.emoji.painting import Rng, colour

if TYPE_CHECKING:
    from recipes.emoji.art import Sprite

WIDTH, HEIGHT = 420, 300
Pixels = NDArray[np.uint8]  # [HEIGHT, WIDTH, 4] RGBA
TABLE_TOP = 0.22
"""Where the middle of a table's top lies, as a share of the sprite's height: things stand on it there."""


def draw_table(rng: Rng) -> Sprite:
    """One table, cropped; every call another."""
    canvas = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    timber = colour(rng, (18, 34), (0.35, 0.75), (0.35, 0.85))
    back, front = rng.uniform(20, 34), rng.uniform(92, 128)
    inset, reach = rng.uniform(30, 85), rng.uniform(0.38, 0.49) * WIDTH
    round_top = rng.random() < 0.4
    foot = rng.uniform(0.72, 0.97) * HEIGHT
    if round_top and rng.random() < 0.6:
        _pedestal(canvas, timber, front, foot)
    else:
        _legs(canvas, timber, (back, front, foot), reach, inset)
    top = _outline(round_top, back, front, reach, inset)
    cloth = colour(rng, (0, 360), (0.0, 0.7), (0.65, 1.0)) if rng.random() < 0.55 else None
    if cloth is None:
        _fill(canvas, top + np.array([0, 13]), timber * 0.66)
        _fill(canvas, top, np.minimum(timber * 1.12, 255))
    else:
        drop = rng.uniform(0.15, 0.5) * (foot - front)
        _cloth(rng, canvas, top, drop, cloth)
    _lay(rng, canvas, back, front, reach - inset)
    ys, xs = np.nonzero(canvas[..., 3] > 24)
    return np.ascontiguousarray(canvas[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])


def _outline(round_top: bool, back: float, front: float, reach: float, inset: float) -> NDArray[np.float64]:
    """The corners of the table top, [K, 2] in pixels."""
    middle = WIDTH / 2
    if round_top:
        turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        x, y = middle + reach * np.cos(turn), (back + front) / 2 + (front - back) / 2 * np.sin(turn)
        return np.stack([x, y], 1)
    near, far = reach, reach - inset
    corners = [[middle - far, back], [middle + far, back], [middle + near, front], [middle - near, front]]
    return np.array(corners)


def _fill(canvas: Pixels, points: NDArray[np.float64], tone: NDArray[np.float32]) -> None:
    """A filled shape with soft edges."""
    fixed = np.round(points * 16).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], [*np.clip(tone, 0, 255).tolist(), 255], cv2.LINE_AA, 4)


def _legs(
    canvas: Pixels,
    timber: NDArray[np.float32],
    heights: tuple[float, float, float],
    reach: float,
    inset: float,
) -> None:
    back, front, foot = heights
    for far in (True, False):
        spread = (reach - inset if far else reach) - 16
        start, end = (back + 10, foot - 34) if far else (front - 16, foot)
        for side in (-1, 1):
            x, thick = WIDTH / 2 + side * spread, 9 if far else 13
            leg = [[x - thick, start], [x + thick, start], [x + thick * 0.7, end], [x - thick * 0.7, end]]
            _fill(canvas, np.array(leg), timber * (0.55 if far else 0.85))


def _pedestal(canvas: Pixels, timber: NDArray[np.float32], front: float, foot: float) -> None:
    x = WIDTH / 2
    _fill(
        canvas,
        np.array([[x - 16, front - 20], [x + 16, front - 20], [x + 22, foot], [x - 22, foot]]),
        timber * 0.8,
    )
    base = [[x - 20, foot - 34], [x + 20, foot - 34], [x + 92, foot], [x - 92, foot]]
    _fill(canvas, np.array(base), timber * 0.65)


def _cloth(
    rng: Rng, canvas: Pixels, top: NDArray[np.float64], drop: float, tone: NDArray[np.float32]
) -> None:
    """A cloth over the edge with a wavy hem, often chequered."""
    widest = top[:, 0].min(), top[:, 0].max()
    xs = np.linspace(*widest, 80)
    edge = np.interp(xs, *_lower_edge(top))
    hem = edge + drop * (0.85 + 0.15 * np.abs(np.sin(xs / WIDTH * rng.uniform(18, 34))))
    skirt = np.concatenate([np.stack([xs, edge - 1], 1), np.stack([xs, hem], 1)[::-1]])
    _fill(canvas, skirt, tone * 0.82)
    _fill(canvas, top, tone)
    if rng.random() < 0.5:  # a chequer or stripes in the cloth's own colour
        period = rng.uniform(26, 44)
        ys, cols = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
        dark = (cols // period) % 2 == 0
        if rng.random() < 0.6:
            dark ^= (ys // (period * 0.6)) % 2 == 0
        shape = np.zeros((HEIGHT, WIDTH), np.uint8)
        for part in (skirt, top):
            cv2.fillPoly(shape, [np.round(part).astype(np.int32)], 1)
        where = dark & (shape > 0)
        canvas[where, :3] = (canvas[where, :3] * rng.uniform(0.6, 0.85)).astype(np.uint8)


def _lower_edge(top: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The front edge of a table top as sorted x and y."""
    low = top[top[:, 1] >= (top[:, 1].min() + top[:, 1].max()) / 2 - 1e-6]
    order = np.argsort(low[:, 0])
    return low[order, 0], low[order, 1]


def _lay(rng: Rng, canvas: Pixels, back: float, front: float, far: float) -> None:
    """Plates with food, cutlery beside them and a glass or a bowl, from the back to the front."""
    middle, depth = WIDTH / 2, front - back
    rim = colour(rng, (0, 360), (0.0, 0.5), (0.5, 0.95))
    if rng.random() < 0.5:
        _bowl(rng, canvas, middle + rng.uniform(-20, 20), back + 0.42 * depth)
    seats = int(rng.integers(2, 4))
    for row, y in ((0, back + 0.25 * depth), (1, back + 0.74 * depth)):
        if row == 0 and rng.random() < 0.3:
            continue
        spread = 0.62 * far if row == 0 else 0.72 * far
        for seat in range(seats):
            x = middle + (2 * seat / (seats - 1) - 1) * spread
            _setting(rng, canvas, x, y, 0.75 if row == 0 else 1.0, rim)


def _setting(rng: Rng, canvas: Pixels, x: float, y: float, scale: float, rim: NDArray[np.float32]) -> None:
    wide, deep = 34 * scale, 12 * scale
    _ellipse(canvas, x, y + 2 * scale, wide, deep, np.full(3, 120, np.float32))
    _ellipse(canvas, x, y, wide, deep, rim)
    _ellipse(canvas, x, y, wide * 0.84, deep * 0.84, np.full(3, 250, np.float32))
    if rng.random() < 0.6:
        food = colour(rng, (0, 130), (0.5, 0.9), (0.4, 0.9))
        _ellipse(canvas, x + rng.uniform(-5, 5), y - 1, wide * 0.42, deep * 0.45, food)
    steel = [196, 200, 206, 255]
    for side, slant in ((-1, -3.0), (1, 3.0)):
        left = x + side * wide * 1.25
        ends = (int(left), int(y - deep)), (int(left + slant * scale), int(y + deep))
        cv2.line(canvas, *ends, steel, max(2, round(3 * scale)), cv2.LINE_AA)


def _bowl(rng: Rng, canvas: Pixels, x: float, y: float) -> None:
    tone = colour(rng, (0, 360), (0.2, 0.7), (0.5, 0.95))
    turn = np.linspace(0, np.pi, 24)
    body = np.stack([x + 36 * np.cos(turn), y + 30 * np.sin(turn)], 1)
    _fill(canvas, body, tone)
    for fruit in np.linspace(-20, 20, 4):
        centre = round(x + fruit), round(y - 6 + rng.uniform(-4, 2))
        cv2.circle(
            canvas,
            centre,
            12,
            [*colour(rng, (0, 110), (0.7, 0.95), (0.7, 1.0)).tolist(), 255],
            -1,
            cv2.LINE_AA,
        )
    _fill(canvas, body[np.array([0, *range(4, 20), 23])], tone)
    _ellipse(canvas, x, y + 2, 36, 4, np.minimum(tone * 1.2, 255))


def _ellipse(canvas: Pixels, x: float, y: float, wide: float, deep: float, tone: NDArray[np.float32]) -> None:
    centre, axes = (round(x * 16), round(y * 16)), (round(wide * 16), round(deep * 16))
    shade = [*np.clip(tone, 0, 255).tolist(), 255]
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, shade, -1, cv2.LINE_AA, 4)
