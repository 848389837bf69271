
"use strict";
// From texts to pictures: what is decoded here was written by outputs/_raster.py.

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const LEVELS = new Uint8Array(128);
for (let i = 0; i < 64; i++) LEVELS[ALPHABET.charCodeAt(i)] = i;
const SVG = "http://www.w3.org/2000/svg";

function rgb(color) {
  const number = parseInt(color.slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

// Runs of (value, length), in groups of 7 bits, to one value for each pixel.
function unpack(text, count) {
  const raw = atob(text), values = new Uint16Array(count);
  let at = 0, next = 0;
  const number = () => {
    let value = 0, shift = 0, byte = 128;
    for (; byte & 128; shift += 7) {
      byte = raw.charCodeAt(next++);
      value |= (byte & 127) << shift;
    }
    return value >>> 0;
  };
  while (next < raw.length) {
    const value = number(), length = number();
    values.fill(value, at, at + length);
    at += length;
  }
  return values;
}

// Class colours, full at the edges; pixels without a label are striped, those of unknown classes checked. `wanted` says
// which pixels are painted: the background only where it is wrong, checked as well.
function paintLabels(canvas, ids, [width, height], colors, background, wanted) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), out = image.data;
  const classes = colors.length;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const id = ids[i];
      if (!wanted(id, i)) continue;
      let color = colors[id], alpha = 190;
      if (id >= classes || id === background) {
        const on = id === classes ? (x + y) % 8 < 4 : ((x >> 2) + (y >> 2)) % 2;
        color = on ? [255, 255, 255] : [40, 40, 40];
        alpha = 140;
      } else if (
        (x && ids[i - 1] !== id) || (x + 1 < width && ids[i + 1] !== id) ||
        (y && ids[i - width] !== id) || (y + 1 < height && ids[i + width] !== id)
      ) alpha = 255;
      out.set(color, 4 * i);
      out[4 * i + 3] = alpha;
    }
  }
  context.putImageData(image, 0, 0);
}

const RAMP = [[0, [255, 240, 77]], [0.35, [245, 133, 24]], [0.65, [181, 54, 122]], [1, [29, 17, 71]]];
const RAMPED = Array.from({ length: 64 }, (_, level) => {
  const at = level / 63, upper = RAMP.findIndex(([stop]) => stop >= at) || 1;
  const [[low, a], [high, b]] = [RAMP[upper - 1], RAMP[upper]];
  return a.map((value, i) => value + ((b[i] - value) * (at - low)) / (high - low));
});

// How sure the model was, from yellow (unsure) to dark.
function paintLevels(canvas, text, [width, height]) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let i = 0; i < text.length; i++) {
    image.data.set(RAMPED[LEVELS[text.charCodeAt(i)]], 4 * i);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// The edges of the pixels that are numbered `own`, as the path of an SVG.
function edges(map, [width, height], own) {
  const parts = [];
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && map[y * width + x] === own;
  const follow = (lines, length, differs, write) => {
    for (let line = 0; line <= lines; line++) {
      for (let at = 0, from = -1; at <= length; at++) {
        const edge = at < length && differs(line, at);
        if (edge && from < 0) from = at;
        if (!edge && from >= 0) {
          parts.push(write(line, from, at));
          from = -1;
        }
      }
    }
  };
  follow(height, width, (y, x) => inside(x, y) !== inside(x, y - 1), (y, from, to) => `M${from} ${y}H${to}`);
  follow(width, height, (x, y) => inside(x, y) !== inside(x - 1, y), (x, from, to) => `M${x} ${from}V${to}`);
  return parts.join("");
}

// Outlines of the least trusted regions, numbered as in the table beside the image.
function outline(text, size, regions, only) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  const map = unpack(text, size[0] * size[1]);
  for (let own = 1; own <= regions.length; own++) {
    if (only >= 0 && regions[own - 1].class_id !== only) continue;
    const path = edges(map, size, own), first = map.indexOf(own);
    if (first < 0) continue;
    const group = svg.appendChild(document.createElementNS(SVG, "g"));
    for (const kind of ["halo", "edge"]) {
      const line = group.appendChild(document.createElementNS(SVG, "path"));
      line.setAttribute("class", kind);
      line.setAttribute("d", path);
    }
    const number = group.appendChild(document.createElementNS(SVG, "text")), letter = Math.max(...size) / 24;
    number.setAttribute("x", Math.min(first % size[0], size[0] - letter));
    number.setAttribute("y", Math.max(Math.floor(first / size[0]), letter));
    number.setAttribute("font-size", letter);
    number.textContent = own;
    group.dataset.region = own;
  }
  return svg;
}
