
// The chosen image, large, with what is true or what a second run says beside it.

const MARKS = { good: "g", fix: "f", skip: "s" };

function showDetail() {
  const i = view.current, image = images[i], drawn = i < 0 ? null : payload(i);
  if (!image || !drawn) {
    $("detail").replaceChildren(make("p", { className: "soft", textContent: i < 0 ? "No image is chosen." : "Loading ..." }));
    return;
  }
  const readout = make("div", { id: "readout", className: "soft", textContent: "Point at a pixel to see what it is." });
  const panels = [["Labels", drawn.labels]];
  if (drawn.truth) panels.push(["Ground truth", drawn.truth]);
  if (drawn.other) panels.push([`Labels of ${DATA.against}`, drawn.other]);
  const place = view.order.indexOf(i) + 1;
  const title = make("h2", {}, image.name, " ");
  if (image.link) title.append(make("a", { href: image.link, target: "_blank", rel: "noopener", textContent: "↗", title: "Open the image itself" }));
  $("detail").replaceChildren(
    title,
    make("div", { className: "facts" }, ...facts(image, place)),
    make("div", { className: "marks" }, ...Object.entries(MARKS).map(([mark, key]) => markButton(i, mark, key))),
    make("div", { className: "panels" }, ...panels.map(([name, text]) => panel(name, text, drawn, image, readout))),
    readout,
    make("div", { className: "tables" }, regionTable(image), classTable(image)),
  );
}

function facts(image, place) {
  const found = [["", `${place} of ${images.length}`], ["trust", percent(image.trust)]];
  if (DATA.order === "agreement") found.push(["confidence", percent(image.confidence)]);
  if (image.accuracy !== null) found.push(["like ground truth", percent(image.accuracy)]);
  found.push(["foreground", percent(image.foreground)], ["", `${image.width} × ${image.height}`]);
  if (image.ignored) found.push(["no label", percent(image.ignored)]);
  if (image.corrected) found.push(["", "corrected by hand"]);
  return found.map(([name, value]) => make("span", { className: "soft" }, name ? `${name} ` : "", make("b", { textContent: value })));
}

function markButton(i, mark, key) {
  const text = { good: "Good", fix: "Fix", skip: "Skip" }[mark];
  const button = make("button", { className: mark, onclick: () => setMark(mark) }, `${text} `, make("kbd", { textContent: key }));
  button.setAttribute("aria-pressed", marks.get(i) === mark);
  return button;
}

function panel(name, text, drawn, image, readout) {
  const [width, height] = drawn.size, frame = make("div", { className: "frame" }, ...layers(drawn, image.regions, text));
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.style.maxWidth = `calc(max(200px, 100vh - 480px) * ${width / height})`;
  const ids = unpack(text, width * height), own = text === drawn.labels;
  frame.onmousemove = (event) => {
    const box = frame.getBoundingClientRect();
    const [x, y] = [Math.floor(((event.clientX - box.left) / box.width) * width), Math.floor(((event.clientY - box.top) / box.height) * height)];
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const id = ids[y * width + x], known = DATA.classes[id];
    let said = known ? known.name : id === DATA.classes.length ? "no label" : "a class that this run does not have";
    if (own && drawn.levels) {
      const [columns, rows] = drawn.cells, cell = Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width);
      said += `, confidence ${percent(LEVELS[drawn.levels.charCodeAt(cell)] / 63)}`;
    }
    readout.replaceChildren(swatch(known), ` ${name}: ${said}`);
  };
  return make("figure", {}, make("figcaption", { textContent: name }), frame);
}

function swatch(known) {
  const found = make("span", { className: "swatch" });
  if (known) found.style.background = known.color;
  return found;
}

function regionTable(image) {
  const rows = image.regions.map((region, at) => {
    const row = make(
      "tr", { className: "region" },
      make("td", { textContent: at + 1 }),
      make("td", {}, swatch(DATA.classes[region.class_id]), ` ${region.class}`),
      make("td", { textContent: percent(region.trust), title: "trust" }),
      make("td", { textContent: percent(region.share), title: "share of the image" }),
    );
    const choose = (on) => () => {
      for (const group of $("detail").querySelectorAll(`g[data-region="${at + 1}"]`)) group.classList.toggle("chosen", on);
    };
    row.onmouseenter = choose(true);
    row.onmouseleave = choose(false);
    return row;
  });
  const none = DATA.regions_ordered ? "None is large enough to see." : "How sure the model was of each pixel was not kept.";
  return rows.length
    ? table("Least trusted regions", ["trust", "share"], rows)
    : make("section", {}, make("h3", { textContent: "Least trusted regions" }), make("p", { className: "soft", textContent: none }));
}

function classTable(image) {
  const rows = [...image.classes].sort((a, b) => b.share - a.share).map(({ id, share, confidence }) =>
    make(
      "tr", {},
      make("td", {}, swatch(DATA.classes[id])),
      make("td", { textContent: DATA.classes[id].name }),
      make("td", { textContent: percent(confidence), title: "confidence" }),
      make("td", { textContent: percent(share), title: "share of the image" }),
    ));
  return table("Classes", ["confidence", "share"], rows);
}

function table(title, columns, rows) {
  const heads = columns.map((text) => make("th", { textContent: text, scope: "col" }));
  return make("table", {}, make("thead", {}, make("tr", {}, make("th", { textContent: title, colSpan: 2, scope: "col" }), ...heads)), make("tbody", {}, ...rows));
}
