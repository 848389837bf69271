
// The small images: in order, filtered, and painted only while they can be seen.

const $ = (id) => document.getElementById(id);
const DATA = JSON.parse($("data").textContent);
const COLORS = DATA.classes.map(({ color }) => rgb(color));
const BACKGROUND = DATA.background === null ? -1 : DATA.background;
const images = DATA.images, marks = new Map(), cards = [];
const view = { only: -1, mark: "all", text: "", order: [], current: -1 };

// An element with properties and children; texts never become HTML.
function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}
const percent = (share) => (share === null ? "–" : share > 0 && share < 0.0095 ? "<1%" : `${Math.round(100 * share)}%`);

// What is drawn of an image, or null while the page still loads.
function payload(i) {
  const block = $(`p${i}`);
  return block && (block.nextSibling || document.readyState !== "loading") ? JSON.parse(block.textContent) : null;
}

const chosen = (id) => id !== BACKGROUND && (view.only < 0 || id === view.only);

// Which pixels are painted: those of one class, or those that differ from the maps beside.
function wantedOf(drawn, ids) {
  const { only } = view, beside = drawn.other || drawn.truth;
  if (!document.body.classList.contains("differences") || !beside) return chosen;
  const other = unpack(beside, ids.length), none = COLORS.length;
  return (id, i) => other[i] !== ids[i] && other[i] !== none && (only < 0 || id === only || other[i] === only);
}

function layers(drawn, regions, text = drawn.labels) {
  const [width, height] = drawn.size, ids = unpack(text, width * height);
  const photo = make("img", { src: `data:image/jpeg;base64,${drawn.photo}`, alt: "", decoding: "async" });
  const labels = make("canvas", { className: "labels" });
  paintLabels(labels, ids, drawn.size, COLORS, BACKGROUND, text === drawn.labels ? wantedOf(drawn, ids) : chosen);
  const found = [photo, labels];
  if (text === drawn.labels && drawn.levels) {
    found.push(make("canvas", { className: "levels" }));
    paintLevels(found[2], drawn.levels, drawn.cells);
  }
  if (text === drawn.labels && drawn.outlines) found.push(outline(drawn.outlines, drawn.size, regions, view.only));
  return found;
}

function paint(card) {
  const i = Number(card.dataset.index), drawn = payload(i);
  if (drawn) card.firstChild.replaceChildren(...layers(drawn, images[i].regions));
  card.dataset.painted = drawn ? "yes" : "";
}

const seen = new Set();
const watcher = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (isIntersecting) {
      seen.add(target);
      paint(target);
    } else {
      seen.delete(target);
      target.firstChild.replaceChildren();
      target.dataset.painted = "";
    }
  }
}, { root: $("grid"), rootMargin: "250px" });

function makeCard(image, i) {
  const trust = make("span", { className: "meter" }, make("i"));
  trust.firstChild.style.width = `${100 * (image.trust ?? 0)}%`;
  const card = make(
    "button", { className: "card", title: image.name },
    make("span", { className: "frame" }),
    make("span", { className: "name" }, make("span", { textContent: image.name }), make("span", { textContent: percent(image.trust) })),
    trust,
    make("span", { className: "badge" }),
  );
  card.tabIndex = -1;
  card.dataset.index = i;
  card.dataset.name = image.name;
  return card;
}

const SORTS = {
  trust: ["least trusted first", (a) => a.trust],
  trusted: ["most trusted first", (a) => (a.trust === null ? null : -a.trust)],
  confidence: ["least sure first", (a) => a.confidence],
  agreement: ["least agreement first", (a) => a.agreement],
  accuracy: ["least like ground truth first", (a) => a.accuracy],
  found: ["most foreground first", (a) => -a.foreground],
  name: ["by name", null],
};

function sortBy(name) {
  const key = SORTS[name][1], all = images.map((_, i) => i);
  const of = key ? all.map((i) => key(images[i]) ?? Infinity) : null;
  const text = new Intl.Collator("en", { numeric: true });
  all.sort((a, b) => (of ? of[a] - of[b] || a - b : text.compare(images[a].name, images[b].name)) || a - b);
  view.order = all;
  $("grid").append(...all.map((i) => cards[i]));
  $("grid").scrollTop = 0;
}

function isShown(i) {
  const image = images[i], mark = marks.get(i) ?? "open";
  return (
    (view.mark === "all" || view.mark === mark) &&
    (view.only < 0 || image.classes.some(({ id }) => id === view.only)) &&
    image.name.toLowerCase().includes(view.text)
  );
}
const shown = () => view.order.filter((i) => !cards[i].hidden);

function filter() {
  let left = 0;
  for (let i = 0; i < cards.length; i++) left += (cards[i].hidden = !isShown(i)) ? 0 : 1;
  $("summary").textContent =
    (left === images.length ? `${left} images` : `${left} of ${images.length} images`) +
    (DATA.images_in_all > images.length ? `, the least trusted of ${DATA.images_in_all}` : "") +
    `, trust is ${DATA.order === "agreement" ? `agreement with ${DATA.against}` : "the confidence of the foreground"}`;
}

function repaint() {
  seen.forEach(paint);
  showDetail();
}
