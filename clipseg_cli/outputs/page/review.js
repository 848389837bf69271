
// Marks, keys and buttons.

const KEPT = `clipseg-review:${DATA.run}:${DATA.id}`;

// What is saved, and what `clipseg import` takes.
function marksFile() {
  const sorted = [...marks].sort(([a], [b]) => a - b);
  const named = (value) => Object.fromEntries(sorted.map(([i, mark]) => [images[i].name, value(i, mark)]));
  // A mark is about the label that was looked at.
  return { format: "clipseg-review", version: 1, run: DATA.run, marks: named((_, mark) => mark), labels: named((i) => images[i].label) };
}

function takeMarks(file) {
  if (file?.format !== "clipseg-review" || file.version !== 1 || typeof file.marks !== "object") return -1;
  const places = new Map(images.map(({ name }, i) => [name, i]));
  let taken = 0;
  for (const [name, mark] of Object.entries(file.marks)) {
    const seen = file.labels?.[name];
    if (places.has(name) && Object.hasOwn(MARKS, mark) && (seen ?? images[places.get(name)].label) === images[places.get(name)].label) {
      marks.set(places.get(name), mark);
      taken++;
    }
  }
  return taken;
}

function keep() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(marksFile()));
  } catch { /* a browser that keeps nothing: the button saves all the same */ }
}

function remember() {
  try {
    takeMarks(JSON.parse(localStorage.getItem(KEPT)));
  } catch { /* as above, or something else under that name */ }
}

function showMarks() {
  cards.forEach((card, i) => {
    const mark = marks.get(i);
    card.lastChild.textContent = mark ?? "";
    card.lastChild.className = `badge ${mark ?? ""}`;
    if (mark) card.dataset.mark = mark;
    else delete card.dataset.mark;
  });
  const count = (mark) => [...marks.values()].filter((other) => other === mark).length;
  $("counts").replaceChildren(...Object.keys(MARKS).map((mark) => make("span", { className: mark, textContent: `${count(mark)} ${mark}` })));
  $("save").disabled = !marks.size;
  $("save").textContent = marks.size ? `Save ${marks.size} mark${marks.size > 1 ? "s" : ""}` : "Save marks";
}

function select(i) {
  cards[view.current]?.removeAttribute("aria-current");
  view.current = i;
  if (i >= 0) {
    cards[i].setAttribute("aria-current", "true");
    cards[i].scrollIntoView({ block: "nearest" });
  }
  showDetail();
}

function move(step) {
  const all = shown();
  if (!all.length) return;
  const at = all.indexOf(view.current);
  select(all[at < 0 ? 0 : Math.max(0, Math.min(all.length - 1, at + step))]);
}

function setMark(mark) {
  const i = view.current;
  if (i < 0) return;
  const all = shown(), next = all[all.indexOf(i) + 1] ?? i;
  if (mark) marks.set(i, mark);
  else marks.delete(i);
  keep();
  showMarks();
  filter();
  if (mark) select(cards[next].hidden ? (shown()[0] ?? -1) : next);
  else showDetail();
}

function toggle(layer) {
  const on = document.body.classList.toggle(layer);
  document.querySelector(`[data-layer=${layer}]`).setAttribute("aria-pressed", on);
  $("scale").hidden = !document.body.classList.contains("levels");
  if (layer === "differences") repaint();
}

function choose(only) {
  view.only = view.only === only ? -1 : only;
  for (const chip of $("classes").children) chip.setAttribute("aria-pressed", Number(chip.dataset.id) === view.only);
  filter();
  if (view.current < 0 || cards[view.current].hidden) select(shown()[0] ?? -1);
  repaint();
}

function save() {
  const text = JSON.stringify(marksFile(), null, 2) + "\n";
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: "review_marks.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function load(file) {
  let taken = -1;
  try {
    taken = takeMarks(JSON.parse(await file.text()));
  } catch { /* not JSON */ }
  $("summary").textContent = taken < 0 ? `${file.name} holds no marks of clipseg review` : `${taken} marks taken from ${file.name}`;
  keep();
  showMarks();
  showDetail();
}

const columns = () => getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;
const KEYS = {
  g: () => setMark("good"), f: () => setMark("fix"), s: () => setMark("skip"), u: () => setMark(null),
  o: () => toggle("labels"), r: () => toggle("outlines"), c: () => toggle("levels"), d: () => toggle("differences"),
  j: () => move(1), k: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1),
  ArrowDown: () => move(columns()), ArrowUp: () => move(-columns()), Home: () => move(-Infinity), End: () => move(Infinity),
  Enter: () => document.body.classList.toggle("wide"), Escape: () => document.body.classList.remove("wide"),
  "/": () => $("search").focus(), "?": () => $("help").showModal(),
};

function start() {
  images.forEach((image, i) => cards.push(makeCard(image, i)));
  remember();
  for (const [name, [text, key]] of Object.entries(SORTS)) {
    const says = !key || ["trust", "trusted", "found"].includes(name) || (name !== DATA.order && images.some((image) => key(image) !== null));
    if (says) $("sort").append(make("option", { value: name, textContent: text }));
  }
  const within = new Map();
  for (const image of images) for (const { id } of image.classes) within.set(id, (within.get(id) ?? 0) + 1);
  for (const { id, name } of DATA.classes) {
    if (!within.has(id) || id === BACKGROUND) continue;
    const chip = make("button", { onclick: () => choose(id) }, swatch(DATA.classes[id]), name, make("span", { className: "soft", textContent: within.get(id) }));
    chip.dataset.id = id;
    chip.setAttribute("aria-pressed", "false");
    $("classes").append(chip);
  }
  const failures = Object.entries(DATA.failures);
  $("failures").hidden = !failures.length;
  $("failures").firstChild.textContent = `${failures.length} images are missing`;
  $("failures").lastChild.append(...failures.map(([name, why]) => make("li", { textContent: `${name}: ${why}` })));
  document.querySelector("[data-layer=levels]").hidden = !DATA.has_levels;
  const differences = document.querySelector("[data-layer=differences]");
  differences.hidden = !DATA.has_beside;
  differences.title = `Only what differs from ${DATA.against ? `the labels of ${DATA.against}` : "the ground truth"}; checked: background that should be something else`;
  document.querySelector("[data-layer=outlines]").hidden = !DATA.regions_ordered;
  document.body.classList.add("labels", "outlines");
  for (const button of document.querySelectorAll("[data-layer]")) button.onclick = () => toggle(button.dataset.layer);
  $("sort").onchange = () => sortBy($("sort").value);
  $("marked").onchange = () => { view.mark = $("marked").value; filter(); };
  $("search").oninput = () => { view.text = $("search").value.toLowerCase(); filter(); };
  $("opacity").oninput = () => document.documentElement.style.setProperty("--opacity", $("opacity").value / 100);
  $("zoom").oninput = () => document.documentElement.style.setProperty("--card", `${$("zoom").value}px`);
  $("grid").onclick = (event) => { const card = event.target.closest(".card"); if (card) select(Number(card.dataset.index)); };
  $("grid").ondblclick = (event) => { if (event.target.closest(".card")) KEYS.Enter(); };
  $("save").onclick = save;
  $("load").onclick = () => $("file").click();
  $("file").onchange = () => { if ($("file").files[0]) load($("file").files[0]); $("file").value = ""; };
  $("help-open").onclick = KEYS["?"];
  $("copy").onclick = () => { getSelection().selectAllChildren($("command")); document.execCommand("copy"); };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input[type=search], select, dialog *");
    if (event.key === "Escape" && typing) event.target.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (event.key === "Enter" && event.target.matches("button:not(.card), summary, a")) return;
    const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
    if (act) {
      event.preventDefault();
      act();
    }
  });
  sortBy("trust");
  showMarks();
  filter();
  cards.forEach((card) => watcher.observe(card));
  select(view.order.find((i) => !marks.has(i)) ?? view.order[0] ?? -1);
}

// What comes after this script in the file is still being read: what could not be painted yet is tried again.
const retry = setInterval(() => {
  const ready = document.readyState !== "loading";
  if (ready) clearInterval(retry);
  for (const card of seen) if (!card.dataset.painted) paint(card);
  if (view.current >= 0 && !$("readout")) showDetail();
}, 100);
start();
